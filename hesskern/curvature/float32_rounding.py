"""Eigenvalues that a float32 network does not determine, because its weights and data were rounded before.

A second network, whose numbers are moved by about one unit in the last place, shows which eigenvalues depend on that.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern.backends.data import Data
from hesskern.backends.protocol import Layers

#: The unit in the last place of float32, relative, about.
_UNIT = 0.5 * float(np.finfo(np.float32).eps)


class MovedSpectra(NamedTuple):
    """Absolute eigenvalues, descending, of a network and of the same network with every number moved by rounding."""

    exact: NDArray[np.float64]
    moved: NDArray[np.float64]

    def largest_undetermined(self, least: float, most: float) -> float:
        """Return the largest eigenvalue between two bounds that is another number in the moved network; 0: none."""
        exact = self.exact
        changed = (np.abs(exact - self.moved) > 0.5 * exact) & (exact > least) & (exact <= most)
        return float(exact[changed].max(initial=0.0))

    def condition_change(self, shift: float, rank: int) -> float:
        """Return the relative change of the condition number of the first `rank` eigenvalues, plus `shift`."""
        if rank == 0:
            return 0.0
        counted = self.exact[:rank] + shift
        relative = np.abs(self.exact - self.moved)[:rank] / np.where(counted > 0, counted, 1.0)
        # Of the smallest ones the most that any changes: one alone may stay where it is by chance.
        return float(relative[0] + relative[counted <= 4.0 * counted[-1]].max())


def moved_by_rounding(
    net: Layers, data: Data, samples: int
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64] | None], Data]:
    """Return weights, biases and data in float64, moved by about one unit in the last place of float32, at random.

    Rounding has moved each number by half a unit at most. If `samples` were reduced to fewer rows, a number moves by
    the rounding error of a column of samples. The random numbers are the same in each call.
    """
    generator = np.random.default_rng(0)

    def moved(matrix: Any, *, reduced: bool = False) -> NDArray[np.float64]:
        exact = np.asarray(matrix, dtype=np.float64)
        size = np.linalg.norm(exact, axis=0) / math.sqrt(samples) if reduced else exact
        rounded: NDArray[np.float64] = exact + _UNIT * size * generator.standard_normal(exact.shape)
        return rounded

    data = data.astype(np.dtype(np.float64))
    reduced = len(data.X) != samples
    return (
        [moved(weight) for weight in net.weights],
        [None if bias is None else moved(bias) for bias in net.biases],
        data._replace(X=moved(data.X, reduced=reduced), Y=moved(data.Y, reduced=reduced)),
    )
