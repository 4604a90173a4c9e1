"""The registry of backends: by argument, by `use_backend`, by the variable HESSKERN_BACKEND, else "cpp"."""

from __future__ import annotations

import functools
import importlib
import os
from types import TracebackType

from hesskern.backends.protocol import Backend

_MODULES = {
    "cpp": "hesskern.backends.cpp",
    "numba": "hesskern.backends.jitted",
    "numpy": "hesskern.backends.reference",
    "cuda": "hesskern.backends.cuda.backend",
}
#: Backends whose arrays are tensors on a GPU; all others take NumPy's.
_ON_DEVICE = ("cuda",)
_DEFAULT = "cpp"
_chosen: str | None = None


def names() -> tuple[str, ...]:
    """Return the names of all backends."""
    return tuple(_MODULES)


def host_names() -> tuple[str, ...]:
    """Return the names of the backends that compute on the CPU."""
    return tuple(name for name in _MODULES if name not in _ON_DEVICE)


def resolve(name: str | None = None) -> str:
    """Return the name of the backend that a call with this argument uses; ValueError for an unknown one."""
    source = "backend"
    if name is None and _chosen is not None:
        name = _chosen
    if name is None and os.environ.get("HESSKERN_BACKEND"):
        name, source = os.environ["HESSKERN_BACKEND"], "HESSKERN_BACKEND"
    if name is None:
        return _DEFAULT
    if name not in _MODULES:
        raise ValueError(f"{source} is {name!r}; expected one of {', '.join(map(repr, _MODULES))}.")
    return name


def get(name: str | None = None) -> Backend:
    """Return a backend, loaded on first use."""
    return _load(resolve(name))


def get_for(name: str | None, place: str, what: str) -> Backend:
    """Return the backend for arrays at `place`; on a GPU without a name "cuda".

    Raises
    ------
    TypeError
        If the backend computes somewhere else than where the arrays are; `what` names them in the message.
    """
    device = place != "cpu"
    chosen = "cuda" if device and name is None else resolve(name)
    if device != (chosen in _ON_DEVICE):
        raise TypeError(
            f"{what} on {place}, but the backend {chosen!r} takes arrays on {'the CPU' if device else 'a GPU'}; "
            + ("move them with .cpu()." if device else "pass tensors on the GPU, for instance torch.tensor(X).cuda().")
        )
    return _load(chosen)


@functools.cache
def _load(name: str) -> Backend:
    backend: Backend = importlib.import_module(_MODULES[name]).BACKEND
    return backend


class use_backend:  # noqa: N801 - read and called like a function, and usable in a `with` statement
    """Use this backend from now on, or inside a ``with`` block only.

    Parameters
    ----------
    name : str or None
        "cpp" (compiled, the default), "numba" (compiled on first use), "numpy" (the plain definition) or "cuda" (for
        tensors on a GPU); None goes back to HESSKERN_BACKEND or "cpp".

    Raises
    ------
    ValueError
        If there is no such backend.
    ImportError
        If what it needs, a package or a GPU, is not there; the message says what to install.

    Examples
    --------
    >>> import hesskern as hk
    >>> with hk.use_backend("numpy"):
    ...     hk.info()["backend"]
    'numpy'
    """

    def __init__(self, name: str | None) -> None:
        global _chosen  # noqa: PLW0603 - the one process-wide choice
        if name is not None:
            get(name)
        self._before = _chosen
        _chosen = name

    def __enter__(self) -> None:
        """Do nothing: the choice is made already."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Go back to the choice before."""
        global _chosen  # noqa: PLW0603
        _chosen = self._before
