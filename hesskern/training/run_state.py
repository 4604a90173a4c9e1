"""The content of a checkpoint, for any backend: arrays with one row for each network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern.backends.protocol import State

#: How a network has ended before the end of the run; "" while it runs. On a GPU a network's status is a place here.
ENDED = ("", "converged", "diverged")
#: Before the names of `RunState.descents` and `RunState.history` in a file.
_DESCENTS, _HISTORY = "state.", "history."
#: Rows of `State.search` that a network has; those behind are zeros.
_SEARCH_COUNT = "search_count"

Arrays = Mapping[str, NDArray[Any]]


class RunState(NamedTuple):
    """All that the networks of a run need to continue.

    Attributes
    ----------
    descents : dict of arrays
        The fields of `hesskern.backends.protocol.State`, by name. "search" has rows of zeros behind the vectors of
        networks that have fewer than others; "search_count" is the number of vectors.
    status : array of str
        "" while a network runs, else how it ended.
    seen : array of int
        Steps whose loss was finite.
    history : dict of arrays
        The records, (networks, records, ...); NaN from where a network had stopped.
    """

    descents: Arrays
    status: NDArray[np.str_]
    seen: NDArray[np.int64]
    history: Arrays

    @property
    def step(self) -> int:
        """Steps that the networks which still run have taken."""
        return int(self.descents["steps"][self.status == ""].max(initial=0))

    def descent(self, index: int) -> State:
        """Return the state of one network."""
        row = {name: self.descents[name][index] for name in State._fields}
        row["search"] = row["search"][: int(self.descents[_SEARCH_COUNT][index])]
        # Numbers as Python's own, arrays as they are.
        return State(**{name: value.item() if value.ndim == 0 else value for name, value in row.items()})

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything under the names that it has in a file."""
        return {
            **{_DESCENTS + name: column for name, column in self.descents.items()},
            "status": self.status,
            "seen": self.seen,
            **{_HISTORY + name: column for name, column in self.history.items()},
        }


def stacked(states: Sequence[State]) -> Arrays:
    """Return `RunState.descents` of networks of one shape."""
    columns = {
        name: np.stack([np.asarray(getattr(state, name)) for state in states])
        for name in State._fields
        if name != "search"
    }
    searches = [state.search for state in states]
    most = max(searches, key=len)
    search = np.zeros((len(searches), *most.shape), most.dtype)
    for row, vectors in zip(search, searches, strict=True):
        row[: len(vectors)] = vectors
    return columns | {"search": search, _SEARCH_COUNT: np.array([len(vectors) for vectors in searches])}


def completed(columns: Arrays, count: int) -> Arrays:
    """Return `RunState.descents` of a backend that keeps only these fields; the others have their defaults."""
    defaults = {
        name: np.repeat(np.asarray(value)[None], count, axis=0)
        for name, value in State._field_defaults.items()
        if name not in columns
    }
    return {**columns, **defaults, _SEARCH_COUNT: np.zeros(count, dtype=np.int64)}


def read(arrays: Arrays, like: RunState, every: int, shapes: Mapping[str, tuple[int, ...]]) -> RunState:
    """Return the content of a file; refuse arrays that no run of this kind can have written.

    Parameters
    ----------
    arrays : dict of arrays
        Of a checkpoint, as `RunState.arrays` returns them.
    like : RunState
        Of the run before its first step.
    every : int
        Of how many steps one is recorded.
    shapes : dict
        The shape of a record, by name; () where it is not mentioned.

    Raises
    ------
    ValueError
        With the fault in words.
    """
    _check(arrays, like.arrays(), every, shapes)
    state = RunState(
        descents={name: arrays[_DESCENTS + name] for name in like.descents},
        status=arrays["status"],
        seen=arrays["seen"],
        history={name: arrays[_HISTORY + name] for name in like.history},
    )
    _check_descents(state)
    return state


def _check(arrays: Arrays, like: Arrays, every: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if set(arrays) != set(like):
        differing = ", ".join(sorted(set(arrays) ^ set(like)))
        raise ValueError(f"it holds other arrays than such a run writes ({differing})")
    seen, status = arrays["seen"], arrays["status"]
    for name in ("seen", "status"):
        if arrays[name].shape != like[name].shape or arrays[name].dtype.kind != like[name].dtype.kind:
            raise ValueError(f"{name} has shape {arrays[name].shape} and dtype {arrays[name].dtype}")
    if not np.isin(status, ENDED).all() or seen.min() < 0:
        raise ValueError("status or seen holds values that no run has")
    records = -(-int(seen.max()) // every)
    for name, array in arrays.items():
        expected = like[name]
        shape, kinds = expected.shape, expected.dtype.str
        if name.startswith(_HISTORY):
            record = shapes.get(name.removeprefix(_HISTORY), ()) if records else array.shape[2:]
            shape, kinds = (len(seen), records, *record), "<f4 <f8 <i8"
        elif name == f"{_DESCENTS}search":
            shape = (len(seen), array.shape[1] if array.ndim == 3 else 0, *shape[2:])
        elif name == "status":
            kinds = array.dtype.str
        if array.shape != shape or array.dtype.str not in kinds:
            raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}; expected {shape} and {kinds}")


def _check_descents(state: RunState) -> None:
    descents, status, seen = state.descents, state.status, state.seen
    running = status == ""
    # A step whose loss is not finite is undone together with the update before it.
    steps = np.where(status == "diverged", np.maximum(seen - 1, 0), seen)
    if (descents["steps"] != steps).any() or len(set(descents["steps"][running])) > 1:
        raise ValueError("the numbers of steps do not fit each other")
    if not np.isfinite(descents["previous"][running]).all():
        raise ValueError("previous holds NaN or infinities")
    if not np.isfinite(descents["parameters"][status == "diverged"]).all():
        raise ValueError("parameters holds NaN or infinities")
    count = descents[_SEARCH_COUNT]
    if (count < 0).any() or (count > descents["search"].shape[1]).any():
        raise ValueError("search_count does not fit search")
