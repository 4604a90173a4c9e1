r"""The Hessian of softmax cross-entropy with respect to a last linear layer.

With features ``f_n`` (a last entry 1 where the layer has a bias), probabilities ``p_n = softmax(W f_n)`` and weights
``s_n`` of the samples, the loss ``-Σ_n s_n log p_n[y_n]`` has, in the row-major order of W (classes, features), the
Hessian

    ``H = Σ_n s_n (diag(p_n) - p_n p_n.T) ⊗ f_n f_n.T``,

for any labels. It equals its Gauss-Newton matrix, so it is positive semidefinite. Adding the same vector to the weights
of all classes changes no probability, so its rank is at most ``(classes - 1) * features``.

Eigenvalues come from a factor, because squaring would lose half of the digits. The factor of ``diag(p) - p p.T``
follows from a stick that is broken class by class. With the rest ``r_k = p_{k+1} + ... + p_C`` it is

    ``diag(p) - p p.T = Σ_k  p_k r_k / (p_k + r_k)  w_k w_k.T,   w_k = e_k - Σ_{j>k} (p_j / r_k) e_j``,

which has only sums of positive numbers, so that probabilities near 0 and 1 keep their digits. The code uses logarithms
of the probabilities, and divides the factor by a power of two. So samples whose other classes have probabilities below
1e-308 also have a condition number.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern import backends
from hesskern._base import checks, decompositions, memory
from hesskern._base.array_types import Array, Matrix
from hesskern._base.cached import cached_property
from hesskern._base.interrupt import RATE, interruptibly
from hesskern._base.powers import too_large
from hesskern.backends.protocol import Softmax
from hesskern.curvature.dense_blocks import interleaved
from hesskern.linalg.condition import Condition, from_spectrum, of_squares
from hesskern.linalg.eigenbasis import DenseBasis, Eigenbasis, ValuesOnly
from hesskern.linalg.symmetric_operator import CurvatureOperator, dense_target
from hesskern.network.parameters import Part

#: Numbers of the Jacobian that go into the triangular factor at once.
_NUMBERS_AT_ONCE = 1 << 21


#: A power of two beyond this is zero in all that is computed from it.
_MOST_EXPONENT = 1 << 30


class _Sticks(NamedTuple):
    """The parts of the factor of ``diag(p) - p p.T``."""

    logs: NDArray[np.float64]  # of the probabilities (N, C)
    rests: NDArray[np.float64]  # of the probability of a class and all behind it (N, C)
    sizes: NDArray[np.float64]  # roots of the sizes of all w_k (N, C-1), over two to the power of the exponent
    exponent: int
    error: float  # relative to the largest of the sizes


class SoftmaxHessian(CurvatureOperator):
    """Hessian of softmax cross-entropy with respect to a last layer's weight (and bias), as an operator.

    It has shape (P, P) with P = C·d (+ C with a bias), in `named_parameters()` order: the weight (C, d) row after row,
    then the bias. Products take O(N·C·d), the dense matrix O(N·C²·d²), eigenvalues O(N·C³·d²).

    Parameters
    ----------
    features : (N, d) array, float32 or float64
        Inputs of the layer, samples in rows.
    logits : (N, C) array
        Outputs of the layer, same dtype. The probabilities are computed in float64.
    bias : bool
        Whether the layer has a bias.
    sample_weights : (N,) array, optional
        Factor of each sample's loss, >= 0; default 1, as ``nn.CrossEntropyLoss(reduction="sum")``. For the mean pass
        ``numpy.full(N, 1 / N)``.
    backend : str, optional
        "cpp", "numba" or "numpy"; default: see `use_backend`.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or dtypes are mixed.
    ValueError
        If shapes do not fit, an array is empty or holds NaN or infinities, there is one class only, or a sample's
        weight is negative.

    Notes
    -----
    Böhning (1992), "Multinomial logistic regression algorithm", gives the matrix. It is exact for the last layer of any
    model; `hesskern.torch.last_layer_hessian` takes features and logits from a model.

    Examples
    --------
    >>> import numpy as np, hesskern as hk
    >>> H = hk.SoftmaxHessian(np.array([[2.0, 0.0], [0.0, 1.0]]), np.zeros((2, 2)))
    >>> H.toarray()
    array([[ 1.  ,  0.  , -1.  ,  0.  ],
           [ 0.  ,  0.25,  0.  , -0.25],
           [-1.  ,  0.  ,  1.  ,  0.  ],
           [ 0.  , -0.25,  0.  ,  0.25]])
    >>> H @ np.array([1.0, 0.0, 0.0, 0.0])
    array([ 1.,  0., -1.,  0.])
    >>> H.rank(), round(H.cond(), 9)
    (2, 4.0)
    """

    _shift = 0.0

    def __init__(
        self,
        features: Array,
        logits: Array,
        *,
        bias: bool = False,
        sample_weights: Array | None = None,
        backend: str | None = None,
    ) -> None:
        self.features = checks.as_array(features, "features", 2)
        self.logits = checks.as_array(logits, "logits", 2)
        checks.same_dtype(self.features, "features", self.logits, "logits")
        samples, classes = self.logits.shape
        if len(self.features) != samples:
            raise ValueError(
                f"logits has {samples} rows, but features has {len(self.features)}; expected one row for each sample "
                "in both: samples are rows."
            )
        if classes < 2:
            raise ValueError(f"logits has shape {self.logits.shape}; expected (N, C) with at least two classes.")
        if sample_weights is None:
            sample_weights = np.ones(samples, self.features.dtype)
        self.sample_weights = checks.as_array(sample_weights, "sample_weights", 1)
        checks.same_dtype(self.features, "features", self.sample_weights, "sample_weights")
        if len(self.sample_weights) != samples:
            raise ValueError(f"sample_weights has shape {self.sample_weights.shape}; expected ({samples},).")
        if (self.sample_weights < 0).any():
            raise ValueError(
                f"sample_weights holds {self.sample_weights.min():.6g}; expected numbers greater than or equal to 0."
            )
        self.bias = checks.boolean(bias, "bias")
        self._backend = backends.get_on_host(backend, "features and logits are")
        size = classes * (self.features.shape[1] + self.bias)
        super().__init__(self.features.dtype, (size, size))

    @property
    def _behind(self) -> NDArray[np.float64]:
        """Each logit minus the largest of its sample, at most 0 (N, C)."""
        with np.errstate(over="ignore"):  # logits of opposite signs near 1e308
            behind = self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True)
        clipped: NDArray[np.float64] = np.maximum(behind, -1e300)
        return clipped

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits (N, C)."""
        odds = np.exp(self._behind)
        softmax: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
        return softmax

    # Products and the matrix ------------------------------------------------------------------------------------------

    @cached_property
    def _problems(self) -> dict[np.dtype[Any], Softmax]:
        return {}

    def _problem(self, dtype: np.dtype[Any]) -> Softmax:
        """Return the backend's input in this precision; float64 vectors are not rounded for float32 features."""
        if dtype not in self._problems:
            self._problems[dtype] = Softmax(
                self.features.astype(dtype, copy=False),
                self.probabilities.astype(dtype, copy=False),
                self.sample_weights.astype(dtype, copy=False),
                self.bias,
            )
        return self._problems[dtype]

    def _apply(self, V: Array) -> Array:
        out = np.empty_like(V)
        if V.size:
            work = 6.0 * len(self.features) * V.size
            interruptibly(self._backend.softmax_product, self._problem(V.dtype), V, out, seconds=work / RATE)
        return out

    def toarray(self, out: Array | None = None) -> Array:
        """Return the dense matrix (P, P), symmetric to the bit. O(N·P²), at the speed of a matrix product.

        Parameters
        ----------
        out : (P, P) array, optional
            C-contiguous array of the features' dtype to write into.

        Raises
        ------
        MemoryError
            If a new array would not fit in the free memory; the message says how much it takes.
        TypeError, ValueError
            If `out` has another shape, dtype or layout.
        """
        out = dense_target(out, self.shape, self.dtype, "Hessian of the last layer")
        work = 2.0 * len(self.features) * self.shape[0] ** 2
        interruptibly(self._backend.softmax_dense, self._problem(self.dtype), out, seconds=work / RATE)
        return out

    def _diagonal(self) -> NDArray[np.float64]:
        p = self.probabilities
        complement, samples, largest = 1.0 - p, np.arange(len(p)), p.argmax(axis=1)
        smaller = p.copy()
        smaller[samples, largest] = 0.0  # 1 - p cancels for the largest only
        complement[samples, largest] = smaller.sum(axis=1)
        variances = self.sample_weights.astype(np.float64)[:, None] * p * complement
        # Each column over a power of two: squares beyond 1e154 overflow where their products with variances do not.
        exponent = np.frexp(np.abs(self.features).max(axis=0))[1]
        squares = np.square(np.ldexp(self.features.astype(np.float64), -exponent))
        with np.errstate(over="ignore"):
            pieces = [np.ldexp(variances.T @ squares, 2 * exponent).ravel(), variances.sum(axis=0)]
        return np.concatenate(pieces) if self.bias else pieces[0]

    def diagonal(self) -> Array:
        """Return the diagonal (P,), exact, without the matrix. O(N·C·d)."""
        with np.errstate(over="ignore"):
            diagonal = self._diagonal().astype(self.dtype)
        if not np.isfinite(diagonal).all():
            raise too_large(self.dtype)
        return diagonal

    def trace(self) -> float:
        """Return the trace, exact, without the matrix. O(N·C·d)."""
        with np.errstate(over="ignore"):
            total = float(self._diagonal().sum())
        if not math.isfinite(total):
            raise too_large(np.dtype(np.float64))
        return total

    # Eigenvalues ------------------------------------------------------------------------------------------------------

    @cached_property
    def _inner(self) -> Matrix:
        """Features in float64, the constant one last where there is a bias."""
        features = self.features.astype(np.float64)
        return np.column_stack([features, np.ones(len(features))]) if self.bias else features

    @cached_property
    def _sticks(self) -> _Sticks:
        behind = self._behind
        logs = behind - np.log(np.exp(behind).sum(axis=1, keepdims=True))
        rests = np.logaddexp.accumulate(logs[:, ::-1], axis=1)[:, ::-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            # Of p_k r_k / (p_k + r_k), whose second factor is what the others are of all from the k-th on.
            sizes = (
                logs[:, :-1] + (rests[:, 1:] - rests[:, :-1]) + np.log(self.sample_weights.astype(np.float64))[:, None]
            )
        sizes = np.where(np.isnan(sizes), -np.inf, 0.5 * sizes)
        largest = float(sizes.max())
        exponent = max(math.floor(largest / math.log(2)), -_MOST_EXPONENT) if math.isfinite(largest) else 0
        # Rounding changes a logarithm by eps of itself: that is the relative error of its exponential.
        logs_of = np.where(np.isfinite(sizes), np.abs(sizes) + np.abs(logs[:, :-1]) + np.abs(rests[:, 1:]), 0.0)
        error = float((np.exp(sizes - largest) * logs_of).max()) if math.isfinite(largest) else 0.0
        sizes = np.exp(sizes - (largest if exponent == -_MOST_EXPONENT else exponent * math.log(2)))
        return _Sticks(logs, rests, sizes, exponent, error * float(np.finfo(np.float64).eps))

    def _stick(self, kind: int) -> NDArray[np.float64]:
        """Return ``w_k`` times the root of its size (N, C-1-k), for k = `kind`, in the contrasts from the k-th on.

        Over two to the power of the exponent of `_sticks`.
        """
        logs, rests, sizes, *_ = self._sticks
        with np.errstate(invalid="ignore"):
            shares = np.nan_to_num(np.exp(logs[:, kind + 1 :] - rests[:, kind + 1, None]))
        broken = np.column_stack([np.ones(len(logs)), -shares])
        rows: NDArray[np.float64] = sizes[:, kind, None] * (broken @ _contrasts(logs.shape[1])[kind:, kind:])
        return rows

    @cached_property
    def _factor(self) -> Matrix:
        """The triangular factor of the Jacobian in the basis of contrasts, without the common shift of all classes.

        Rows of the k-th kind are zero before the k-th contrast, so they join from the last kind on.
        """
        inner = self._inner
        kinds, width = self.logits.shape[1] - 1, inner.shape[1]
        memory.require(
            4 * 8 * ((kinds * width) ** 2 + min(_NUMBERS_AT_ONCE, len(inner) * kinds * width)),
            f"the factor of size {kinds * width} of the last layer's Hessian",
            "use scipy.sparse.linalg.eigsh(H, k) for a few eigenvalues.",
        )
        triangle: Matrix = np.zeros((0, 0))
        for kind in range(kinds - 1, -1, -1):
            stick, columns = self._stick(kind), (kinds - kind) * width
            triangle = np.pad(triangle, ((0, 0), (width, 0)))
            step = max(_NUMBERS_AT_ONCE // columns, 1)
            for start in range(0, len(inner), step):
                some = slice(start, start + step)
                rows = (stick[some, :, None] * inner[some, None, :]).reshape(-1, columns)
                triangle = self._backend.triangular_factor((np.concatenate([triangle, rows]),))
        return triangle

    @cached_property
    def _bases(self) -> dict[bool, Eigenbasis]:
        return {}

    def _eigenbasis(self, *, lift: bool) -> Eigenbasis:
        if lift not in self._bases:
            self._bases[lift] = self._vectors() if lift else self._values()
        return self._bases[lift]

    @property
    def _largest(self) -> int:
        return max(len(self.features), self.shape[0])

    def _values(self) -> Eigenbasis:
        singular_values = np.ldexp(self._singular_values, self._sticks.exponent)
        if float(singular_values.max(initial=0.0)) > math.sqrt(np.finfo(np.float64).max):
            raise too_large(np.dtype(np.float64))
        return ValuesOnly(singular_values**2, zeros=self.shape[0] - len(singular_values), dense_size=self._largest)

    @cached_property
    def _singular_values(self) -> NDArray[np.float64]:
        """Of the factor, over two to the power of the exponent of `_sticks`."""
        return decompositions.svdvals(self._factor)

    def _vectors(self) -> Eigenbasis:
        _, sigma, rows = decompositions.svd(self._factor)
        sigma = np.ldexp(sigma, self._sticks.exponent)
        size, classes, width = self.shape[0], self.logits.shape[1], self._inner.shape[1]
        memory.require(3 * 8 * size * size, f"the eigenvectors of a Hessian of size {size}", "pass k to eigsh(H, k).")
        # Kronecker order: contrasts of the classes, then their common shift, whose eigenvalues are zero.
        lifted = np.tensordot(_contrasts(classes), rows.T.reshape(classes - 1, width, -1), 1).reshape(size, -1)
        common = np.kron(np.full((classes, 1), classes**-0.5), np.eye(width))
        vectors = np.hstack([lifted, common])[interleaved(width, classes, Part(0, weight=True, bias=self.bias))]
        return DenseBasis(np.append(sigma**2, np.zeros(width)), vectors, dense_size=self._largest)

    def _tolerances(self, basis: Eigenbasis) -> tuple[float, float]:
        unit, largest = self._largest * float(np.finfo(np.float64).eps), basis.groups.max
        return unit**2 * largest, unit * largest  # decided on singular values, of which eigenvalues are the squares

    def _zero_below(self, basis: Eigenbasis, tolerance: float) -> float:
        return self._unit**2 * basis.groups.max

    @property
    def _unit(self) -> float:
        return self._largest * float(np.finfo(self.dtype).eps)

    def condition(self) -> Condition:
        """Return the condition number with rank, tolerance, gap and uncertainty; see `Condition`.

        It comes from singular values of a factor, never from the matrix. A singular value counts as zero if it is below
        ``max(N, P)`` times the rounding unit of the largest; the d (+1) eigenvalues of the common shift of all classes
        are exactly zero.
        """
        values, unit = self._singular_values**2, min(self._unit + self._sticks.error, 1.0)
        zeros, largest = self.shape[0] - len(values), float(values.max(initial=0.0))
        spectrum = ValuesOnly(values, zeros).groups
        condition = of_squares(
            from_spectrum(spectrum, 0.0, unit**2 * largest, (unit**2 * largest, unit * largest), zeros), unit
        )
        power = 2 * self._sticks.exponent  # the values themselves may be out of float64's range, and their ratio is not
        with np.errstate(over="ignore"):
            largest, smallest, below = np.ldexp(
                [condition.largest, condition.smallest, condition.below], power
            ).tolist()
        return replace(condition, largest=largest, smallest=smallest, below=below)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.features, self.logits, self.bias, self.sample_weights, self._backend.name)

    def __repr__(self) -> str:
        samples, classes = self.logits.shape
        return (
            f"<{self.shape[0]}x{self.shape[1]} Hessian of softmax cross-entropy of {samples} samples in {classes} "
            f"classes with dtype={self.dtype}>"
        )


def _unpickled(features: Array, logits: Array, bias: bool, sample_weights: Array, backend: str) -> SoftmaxHessian:
    return SoftmaxHessian(features, logits, bias=bias, sample_weights=sample_weights, backend=backend)


def _contrasts(classes: int) -> NDArray[np.float64]:
    """Return an orthonormal basis (C, C-1) orthogonal to a common shift: each class against those after it."""
    behind = np.arange(classes - 1, 0, -1)
    lower = np.tril(np.broadcast_to(-1.0 / behind, (classes, classes - 1)), -1)
    basis: NDArray[np.float64] = (lower + np.eye(classes, classes - 1)) * np.sqrt(behind / (behind + 1))
    return basis
