"""LAPACK, as all of the package calls it: with finite matrices only, and so that Ctrl-C works.

LAPACK's iterations may loop for ever on a matrix with an infinity or a NaN in it, and Ctrl-C does not stop them.
Weights and data are checked when a user passes them, but products of them may have overflowed.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base.interrupt import RATE, interruptibly

FloatArray = NDArray[np.floating[Any]]
Matrix = NDArray[np.float64]

#: Sums of the squares of a matrix's entries between which LAPACK takes it as it is.
_SQUARES = (2.0**-120, 2.0**120)
#: The largest problem that LAPACK does not divide.
_UNDIVIDED = 25
#: How far vectors may be from orthogonal, as a norm, in units of rounding times their length.
_NOT_ORTHOGONAL = 8.0


def _sum_of_squares(matrix: FloatArray) -> float:
    flat = matrix.ravel(order="K")  # a view, whatever the order
    return float(np.vdot(flat, flat))


def finite(*matrices: FloatArray) -> None:
    """Raise numpy.linalg.LinAlgError if a matrix holds NaN or infinities."""
    for matrix in matrices:
        # A sum of squares is not finite where an entry is not; large entries may overflow in it.
        if not math.isfinite(_sum_of_squares(matrix)) and not np.isfinite(matrix).all():
            count = matrix.size - int(np.count_nonzero(np.isfinite(matrix)))
            raise np.linalg.LinAlgError(
                f"a matrix of shape {matrix.shape} holds {count} values that are NaN or infinite: a product of "
                f"the weights and the data overflows {matrix.dtype}; scale the weights or the samples down."
            )


@functools.cache
def _lapack() -> Any:
    from scipy.linalg import lapack  # noqa: PLC0415 - `import hesskern` need not wait for it

    return lapack


def _called(function: Callable[..., Any], operations: float, *matrices: FloatArray, **options: Any) -> Any:
    finite(*matrices)
    return interruptibly(function, *matrices, seconds=operations / RATE, **options)


def _scaled(matrix: FloatArray) -> tuple[FloatArray, int]:
    """Return ``2**-exponent * matrix`` with a largest entry of about 1, and the exponent; 0 where that may be left.

    LAPACK's eigenvalue iterations may fail on matrices with entries of 1e92 and of 1e-21. Powers of two round nothing,
    but for entries of 1e-308 of the largest.
    """
    if _SQUARES[0] < _sum_of_squares(matrix) < _SQUARES[1]:
        return matrix, 0
    finite(matrix)
    exponent = int(np.frexp(np.abs(matrix).max(initial=0.0))[1])
    with np.errstate(under="ignore"):
        return np.ldexp(matrix, -exponent), exponent


def _scaled_back(values: Matrix, exponent: int) -> Matrix:
    if exponent == 0:
        return values
    with np.errstate(over="ignore", under="ignore"):
        unscaled: Matrix = np.ldexp(values, exponent)
    if not np.isfinite(unscaled).all():
        raise np.linalg.LinAlgError(
            f"eigenvalues or singular values are larger than {unscaled.dtype} can hold; scale the weights or the "
            "samples down."
        )
    return unscaled


def eigh(matrix: FloatArray) -> tuple[Matrix, Matrix]:
    """Return eigenvalues, ascending, and eigenvectors of a symmetric matrix."""
    scaled, exponent = _scaled(matrix)
    values, vectors = interruptibly(np.linalg.eigh, scaled, seconds=9.0 * len(matrix) ** 3 / RATE)
    return _scaled_back(values, exponent), orthonormal(vectors)


def orthonormal(vectors: Matrix) -> Matrix:
    """Return vectors (n, k), orthogonal up to rounding, made orthogonal to a few rounding units where they are not.

    In one of a million graded matrices LAPACK's divide and conquer leaves scalar products of 1e-12 between eigenvectors
    whose eigenvalues are closer than their errors. One product with random signs shows that. A step of Newton and
    Schulz then moves the vectors within the space that they span, which changes no residual.
    """
    count = vectors.shape[1]
    if count <= _UNDIVIDED:
        return vectors
    signs = _signs(count).astype(vectors.dtype, copy=False)
    off = float(np.linalg.norm(vectors.T @ (vectors @ signs) - signs))
    if off <= _NOT_ORTHOGONAL * len(vectors) * float(np.finfo(vectors.dtype).eps):
        return vectors
    seconds = 4.0 * vectors.size * count / RATE
    return interruptibly(_newton_schulz, vectors, seconds=seconds)


def _newton_schulz(vectors: Matrix) -> Matrix:
    step = vectors.T @ vectors
    step *= -0.5
    step.reshape(-1)[:: len(step) + 1] += 1.5
    return vectors @ step


@functools.lru_cache(64)
def _signs(count: int) -> Matrix:
    return np.where(np.random.default_rng(0).random(count) < 0.5, -1.0, 1.0)


def eigvalsh(matrix: FloatArray, *, triangle: str = "lower") -> Matrix:
    """Return the eigenvalues of a symmetric matrix, ascending; its other triangle is not read."""
    scaled, exponent = _scaled(matrix)
    seconds = 4.0 / 3.0 * len(matrix) ** 3 / RATE
    values = interruptibly(np.linalg.eigvalsh, scaled, UPLO=triangle[0].upper(), seconds=seconds)
    return _scaled_back(values, exponent)


def svd(matrix: FloatArray, *, full_matrices: bool = True) -> tuple[Matrix, Matrix, Matrix]:
    """Return U, the singular values, descending, and V.T."""
    large, small = max(matrix.shape), min(matrix.shape, default=0)
    scaled, exponent = _scaled(matrix)
    seconds = 12.0 * large * small * (large if full_matrices else small) / RATE
    left, values, right = interruptibly(np.linalg.svd, scaled, full_matrices=full_matrices, seconds=seconds)
    return orthonormal(left), _scaled_back(values, exponent), orthonormal(right.T).T


def svdvals(matrix: FloatArray) -> Matrix:
    """Return the singular values, descending."""
    large, small = max(matrix.shape), min(matrix.shape, default=0)
    scaled, exponent = _scaled(matrix)
    values: Matrix = interruptibly(np.linalg.svd, scaled, compute_uv=False, seconds=4.0 * large * small**2 / RATE)
    return _scaled_back(values, exponent)


def svdvals_of_each(matrices: FloatArray) -> Matrix:
    """Return the singular values of a stack (k, m, n) of small matrices, a row for each."""
    squares = np.einsum("kmn,kmn->k", matrices, matrices).tolist()
    if _SQUARES[0] < min(squares) and max(squares) < _SQUARES[1]:  # one call for all of them
        return np.linalg.svd(matrices, compute_uv=False).astype(np.float64, copy=False)
    return np.array([svdvals(matrix) for matrix in matrices])


def norm(matrix: FloatArray) -> float:
    """Return the largest singular value."""
    return float(svdvals(matrix)[0]) if matrix.size else 0.0


def solve(matrix: FloatArray, right: FloatArray) -> Matrix:
    """Return the solution of ``matrix x = right``."""
    solution: Matrix = _called(np.linalg.solve, 2.0 / 3.0 * len(matrix) ** 3, matrix, right)
    return solution


def lu(matrix: FloatArray) -> Callable[[FloatArray], Matrix] | None:
    """Return a function that solves ``matrix x = right`` with one LU decomposition; None if the matrix is singular."""
    packed, pivots, info = _called(_lapack().dgetrf, 2.0 / 3.0 * len(matrix) ** 3, matrix.T)
    if info:
        return None

    def solve_with(right: FloatArray) -> Matrix:
        solution: Matrix = _lapack().dgetrs(packed, pivots, right, trans=1)[0]
        return solution

    return solve_with


def least_squares(matrix: FloatArray, right: FloatArray) -> Matrix:
    """Return the x of least norm for which ``matrix x`` is closest to `right`."""
    large, small = max(matrix.shape), min(matrix.shape)
    solution: Matrix = _called(_least_squares, 4.0 * large * small**2, matrix, right)
    return solution


def _least_squares(matrix: FloatArray, right: FloatArray) -> Any:
    return np.linalg.lstsq(matrix, right, rcond=None)[0]


def condition_number(matrix: FloatArray) -> float:
    """Return ``numpy.linalg.cond`` of a matrix."""
    return float(_called(np.linalg.cond, 4.0 * len(matrix) ** 3, matrix))


def pseudo_inverse(matrix: FloatArray, rcond: float) -> Matrix:
    """Return the pseudo-inverse of a symmetric matrix."""
    inverse: Matrix = _called(np.linalg.pinv, 12.0 * len(matrix) ** 3, matrix, rcond=rcond, hermitian=True)
    return inverse


def reflectors(tall: FloatArray) -> tuple[Matrix, Matrix]:
    """Return the QR decomposition of a tall float64 matrix as LAPACK's reflectors; it may be destroyed."""
    rows, columns = tall.shape
    packed, tau, _, info = _called(_lapack().dgeqrf, 2.0 * rows * columns**2, np.asfortranarray(tall), overwrite_a=1)
    _succeeded("dgeqrf", info)
    return packed, tau


