"""What a checkpoint holds of a run, whatever the backend: arrays with one row for each network.

- ``status``: "" while it runs, else how it ended; ``seen``: steps whose loss was finite
- ``state.NAME``: the fields of `hesskern.backends.protocol.State`; ``search`` has rows of zeros behind the vectors of
  those that have fewer, of which ``search_count`` says the number
- ``history.NAME``: what was recorded, (networks, records, ...), NaN from where a network had stopped
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern.backends.protocol import State

ENDED = ("", "converged", "diverged")
Arrays = Mapping[str, NDArray[Any]]


def stacked(states: Sequence[State]) -> dict[str, NDArray[Any]]:
    """Return the states of networks of one shape as arrays with one row for each."""
    found = {
        f"state.{name}": np.stack([np.asarray(getattr(state, name)) for state in states])
        for name in State._fields
        if name != "search"
    }
    searches = [state.search for state in states]
    return found | {
        "state.search": padded(searches, 0.0),
        "state.search_count": np.array([len(search) for search in searches]),
    }


def single(arrays: Arrays, index: int) -> State:
    """Return the state of one network."""
    row = {name: arrays[f"state.{name}"][index] for name in State._fields}
    row["search"] = row["search"][: int(arrays["state.search_count"][index])]
    # Numbers as Python's own, arrays as they are.
    return State(**{name: value.item() if value.ndim == 0 else value for name, value in row.items()})


def padded(columns: Sequence[NDArray[Any]], filling: float) -> NDArray[Any]:
    """Return arrays that differ in length as one, with one row for each."""
    longest = max(columns, key=len)
    if all(len(column) == len(longest) for column in columns):
        return np.stack(columns)
    found = np.full((len(columns), *longest.shape), filling, np.result_type(longest.dtype, np.float32))
    for row, column in zip(found, columns, strict=True):
        row[: len(column)] = column
    return found


def check(arrays: Arrays, like: Arrays, every: int, entries: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse arrays that no run of this kind can have written, whatever the file's checksums say.

    Parameters
    ----------
    arrays : dict of arrays
        Of a checkpoint.
    like : dict of arrays
        What the run would write before its first step.
    every : int
        Of how many steps one is recorded.
    entries : dict
        The shape of a record, by name; () where it is not mentioned.

    Raises
    ------
    ValueError
        With what is wrong, in words.
    """
    if set(arrays) != set(like):
        differing = ", ".join(sorted(set(arrays) ^ set(like)))
        raise ValueError(f"it holds other arrays than such a run writes ({differing})")
    seen, status = arrays["seen"], arrays["status"]
    for name in ("seen", "status"):
        if arrays[name].shape != like[name].shape or arrays[name].dtype.kind != like[name].dtype.kind:
            raise ValueError(f"{name} has shape {arrays[name].shape} and dtype {arrays[name].dtype}")
    if not np.isin(status, ENDED).all() or seen.min() < 0:
        raise ValueError("status or seen holds what no run has")
    records = -(-int(seen.max()) // every)
    for name, array in arrays.items():
        expected = like[name]
        shape, kinds = expected.shape, expected.dtype.str
        if name.startswith("history."):
            entry = entries.get(name.removeprefix("history."), ()) if records else array.shape[2:]
            shape, kinds = (len(seen), records, *entry), "<f4 <f8 <i8"
        elif name == "state.search":
            shape = (len(seen), array.shape[1] if array.ndim == 3 else 0, *shape[2:])
        elif name == "status":
            kinds = array.dtype.str
        if array.shape != shape or array.dtype.str not in kinds:
            raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}; expected {shape} and {kinds}")
    _check_states(arrays, status, seen)


def _check_states(arrays: Arrays, status: NDArray[Any], seen: NDArray[Any]) -> None:
    steps, running = arrays["state.steps"], status == ""
    # A step whose loss is not finite is undone together with the update before it.
    taken = np.where(status == "diverged", np.maximum(seen - 1, 0), seen)
    if (steps != taken).any() or len(set(steps[running])) > 1:
        raise ValueError("the numbers of steps do not fit each other")
    if not np.isfinite(arrays["state.previous"][running]).all():
        raise ValueError("previous holds NaN or infinities")
    if not np.isfinite(arrays["state.parameters"][status == "diverged"]).all():
        raise ValueError("parameters holds NaN or infinities")
    count = arrays["state.search_count"]
    if (count < 0).any() or (count > arrays["state.search"].shape[1]).any():
        raise ValueError("search_count does not fit search")
