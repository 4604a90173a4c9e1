"""Progress bars, by tqdm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Bar(Protocol):
    """A progress bar."""

    #: How much is done.
    n: float

    def update(self, n: float) -> object:
        """Add to the finished part."""

    def close(self) -> None:
        """Leave the bar as it is on the screen."""


def progress_bar(
    total: int, *, initial: int = 0, unit: str = "step", label: str | None = None, argument: str = "progress"
) -> Bar:
    """Return a progress bar.

    Parameters
    ----------
    total : int
    initial : int
        How much is done already.
    unit : str
    label : str, optional
        Name of the work, in front of the bar.
    argument : str
        The name of the user's argument that asked for it.

    Raises
    ------
    ImportError
        Without tqdm; the message says what to install.
    """
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ImportError(f'{argument}=True needs tqdm; install it with pip install "hesskern[progress]".') from error
    bar: Bar = tqdm(total=total, initial=initial, unit=unit, unit_scale=True, desc=label)
    return bar


def with_progress(items: Sequence[Item], *, label: str, argument: str) -> Iterator[Item]:
    """Yield the items and show a progress bar; see `progress_bar`."""
    bar = progress_bar(len(items), unit="it", label=label, argument=argument)
    try:
        for item in items:
            yield item
            bar.update(1)
    finally:
        bar.close()