def rotated(packed: FloatArray, tau: FloatArray, vectors: FloatArray, *, back: bool) -> Matrix:
    """Return ``Q.T vectors``, or (`back`) ``Q vectors``, of the full orthogonal Q with these reflectors."""
    trans, columns = "N" if back else "T", np.asfortranarray(vectors)
    size = int(_lapack().dormqr("L", trans, packed, tau, columns, -1)[1][0])
    operations = 4.0 * packed.size * vectors.shape[1]
    multiplied: tuple[Matrix, Any, int] = _called(_multiplied, operations, columns, packed, tau, trans=trans, size=size)
    _succeeded("dormqr", multiplied[2])
    return multiplied[0]


def _multiplied(
    columns: FloatArray, packed: FloatArray, tau: FloatArray, *, trans: str, size: int
) -> tuple[Matrix, Any, int]:
    result: tuple[Matrix, Any, int] = _lapack().dormqr("L", trans, packed, tau, columns, size)
    return result


def orthogonal_columns(packed: FloatArray, tau: FloatArray) -> Matrix:
    """Return the thin Q with these reflectors."""
    generated: tuple[Matrix, Any, int] = _called(_lapack().dorgqr, 4.0 * packed.size * len(tau), packed, tau)
    _succeeded("dorgqr", generated[2])
    return generated[0]


