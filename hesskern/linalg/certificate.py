r"""Whether a few eigenvalues are the largest ones, with all copies: by the inertia of a shifted matrix.

*What is shown.* Let V be k orthonormal approximate eigenvectors of H with values θ, and R = H V - V Θ. In a basis that
begins with V, H is ``[[Θ, .], [., B]]`` up to blocks of norm ‖R‖. If ``s I - H + d V V.T`` is positive definite, so is
its block ``s I - B``: no eigenvalue of B reaches s. By Weyl's theorem the largest k eigenvalues of H are within ‖R‖ of
the largest k of θ and of the eigenvalues of B, which are below s. With s below θ_k these are θ themselves, and the
error is about ``‖R‖² / (θ_k - s)``; with s a little above θ_k, where a repeated eigenvalue continues beyond the k-th,
their error is at most ``‖R‖ + s - θ_k``. An eigenvalue that was missed, or a copy of one, makes the matrix indefinite.

*What it costs.* One Cholesky factorisation, n³/3: half of one that counts eigenvalues.

*Rounding.* A factorisation that succeeds shows that a matrix within about n ε ‖H‖ of the given one is positive definite
(Higham, Accuracy and Stability, ch. 10), so s is at least that far above θ_k.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from hesskern._base import decompositions
from hesskern._base.array_types import Array, Matrix
from hesskern.linalg.krylov import End, Ritz

_EPSILON = float(np.finfo(np.float64).eps)
#: Eigenvalues closer than this many rounding errors are not told apart: the shift goes above them.
_CLOSE = 1e3
#: Where between the last value wanted (0) and the next one (1) the shift is.
_BETWEEN = 0.3


class Shifted(Protocol):
    """A symmetric matrix H of which shifted forms can be tested."""

    @property
    def size(self) -> int:
        """Rows of the matrix that is factorised."""

    @property
    def lower_bound(self) -> float:
        """No eigenvalue of H is below minus this."""

    @property
    def left_out(self) -> float:
        """The norm of what was taken for zero on the way to this matrix."""

    def is_definite(self, sign: int, shift: float, vectors: Matrix, push: float) -> bool | None:
        """Return whether ``shift I - sign H + push V.T V`` is positive definite, V (k, P); None: it cannot say."""


class Certificate(NamedTuple):
    """Whether the values are shown to be the extreme ones, with all copies, and how far they may be off."""

    certified: bool
    error: float


def certify(matrix: Shifted, ritz: Ritz, vectors: Matrix, which: End, offset: float = 0.0) -> Certificate | None:
    """Return whether nothing was missed; None where this matrix cannot say.

    Parameters
    ----------
    matrix : Shifted
    ritz : Ritz
    vectors : (k, P) array
        Those of `ritz`, in the coordinates of `matrix`.
    which : {"LA", "SA", "LM"}
    offset : float
        What is added to all eigenvalues before they are compared in magnitude.
    """

    def seen(value: float) -> float:
        value += offset
        return {"LA": value, "SA": -value, "LM": abs(value)}[which]

    rounding = max(matrix.size, 16) * _EPSILON * (ritz.scale + abs(offset)) + matrix.left_out
    edge, following = seen(float(ritz.values[-1])), seen(ritz.next_value)
    above = edge + 4.0 * rounding + ritz.residual_norm
    shifts = [(above, ritz.residual_norm + above - edge + rounding)]
    if edge - following > _CLOSE * max(rounding, ritz.residual_norm):
        below = edge - _BETWEEN * (edge - following)
        shifts.insert(0, (below, ritz.residual_norm**2 / (edge - below) + rounding))
    signs = {"LA": (1,), "SA": (-1,), "LM": (1, -1)}[which]
    for shift, error in shifts:
        answers = []
        for sign in signs:
            moved = shift - sign * offset
            if which == "LM" and sign < 0 and moved > (1.0 + 1e-10) * matrix.lower_bound:
                continue
            answers.append(matrix.is_definite(sign, moved, vectors, 2.0 * ritz.scale))
            if not answers[-1]:
                break
        if None in answers:
            return None
        if all(answers):
            return Certificate(True, error)
    return Certificate(False, np.inf)


class DenseOperator:
    """Any operator of which the dense matrix can be made."""

    lower_bound, left_out = np.inf, 0.0

    def __init__(self, matrix: Callable[[], Array], size: int) -> None:
        self._make, self.size = matrix, size

    def is_definite(self, sign: int, shift: float, vectors: Matrix, push: float) -> bool | None:
        """Return whether ``shift I - sign H + push V.T V`` is positive definite; see `Shifted`."""
        matrix = np.asarray(self._make(), dtype=np.float64) * -float(sign)
        matrix.reshape(-1)[:: self.size + 1] += shift
        add_product(matrix, vectors, push * vectors)
        return decompositions.is_positive_definite(matrix)


def add_product(matrix: Matrix, left: Matrix, right: Matrix) -> None:
    """Add ``left.T right`` of a few rows, without a matrix of that size in between."""
    from scipy.linalg import blas  # noqa: PLC0415 - `import hesskern` need not wait for it

    # Row-major matrices are the transposes of what BLAS takes, in place.
    blas.dgemm(1.0, right.T, left.T, 1.0, c=matrix.T, trans_b=1, overwrite_c=1)
