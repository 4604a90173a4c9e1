"""Networks from files."""

from __future__ import annotations

import zipfile

from hesskern._command import RefusedError, one_line
from hesskern.network import LinearNetwork


def read_network(path: str, option: str = "--net") -> LinearNetwork:
    """Return the network that `LinearNetwork.save` wrote; `option` is what messages call the file.

    Raises
    ------
    RefusedError
        If there is no such file, or no network in it.
    """
    try:
        return LinearNetwork.load(path)
    except OSError as error:
        raise RefusedError(f"{option}: cannot read {path!r}: {error.strerror or one_line(error)}.") from error
    except (ValueError, TypeError, AttributeError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise RefusedError(f"{option}: {path!r} is no network that LinearNetwork.save wrote.") from error
