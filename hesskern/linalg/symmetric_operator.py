"""The methods that every curvature operator derives from its products, its dense matrix and its eigenbasis."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hesskern._base import checks, memory
from hesskern._base.array_types import Array
from hesskern.linalg.condition import Condition, from_spectrum
from hesskern.linalg.eigenbasis import Eigenbasis
from hesskern.linalg.eigenpairs import Eigenpairs
from hesskern.linalg.eigenvectors import Eigenvectors, changed, moved_bytes, pieces
from hesskern.linalg.extreme_pairs import FewPairs
from hesskern.linalg.matrix_operator import MatrixOperator, product_with
from hesskern.linalg.spectrum import Spectrum

Which = Literal["LA", "SA", "LM", "SM"]
WHICH = ("LA", "SA", "LM", "SM")
#: A certified eigenpair has a residual up to this share of the norm.
_MOST_RESIDUAL = 1e-11


class CurvatureOperator(MatrixOperator):
    """A symmetric operator of a linear network's curvature; made by ``loss.hessian``, not directly.

    A SciPy ``LinearOperator``: pass it to ``eigsh``, ``lobpcg``, ``cg`` or ``minres``.
    """

    #: Multiple of the identity that is part of the operator (weight decay).
    _shift: float

    # What a subclass provides -----------------------------------------------------------------------------------------

    def _apply(self, V: Array) -> Array:
        """Return the product with a C-contiguous (P,) or (P, k) array of a float dtype."""
        raise NotImplementedError  # abstract

    def _eigenbasis(self, *, lift: bool) -> Eigenbasis:
        """Return the eigenbasis without the shift; `lift`: with eigenvectors, not only eigenvalues."""
        raise NotImplementedError  # abstract

    def _tolerances(self, basis: Eigenbasis) -> tuple[float, float]:
        """Return the largest value that a zero eigenvalue may be computed as, and the error of any, both absolute."""
        raise NotImplementedError  # abstract

    def _zero_below(self, basis: Eigenbasis, tolerance: float) -> float:
        """Return up to which absolute value an eigenvalue counts as zero, because the data do not determine it.

        `tolerance`: the largest value that a zero eigenvalue may be computed as.
        """
        del basis
        return tolerance

    def diagonal(self) -> Array:
        """Return the diagonal (P,), exact, from the factors."""
        raise NotImplementedError  # abstract

    def trace(self) -> float:
        """Return the trace, exact, from the factors."""
        raise NotImplementedError  # abstract

    # Products ---------------------------------------------------------------------------------------------------------

    def __matmul__(self, other: Any) -> Any:
        if type(other) is np.ndarray and other.dtype == self.dtype and other.ndim in (1, 2):
            if other.shape[0] != self.shape[1]:
                raise ValueError(f"v has shape {other.shape}; expected ({self.shape[1]},) or ({self.shape[1]}, k).")
            ready = other.flags.c_contiguous and other.flags.aligned
            return self._apply(other if ready else np.require(other, requirements=["C", "A"]))
        if isinstance(other, list | tuple):
            return self @ checks.vectors(other, "v").astype(self.dtype)
        return super().__matmul__(other)

    def _matmat(self, V: Array) -> Array:
        return product_with(V, self.dtype, self._apply)

    def _matvec(self, v: Array) -> Array:
        return self._matmat(np.ravel(v))

    def _adjoint(self) -> CurvatureOperator:
        return self

    def _transpose(self) -> CurvatureOperator:
        return self

    # Eigenvalues ------------------------------------------------------------------------------------------------------

    def spectrum(self) -> Spectrum:
        """Return all eigenvalues with their multiplicities.

        Exact reductions come first, so the cost is one eigenproblem of about the size of the rank
        (`Hessian.reduction`): for two layers at most ``(i+o)²``, for any width. Exact zeros are one eigenvalue 0 with
        its multiplicity.

        Raises
        ------
        MemoryError
            If the reduced eigenproblem does not fit in the free memory.
        """
        return self._eigenbasis(lift=False).groups.shifted(self._shift)

    def eigvalsh(self) -> NDArray[np.float64]:
        """Return all P eigenvalues, ascending."""
        return self.spectrum().expand()

    def eigh(self, k: int | None = None, which: Which = "LA", *, dense: bool = True) -> Eigenpairs:
        """Return eigenvalues (ascending) and orthonormal eigenvectors in full coordinates.

        Parameters
        ----------
        k : int, optional
            How many; default: all P.
        which : {"LA", "SA", "LM", "SM"}
            Largest or smallest, algebraically or in magnitude.
        dense : bool
            Eigenvectors as a (P, k) array; otherwise as a LinearOperator of that shape, which stores factors only.

        Returns
        -------
        values : (k,) array
        vectors : (P, k) array or LinearOperator
            Column j belongs to ``values[j]``. Both come as `Eigenpairs`, which says what is certified.

        Notes
        -----
        Every copy of a repeated eigenvalue is there. A few eigenvalues of a large reduced problem come from `eigsh`;
        where that cannot certify them, and otherwise, all eigenvectors of the reduced problem are computed, and the
        requested ones are transformed back. If the reduced problem is too large for both, there is a warning, and
        `certified` of the result is False.
        """
        count = self._count(k, which, dense=dense)
        few = None if k is None else self._few_pairs(count, which, sure=True)
        if few is None or (few.small and not few.certified):
            return self._exact(count, which, dense=dense)
        pairs = self._chosen(few, count, which, dense=dense)
        if few.small and not pairs.certified:
            return self._exact(count, which, dense=dense)
        if not pairs.certified:
            warnings.warn(f"eigh({count}) may have missed copies of an eigenvalue; {pairs.note}", stacklevel=2)
        return pairs

    def eigsh(self, k: int = 1, which: Which = "LA", *, certify: bool = True, dense: bool = True) -> Eigenpairs:
        """Return a few extreme eigenvalues and eigenvectors, without computing all of them where that is cheaper.

        A Krylov method on the reduced network, then a proof that no eigenvalue and no copy was missed: one Cholesky
        factorisation of the reduced Hessian, shifted. What is certified is in the result.

        Parameters
        ----------
        k : int
            How many.
        which : {"LA", "SA", "LM", "SM"}
            Largest or smallest, algebraically or in magnitude; for "SM" all eigenvalues are computed.
        certify : bool
            Whether to prove it. Without, residuals show that these are eigenvalues, but others may have been missed.
        dense : bool
            As in `eigh`.

        Returns
        -------
        Eigenpairs
            ``values, vectors = H.eigsh(k)``; with `residuals`, `certified`, `error` and `note`. If the factorisation is
            too large, `certified` is False and `note` says why.

        Examples
        --------
        >>> import numpy as np, hesskern as hk
        >>> net = hk.LinearNetwork.random((20, 50, 10), seed=0)
        >>> X, Y = np.random.default_rng(0).standard_normal((500, 20)), np.ones((500, 10))
        >>> pairs = hk.SquaredLoss(X, Y).hessian(net).eigsh(2)
        >>> pairs.note
        'certified by a Cholesky factorisation of 300 rows: no other eigenvalue is larger'
        """
        count = self._count(k, which, dense=dense)
        few = self._few_pairs(count, which, sure=checks.boolean(certify, "certify"))
        if few is None or (few.small and not few.certified and certify):
            return self._exact(count, which, dense=dense)
        pairs = self._chosen(few, count, which, dense=dense)
        if certify and few.small and not pairs.certified:
            return self._exact(count, which, dense=dense)
        return pairs

    def _count(self, k: int | None, which: Which, *, dense: bool) -> int:
        """Return how many eigenvalues are asked for; the arguments are checked."""
        size = self.shape[0]
        count = size if k is None else checks.integer(k, "k", 1)
        if count > size:
            raise ValueError(f"k is {count}; expected at most {size}, the size of the Hessian.")
        checks.one_of(which, "which", WHICH)
        checks.boolean(dense, "dense")
        return count

    def _few_pairs(self, k: int, which: Which, *, sure: bool) -> FewPairs | None:
        """Return a few eigenpairs by a Krylov method; None where all eigenvalues are cheaper.

        `sure`: with a certificate, if that is affordable.
        """
        del k, which, sure
        return None

    def _exact(self, count: int, which: Which, *, dense: bool) -> Eigenpairs:
        basis, size = self._eigenbasis(lift=True), self.shape[0]
        values, vectors = self._selected(basis, basis.values + self._shift, count, which, dense=dense)
        error = self._tolerances(basis)[1]
        return Eigenpairs(values, vectors, error=error, note=f"all {size} eigenvalues were computed")

    def _chosen(self, few: FewPairs, count: int, which: Which, *, dense: bool) -> Eigenpairs:
        values, vectors = self._selected(few.basis, few.values, count, which, dense=dense)
        residuals = np.empty(count)
        for j in range(count):
            v = vectors[:, j].copy() if dense else vectors @ np.eye(count)[j]
            residuals[j] = np.linalg.norm(self._apply(v) - values[j] * v)
        if few.certified and not residuals.max() <= _MOST_RESIDUAL * (few.scale + abs(self._shift)):
            note = "not certified: residuals are larger than rounding errors, because a reduction lost digits"
            return Eigenpairs(values, vectors, residuals, False, np.nan, note)
        return Eigenpairs(values, vectors, residuals, few.certified, few.error, few.note)

    def _selected(
        self, basis: Eigenbasis, values: NDArray[np.float64], count: int, which: Which, *, dense: bool
    ) -> tuple[NDArray[np.float64], Any]:
        order = np.argsort(np.abs(values) if which in ("LM", "SM") else values, kind="stable")
        chosen = order[:count] if which in ("SA", "SM") else order[len(order) - count :]
        chosen = chosen[np.argsort(values[chosen], kind="stable")]
        vectors = Eigenvectors(basis, chosen, self.shape[0])
        return values[chosen], vectors.toarray() if dense else vectors

    def condition(self) -> Condition:
        """Return the condition number with rank, tolerance, gap and uncertainty; see `Condition`.

        The largest absolute eigenvalue over the smallest nonzero one. An eigenvalue is left out if rounding alone could
        have produced it: below size times the rounding unit of the largest, or below the rounding error of the
        residual's part. `Condition.undecided` counts the eigenvalues that were left out but are not certainly zero.
        """
        basis = self._eigenbasis(lift=False)
        errors = self._tolerances(basis)
        return from_spectrum(
            basis.groups, self._shift, self._zero_below(basis, errors[0]), errors, basis.structural_zeros
        )

    def cond(self) -> float:
        """Return the condition number; NaN for the zero matrix."""
        return self.condition().value

    def rank(self) -> int:
        """Return the numerical rank: how many eigenvalues are certainly not zero, by the tolerance of `condition`.

        The exact rank may be larger by up to ``condition().undecided``, the number of eigenvalues that cannot be told
        from zero.
        """
        return self.condition().rank

    # Solving ----------------------------------------------------------------------------------------------------------

    def solve(self, b: Array, damping: float = 0.0, *, rcond: float | None = None) -> Array:
        """Return x with ``(H + damping I) x = b``, exactly, in the eigenbasis.

        Parameters
        ----------
        b : (P,) or (P, k) array
        damping : float, >= 0
        rcond : float, optional
            Return the least-norm least-squares solution instead of refusing a singular system: eigenvalues at or below
            `rcond` times the largest (or below the tolerance of `condition`) are left out.

        Raises
        ------
        numpy.linalg.LinAlgError
            If the matrix is numerically singular and `rcond` is not given; the message names the rank.
        """
        rhs = self._right_hand_side(b)
        basis = self._eigenbasis(lift=True)
        shift = self._shift + checks.non_negative(damping, "damping")
        exact, (tolerance, _) = basis.values, self._tolerances(basis)
        values = exact + shift
        if rcond is not None:
            zero = self._zero_below(basis, tolerance)
            least = max(zero, checks.non_negative(rcond, "rcond") * float(np.abs(values).max()))
            keep = np.abs(values) > least
        else:
            keep = _nonzero(exact, shift, tolerance, basis.structural_zeros)
        if rcond is None and not keep.all():
            raise np.linalg.LinAlgError(self._singular(exact, keep, tolerance, damping))
        inverse = np.zeros(len(values))
        inverse[keep] = 1.0 / values[keep]
        columns = rhs.reshape(len(rhs), -1)
        memory.require(
            columns.nbytes + moved_bytes(*columns.shape),
            f"the solution for {columns.shape[1]} right-hand sides of length {len(rhs)}",
            "solve for fewer at a time.",
        )
        solution = np.empty_like(columns)
        for some in pieces(*columns.shape):
            block = columns[:, some].astype(np.float64)
            coordinates = changed(basis.coordinates, block, basis)
            with np.errstate(over="ignore"):
                solution[:, some] = changed(basis.vectors, inverse[:, None] * coordinates, basis)
        if not np.isfinite(solution).all():
            raise OverflowError(
                f"the solution has entries larger than {rhs.dtype} can hold; scale b down"
                + (", or pass it in float64." if rhs.dtype == np.float32 else ".")
            )
        return solution.reshape(rhs.shape)

    def _right_hand_side(self, b: Array) -> Array:
        """Return b as a (P,) or (P, k) array, checked."""
        array = checks.read(b, "b")
        rhs = checks.as_array(array, "b", 2 if array.ndim == 2 else 1)
        if len(rhs) != self.shape[0]:
            raise ValueError(f"b has shape {rhs.shape}; expected ({self.shape[0]},) or ({self.shape[0]}, k).")
        return rhs

    def logdet(self, damping: float = 0.0) -> float:
        """Return ``log det(H + damping I)``, exactly, from the spectrum.

        Raises
        ------
        numpy.linalg.LinAlgError
            If the matrix is singular (the message names the rank) or not positive definite.
        """
        basis = self._eigenbasis(lift=False)
        groups = basis.groups
        shift = self._shift + checks.non_negative(damping, "damping")
        tolerance, _ = self._tolerances(basis)
        keep = _nonzero(groups.values, shift, tolerance, basis.structural_zeros, groups.multiplicities)
        if not keep.all():
            eigenvalues, nonzero = (
                np.repeat(groups.values, groups.multiplicities),
                np.repeat(keep, groups.multiplicities),
            )
            raise np.linalg.LinAlgError(self._singular(eigenvalues, nonzero, tolerance, damping))
        shifted = groups.shifted(shift)
        negative = int(shifted.multiplicities[shifted.values < 0].sum())
        if negative:
            raise np.linalg.LinAlgError(
                f"the matrix is not positive definite: {negative} of its {self.shape[0]} eigenvalues are negative, the "
                f"lowest {shifted.min:.6g}. Pass damping > {-groups.min - self._shift:.6g}, or take log|det| from "
                "spectrum(): multiplicities @ log(abs(values))."
            )
        return float(np.log(shifted.values) @ shifted.multiplicities)

    def _singular(self, exact: NDArray[np.float64], keep: NDArray[np.bool_], tolerance: float, damping: float) -> str:
        """Return the message for eigenvalues that shift and damping leave too close to zero; `exact`: without both."""
        rank, size = int(keep.sum()), self.shape[0]
        fault = f"the matrix is singular: rank {rank} of {size} with damping {damping:g}"
        lowest = float(exact.min()) + self._shift
        enough = max(0.0, tolerance - lowest)
        if damping == 0:
            fix = (
                "pass damping > 0" if lowest >= -tolerance else f"pass another damping, above {enough:.3g} for instance"
            )
        elif np.abs(exact[~keep]).max() <= tolerance:
            fix = f"this damping is below the rounding error of the eigenvalues; pass damping > {enough:.3g}"
        else:
            fix = f"it takes an eigenvalue {exact[~keep][0] + self._shift:.6g} to zero; pass damping > {enough:.3g}"
        return f"{fault}; {fix}, or for solve rcond=0.0 to get the least-norm solution."


def _nonzero(
    exact: NDArray[np.float64],
    shift: float,
    tolerance: float,
    structural: int,
    multiplicities: NDArray[np.int64] | None = None,
) -> NDArray[np.bool_]:
    """Return which eigenvalues plus `shift` are certainly not zero.

    Zeros by shape have no error: shifted, they are the shift. Any other eigenvalue is known up to the tolerance, and
    its sum with the shift up to the rounding of that sum. If there are more zeros than shapes explain (`structural`),
    all of them are taken for eigenvalues that are zero up to the tolerance.
    """
    zero = exact == 0
    count = int(np.count_nonzero(zero)) if multiplicities is None else int(multiplicities[zero].sum())
    certain = zero if count <= structural else np.zeros_like(zero)
    error = np.where(certain, 0.0, tolerance + np.finfo(np.float64).eps * abs(shift))
    nonzero: NDArray[np.bool_] = np.abs(exact + shift) > error
    return nonzero


def dense_target(out: Array | None, shape: tuple[int, int], dtype: np.dtype[Any], name: str) -> Array:
    """Return the array to write a dense matrix into: `out`, checked, or a new one if it fits in memory."""
    if out is not None:
        return checks.out_array(out, shape, dtype)
    memory.require(
        shape[0] * shape[1] * dtype.itemsize,
        f"the dense {shape[0]} x {shape[1]} {name}",
        "use the operator itself, whose products H @ v need its small factors only, or pass "
        "out=numpy.memmap(...) to build it on disk.",
    )
    return np.empty(shape, dtype)
