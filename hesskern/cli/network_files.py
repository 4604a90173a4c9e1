"""Networks from files."""

from __future__ import annotations

from hesskern.cli.common import RefusedError, one_line, reason
from hesskern.network.linear_network import LinearNetwork


def read_network(path: str, option: str = "--net") -> LinearNetwork:
    """Return the network that `LinearNetwork.save` wrote; `option` is the name of the file in messages.

    Raises
    ------
    RefusedError
        If there is no such file, or it does not hold a network.
    """
    try:
        return LinearNetwork.load(path)
    except OSError as error:
        raise RefusedError(f"{option}: cannot read {path!r}: {reason(error)}.") from error
    except ValueError as error:
        why = one_line(error).removeprefix(f"path is {path!r}, which ")
        raise RefusedError(f"{option}: {path!r} {why}.") from error
