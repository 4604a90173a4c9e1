r"""The Hessian of softmax cross-entropy with respect to a last linear layer.

With features ``f_n`` (a last entry 1 where the layer has a bias), probabilities ``p_n = softmax(W f_n)`` and weights
``s_n`` of the samples, the loss ``-Σ_n s_n log p_n[y_n]`` has, in the row-major order of W (classes, features), the
Hessian

    ``H = Σ_n s_n (diag(p_n) - p_n p_n.T) ⊗ f_n f_n.T``,

for any labels. It equals its Gauss-Newton matrix, so it is positive semidefinite. Adding the same vector to the weights
of all classes changes no probability, so its rank is at most ``(classes - 1) * features``.

Eigenvalues come from a factor (`hesskern.curvature.softmax_factor`), because squaring would lose half of the digits.
With fewer samples than features, that factor has one row for each sample and all but one class, and no more columns
(`hesskern.reductions.feature_span`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

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
from hesskern.curvature.softmax_basis import SoftmaxBasis
from hesskern.curvature.softmax_factor import Sticks, factor, sticks
from hesskern.linalg.condition import Condition, from_spectrum, of_squares
from hesskern.linalg.eigenbasis import Eigenbasis, ValuesOnly
from hesskern.linalg.symmetric_operator import CurvatureOperator, dense_target
from hesskern.network.parameters import Part
from hesskern.reductions.feature_span import FeatureSpan


class SoftmaxHessian(CurvatureOperator):
    """Hessian of softmax cross-entropy with respect to a last layer's weight (and bias), as an operator.

    It has shape (P, P) with P = C·d (+ C with a bias), in `named_parameters()` order: the weight (C, d) row after row,
    then the bias. Products take O(N·C·d), the dense matrix O(N·C²·d²), eigenvalues O(N·C³·d²);
    with fewer samples than features O(N²·d + N³·C³).

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
    def _sticks(self) -> Sticks:
        return sticks(self._behind, self.sample_weights.astype(np.float64))

    @cached_property
    def _span(self) -> FeatureSpan:
        return FeatureSpan(self._inner)

    @cached_property
    def _factor(self) -> Matrix:
        """In the basis of contrasts, over two to the power of the exponent of `_sticks`."""
        return factor(self._sticks, self._span.coordinates, self._backend)

    @cached_property
    def _bases(self) -> dict[bool, Eigenbasis]:
        return {}

    def _eigenbasis(self, *, lift: bool) -> Eigenbasis:
        if lift not in self._bases:
            self._bases[lift] = self._vectors() if lift else self._values()
        return self._bases[lift]

    @property
    def _largest(self) -> int:
        """The largest dimension of the matrices that are decomposed."""
        samples, classes = self.logits.shape
        return int(max(samples, self._span.size, classes * self._span.kept))

    @cached_property
    def _singular_values(self) -> NDArray[np.float64]:
        """Of the factor, over two to the power of the exponent of `_sticks`."""
        return decompositions.svdvals(self._factor)

    def _squares(self, singular_values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the eigenvalues of singular values; OverflowError if float64 cannot hold them."""
        scaled = np.ldexp(singular_values, self._sticks.exponent)
        if float(scaled.max(initial=0.0)) > math.sqrt(np.finfo(np.float64).max):
            raise too_large(np.dtype(np.float64))
        squares: NDArray[np.float64] = scaled**2
        return squares

    def _values(self) -> Eigenbasis:
        values = self._squares(self._singular_values)
        return ValuesOnly(values, zeros=self.shape[0] - len(values), dense_size=self._largest)

    def _vectors(self) -> Eigenbasis:
        matrix = self._factor
        size, classes = matrix.shape[1], self.logits.shape[1]
        memory.require(
            8 * 8 * size * size,
            f"the eigenvectors of the factor of size {size}",
            "pass k to scipy.sparse.linalg.eigsh.",
        )
        _, sigma, rows = decompositions.svd(matrix)
        values = np.zeros(size)
        values[: len(sigma)] = self._squares(sigma)
        order = interleaved(self._span.size, classes, Part(0, weight=True, bias=self.bias))
        return SoftmaxBasis(values, rows.T, self._span, classes, order, self._largest)

    @property
    def predicted_rank(self) -> int:
        """A bound on the rank, which it reaches for features and probabilities in general position."""
        return int((self.logits.shape[1] - 1) * self._span.kept)

    @property
    def reduction(self) -> str:
        """What the exact reductions leave of the eigenproblem, in one line.

        For instance "4010 parameters to 180; 3830 exact zeros" of 20 samples with 400 features in 10 classes.
        """
        whole, left = self.shape[0], self.predicted_rank
        words = f"{whole} parameters to {left}; {whole - left} exact zeros"
        if self._span.kept < self._span.size:
            return words
        return f"{words} (as many samples as features or more: only the common shift of all classes is left out)"

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
        the rounding unit of the largest times the largest dimension: of N and P, with fewer samples than features of
        C·N and the number of features. The d (+1) eigenvalues of the common shift of all classes are exactly zero,
        and so are those of directions that no sample has.
        """
        # Squares may leave the range of float64 where ratios do not.
        exponent = int(np.frexp(self._singular_values.max(initial=0.0))[1])
        values, unit = np.ldexp(self._singular_values, -exponent) ** 2, min(self._unit + self._sticks.error, 1.0)
        zeros, largest = self.shape[0] - len(values), float(values.max(initial=0.0))
        spectrum = ValuesOnly(values, zeros).groups
        condition = of_squares(
            from_spectrum(spectrum, 0.0, unit**2 * largest, (unit**2 * largest, unit * largest), zeros), unit
        )
        power = 2 * (self._sticks.exponent + exponent)  # the values may be out of float64's range, their ratio is not
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
