"""A complete spectrum, however large: values with multiplicities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hesskern import memory
from hesskern._array import Array
from hesskern.conversion import as_numpy


class Spectrum:
    """All eigenvalues of a symmetric matrix, those that are known to repeat stored once.

    Attributes
    ----------
    values : (k,) array
        Eigenvalues, ascending.
    multiplicities : (k,) int array
        How often each of them occurs. Values that are equal for another reason than the structure of the network (two
        simple eigenvalues that coincide) may stand side by side.

    Examples
    --------
    >>> import hesskern as hk
    >>> spectrum = hk.Spectrum([2.0, 0.0], [1, 3])
    >>> spectrum.expand()
    array([0., 0., 0., 2.])
    >>> spectrum.max, spectrum.min, spectrum.size
    (2.0, 0.0, 4)
    """

    def __init__(self, values: Any, multiplicities: Any) -> None:
        found, counts = np.asarray(values, dtype=np.float64), np.asarray(multiplicities, dtype=np.int64)
        if found.shape != counts.shape or found.ndim != 1:
            raise ValueError(f"values {found.shape} and multiplicities {counts.shape}; expected two equal lengths.")
        kept = counts > 0
        found, counts = found[kept], counts[kept]
        zero = found == 0
        if np.count_nonzero(zero) > 1:  # zeros come from several sources; they are one eigenvalue
            counts = np.append(counts[~zero], counts[zero].sum())
            found = np.append(found[~zero], 0.0)
        order = np.argsort(found, kind="stable")
        self.values: NDArray[np.float64] = found[order]
        self.multiplicities: NDArray[np.int64] = counts[order]

    @property
    def size(self) -> int:
        """Number of eigenvalues, each counted as often as it occurs."""
        return int(self.multiplicities.sum())

    @property
    def max(self) -> float:
        """Largest eigenvalue."""
        return float(self.values[-1])

    @property
    def min(self) -> float:
        """Smallest eigenvalue."""
        return float(self.values[0])

    @property
    def trace(self) -> float:
        """Sum of all eigenvalues."""
        return float(self.values @ self.multiplicities)

    def expand(self) -> NDArray[np.float64]:
        """Return all eigenvalues, ascending, each as often as it occurs; MemoryError if they do not fit."""
        memory.require(8 * self.size, f"the list of all {self.size} eigenvalues", "use values and multiplicities.")
        return np.repeat(self.values, self.multiplicities)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Return all eigenvalues, as `expand` does."""
        return as_numpy(self.expand, "the list of all eigenvalues", dtype, copy)

    def count(self, tolerance: float) -> int:
        """Return how many eigenvalues have an absolute value above `tolerance`."""
        return int(self.multiplicities[np.abs(self.values) > tolerance].sum())

    def histogram(self, bins: Any = 50) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return counts and bin edges as ``numpy.histogram`` of all eigenvalues would."""
        counts, edges = np.histogram(self.values, bins=bins, weights=self.multiplicities)
        return counts.astype(np.int64), np.asarray(edges)

    def shifted(self, by: float) -> Spectrum:
        """Return the spectrum of the matrix plus ``by`` times the identity."""
        return Spectrum(self.values + by, self.multiplicities)

    def __repr__(self) -> str:
        return f"Spectrum({self.size} eigenvalues in [{self.min:.6g}, {self.max:.6g}], {len(self.values)} distinct)"