def triangular(tall: FloatArray) -> Matrix:
    """Return R of the thin QR decomposition."""
    triangle: Matrix = _called(_r, 2.0 * tall.size * min(tall.shape), tall)
    return triangle


def _r(tall: FloatArray) -> Any:
    return np.linalg.qr(tall, mode="r")


def graded_svdvals(matrix: FloatArray) -> Matrix:
    """Return the singular values of a float64 matrix, no wider than tall, by Jacobi's method.

    Columns may have any scales.

    SciPy's wrapper holds the GIL, so that no thread would see Ctrl-C: LAPACK is called by its address, as the kernels
    of the package do.
    """
    finite(matrix)
    rows, columns = matrix.shape
    values: Matrix = interruptibly(_jacobi, np.array(matrix, order="F"), seconds=25.0 * rows * columns**2 / RATE)
    return values


def _jacobi(matrix: Matrix) -> Matrix:
    rows, columns = matrix.shape
    values, integers = np.empty(columns), np.empty(rows + 3 * columns, np.intc)
    work = np.empty(max(7, 4 * columns + columns**2, 2 * rows + columns))
    unused, single = np.empty(1), np.ones(1, np.intc)
    m, n, length, info = (np.array([i], np.intc) for i in (rows, columns, len(work), 0))
    # Columns of any scale, none of them dropped as small; neither singular vectors nor a transpose.
    numbers = (m, n, matrix, m, values, unused, single, unused, single, work, length, integers, info)
    _routine("dgejsv")(*(b"C", b"N", b"N", b"N", b"N", b"N"), *(number.ctypes.data for number in numbers))
    if info[0]:
        raise np.linalg.LinAlgError("the singular values did not converge in LAPACK's Jacobi iteration")
    scaled: Matrix = values * (work[0] / work[1])
    return scaled


def is_positive_definite(matrix: Matrix) -> bool:
    """Return whether a symmetric float64 matrix has a Cholesky factorisation; it is destroyed.

    Without the GIL, and in place, as LAPACK is called by its address.
    """
    finite(matrix)
    return bool(interruptibly(_has_cholesky, matrix, seconds=len(matrix) ** 3 / 3.0 / RATE))


def _has_cholesky(matrix: Matrix) -> bool:
    size, info = np.array([len(matrix)], np.intc), np.array([0], np.intc)
    _routine("dpotrf")(b"L", *(number.ctypes.data for number in (size, matrix, size, info)))
    return not info[0]


@functools.cache
def _routine(routine: str) -> Any:
    """Return a routine of LAPACK as SciPy publishes it for Cython, to be called with addresses, without the GIL."""
    from scipy.linalg import cython_lapack  # noqa: PLC0415

    capsule = cython_lapack.__pyx_capi__[routine]
    api = ctypes.pythonapi
    name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", api))(capsule)
    if b"int *" not in name:
        raise ImportError(f"SciPy's LAPACK has another interface: {routine} is {name.decode()}.")
    find = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", api))
    arguments = [
        ctypes.c_char_p if type_name.strip() == b"char *" else ctypes.c_void_p for type_name in name[6:-1].split(b",")
    ]
    return ctypes.CFUNCTYPE(None, *arguments)(find(capsule, name))


def _succeeded(routine: str, info: int) -> None:
    if info:
        raise np.linalg.LinAlgError(f"LAPACK {routine} failed with info = {info}")
