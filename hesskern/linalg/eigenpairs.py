"""Eigenvalues with eigenvectors, and what is known about them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Eigenpairs(tuple[NDArray[np.float64], Any]):
    """The result of `eigh` and `eigsh`: ``values, vectors = pairs``.

    Attributes
    ----------
    values : (k,) array
        Ascending.
    vectors : (P, k) array or LinearOperator
        Orthonormal; column j belongs to ``values[j]``.
    residuals : (k,) array or None
        Norms ``‖H v - λ v‖``; None if all eigenvalues were computed, so that nobody needs them.
    certified : bool
        Whether these are the eigenvalues asked for, with every copy of a repeated one.
    error : float
        If certified, how far a value may be off, by the method and by rounding, in the factors of the matrix too.
        Otherwise NaN.
    note : str
        What was done, and what is certified, in words.

    Examples
    --------
    >>> import numpy as np, hesskern as hk
    >>> net = hk.LinearNetwork([np.array([[1.0, 2.0]]), np.array([[3.0]])])
    >>> H = hk.SquaredLoss(np.array([[1.0, 1.0]]), np.array([[8.0]])).hessian(net)
    >>> values, vectors = pairs = H.eigsh(1)
    >>> values.round(6), pairs.certified, pairs.note
    (array([28.340822]), True, 'all 3 eigenvalues were computed')
    """

    residuals: NDArray[np.float64] | None
    certified: bool
    error: float
    note: str

    def __new__(
        cls,
        values: NDArray[np.float64],
        vectors: Any,
        residuals: NDArray[np.float64] | None = None,
        certified: bool = True,
        error: float = np.nan,
        note: str = "",
    ) -> Eigenpairs:
        """Return the pair, with what is known about it."""
        pairs = super().__new__(cls, (values, vectors))
        pairs.residuals, pairs.certified, pairs.error, pairs.note = residuals, certified, error, note
        return pairs

    @property
    def values(self) -> NDArray[np.float64]:
        """Eigenvalues (k,), ascending."""
        return self[0]

    @property
    def vectors(self) -> Any:
        """Eigenvectors, (P, k) array or LinearOperator."""
        return self[1]

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (*self, self.residuals, self.certified, self.error, self.note)

    def __repr__(self) -> str:
        return f"Eigenpairs(values={self.values!r}, {self.note})"
