"""A complete spectrum, however large: values with multiplicities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hesskern._base import checks, memory
from hesskern._base.array_types import Array
from hesskern._base.numpy_protocol import as_numpy


class Spectrum:
    """All eigenvalues of a symmetric matrix; eigenvalues that are known to repeat are stored once.

    Attributes
    ----------
    values : (k,) array
        Eigenvalues, ascending.
    multiplicities : (k,) int array
        How often each of them occurs. Two simple eigenvalues that happen to be equal, without a reason in the structure
        of the network, may be two entries.

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
        numbers, counts = checks.vectors(values, "values"), checks.vectors(multiplicities, "multiplicities")
        if numbers.dtype.kind in "bc":
            raise TypeError(f"values has dtype {numbers.dtype}; expected real numbers.")
        if counts.dtype.kind not in "iu" and counts.size:  # an empty list is one of floats
            raise TypeError(f"multiplicities has dtype {counts.dtype}; expected integers.")
        if numbers.shape != counts.shape or numbers.ndim != 1:
            raise ValueError(
                f"values has shape {numbers.shape} and multiplicities {counts.shape}; expected two lists of one length."
            )
        if (counts < 0).any() or float(counts.sum(dtype=np.float64)) >= 2.0**63:
            raise ValueError("multiplicities holds a negative number, or too many; expected 0 or more, below 2**63.")
        self._take(numbers.astype(np.float64, copy=False), counts.astype(np.int64, copy=False))

    @classmethod
    def _of(cls, values: NDArray[np.float64], multiplicities: NDArray[np.int64]) -> Spectrum:
        """Return the spectrum of numbers that need no check."""
        spectrum = cls.__new__(cls)
        spectrum._take(values, multiplicities)
        return spectrum

    def _take(self, values: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
        occurring = counts > 0
        if np.count_nonzero(occurring) < len(occurring):
            values, counts = values[occurring], counts[occurring]
        zero = values == 0
        if np.count_nonzero(zero) > 1:  # zeros come from several sources; they are one eigenvalue
            counts = np.append(counts[~zero], counts[zero].sum())
            values = np.append(values[~zero], 0.0)
        order = np.argsort(values, kind="stable")
        self.values: NDArray[np.float64] = values[order]
        self.multiplicities: NDArray[np.int64] = counts[order]

    @property
    def size(self) -> int:
        """Number of eigenvalues, each counted as often as it occurs."""
        return int(self.multiplicities.sum())

    @property
    def max(self) -> float:
        """Largest eigenvalue."""
        self._not_empty()
        return float(self.values[-1])

    @property
    def min(self) -> float:
        """Smallest eigenvalue."""
        self._not_empty()
        return float(self.values[0])

    def _not_empty(self) -> None:
        if len(self.values) == 0:
            raise ValueError("the spectrum is empty, so it has no largest and no smallest eigenvalue.")

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
        """Return how many eigenvalues have an absolute value above `tolerance`, a number >= 0."""
        tolerance = checks.non_negative(tolerance, "tolerance")
        return int(self.multiplicities[np.abs(self.values) > tolerance].sum())

    def histogram(self, bins: Any = 50) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return counts and bin edges as ``numpy.histogram`` of all eigenvalues would.

        Parameters
        ----------
        bins : int or (k,) array
            How many bins of one width between the smallest and the largest eigenvalue, or their ascending edges.
        """
        if np.ndim(bins) == 0 if isinstance(bins, np.ndarray) else not isinstance(bins, list | tuple | range):
            bins = checks.integer(bins, "bins", 1)
        else:
            bins = checks.vectors(bins, "bins")
            if bins.ndim != 1 or len(bins) < 2 or bins.dtype.kind in "bc" or not (np.diff(bins) > 0).all():
                raise ValueError(f"bins has shape {bins.shape}; expected a number of bins, or ascending edges.")
        if not np.isfinite(self.values).all():
            raise ValueError("the spectrum holds NaN or infinities, which no bins can hold.")
        counts, edges = np.histogram(self.values, bins=bins, weights=self.multiplicities)
        return counts.astype(np.int64), np.asarray(edges)

    def shifted(self, by: float) -> Spectrum:
        """Return the spectrum of the matrix plus ``by`` times the identity."""
        by = checks.real(by, "by")
        return self._of(self.values + by, self.multiplicities)

    def __repr__(self) -> str:
        if len(self.values) == 0:
            return "Spectrum(0 eigenvalues)"
        return f"Spectrum({self.size} eigenvalues in [{self.min:.6g}, {self.max:.6g}], {len(self.values)} distinct)"
