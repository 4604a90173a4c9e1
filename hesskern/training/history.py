"""The records of the networks of a run, and their output: for one network, or for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern.training.recorder import Column, ColumnName, Records, Values

History = dict[str, NDArray[Any]]


class Histories:
    """The histories of some networks.

    Quantities taken in the loop come in pieces of many steps, the others one record at a time. Of a network that has
    stopped the pieces hold anything; how many of its steps count is told with each question.

    Parameters
    ----------
    records : Records
    networks : int
    every : int
        Of how many steps one is recorded.
    """

    def __init__(self, records: Records, networks: int, every: int) -> None:
        self._records, self._networks, self._every = records, networks, every
        #: (networks, records) for each piece.
        self._pieces: dict[str, list[Column]] = {name: [] for name in records.in_loop}
        #: (networks, ...) for each record.
        self._rows: dict[str, list[Sequence[Values] | NDArray[Any]]] = {name: [] for name in records.between}

    def add_steps(self, columns: Mapping[ColumnName, Column]) -> None:
        """Keep the records of the steps of a piece, (networks, records) each."""
        for name, (column, of_column) in self._records.in_loop.items():
            self._pieces[name].append(of_column(columns[column]))

    def add_record(self, values: Mapping[str, Sequence[Values] | NDArray[Any]]) -> None:
        """Keep the quantities measured between two steps, of every network."""
        for name, rows in self._rows.items():
            rows.append(values[name])

    def of(self, index: int, seen: int) -> History:
        """Return the records of one network in its first `seen` steps; "step" says when."""
        steps = recorded_steps(seen, self._every)
        count = len(steps)
        history: History = {"step": steps}
        for name, pieces in self._pieces.items():
            column = np.concatenate([*(piece[index] for piece in pieces), np.empty(0)])
            history[name] = column if len(column) == count else column[:count].copy()
        for name, rows in self._rows.items():
            # At a divergence, and at Ctrl-C, the last weights were looked at before their loss was.
            values = np.array([row[index] for row in rows[:count]])
            history[name] = self._whole(name, values.reshape(count, *self._records.shape(name)))
        return history

    def stacked(self, seen: NDArray[np.int64]) -> History:
        """Return the records of all networks, each in its number of steps.

        "step" is (K,), everything else (networks, K, ...), NaN from where a network had stopped.
        """
        steps = recorded_steps(int(seen.max()), self._every)
        count = len(steps)
        stopped = steps >= seen[:, None]
        history: History = {"step": steps}
        for name, pieces in self._pieces.items():
            history[name] = np.concatenate([*pieces, np.empty((self._networks, 0))], axis=1)[:, :count].copy()
        for name, rows in self._rows.items():
            values = np.array(rows[:count]).reshape(count, self._networks, *self._records.shape(name))
            history[name] = np.moveaxis(values, 0, 1).astype(np.result_type(values.dtype, np.float32))
        for name, column in history.items():
            if name != "step":
                column[stopped] = np.nan
        return history

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def save(self, seen: NDArray[np.int64]) -> History:
        """Return the argument of `restore`."""
        return {name: self._whole(name, column) for name, column in self.stacked(seen).items() if name != "step"}

    def restore(self, history: Mapping[str, NDArray[Any]]) -> None:
        """Continue from the result of `save`."""
        for name in self._pieces:
            self._pieces[name] = [history[name]]
        for name in self._rows:
            self._rows[name] = list(np.moveaxis(history[name], 1, 0))

    def _whole(self, name: str, column: NDArray[Any]) -> NDArray[Any]:
        """Return a column of whole numbers as such, unless it holds NaN."""
        whole = self._records.is_whole(name) and np.isfinite(column).all()
        return column.astype(np.int64) if whole else column


def recorded_steps(seen: int, every: int) -> NDArray[np.int64]:
    """Return which of the first `seen` steps are recorded."""
    return np.arange(0, seen, every, dtype=np.int64)
