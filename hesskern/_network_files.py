"""Networks from files."""

from __future__ import annotations

import zipfile

from hesskern._command import RefusedError, one_line
from hesskern.network import LinearNetwork


def read_network(path: str) -> LinearNetwork:
    """Return the network of ``--net``, a file that `LinearNetwork.save` wrote.

    Raises
    ------
    RefusedError
        If there is no such file, or no network in it.
    """
    try:
        return LinearNetwork.load(path)
    except OSError as error:
        raise RefusedError(f"--net: cannot read {path!r}: {error.strerror or one_line(error)}.") from error
    except (ValueError, TypeError, AttributeError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise RefusedError(f"--net: {path!r} is no network that LinearNetwork.save wrote.") from error
