"""
Kernels of hesskern; use the functions of the package instead.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing

__all__: list[str] = [
    "Descent",
    "HessianProduct",
    "advance",
    "assemble",
    "available_isas",
    "backward",
    "count_left_call",
    "forward",
    "isa",
    "load_blas",
    "mixes_units",
    "product_svd",
    "softmax_dense",
    "softmax_product",
    "squared_residual",
    "triangular_factor",
    "unload_blas",
    "version",
    "wide_layer",
]

class Descent:
    """
    (Stochastic) gradient descent that `advance` runs some steps at a time.
    """
    def __init__(
        self,
        *,
        weights: collections.abc.Sequence[typing.Any],
        biases: collections.abc.Sequence[typing.Any],
        X: numpy.ndarray,
        ones: typing.Any,
        Y: numpy.ndarray,
        samples_X: typing.Any,
        samples_Y: typing.Any,
        largest_batch: typing.SupportsInt | typing.SupportsIndex,
        scale: typing.SupportsFloat | typing.SupportsIndex,
        constant: typing.SupportsFloat | typing.SupportsIndex,
        rtol: typing.SupportsFloat | typing.SupportsIndex,
        momentum: typing.SupportsFloat | typing.SupportsIndex,
        nesterov: bool,
        decay: typing.SupportsFloat | typing.SupportsIndex,
        every: typing.SupportsInt | typing.SupportsIndex,
        loss_recorded: bool,
        sharpness: bool,
        leak_layers: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        packed: bool,
    ) -> None: ...
    def parameters(self, out: numpy.ndarray) -> None:
        """
        The current parameters, flat, into out.
        """
    def restore(self, state: dict[str, typing.Any]) -> None:
        """
        Continue from the result of save().
        """
    def save(self) -> dict[str, typing.Any]:
        """
        Everything needed to continue from here, as arrays.
        """
    def step_back(self) -> None:
        """
        Return to the parameters before the last update.
        """
    @property
    def growth(self) -> list[float]:
        """
        Log of the growth of rounding errors across each of leak_layers, up to the present step.
        """
    @property
    def product_form(self) -> bool:
        """
        Whether the product of the weights, not the samples, goes through the layers.
        """
    @property
    def steps(self) -> int:
        """
        Steps taken.
        """

class HessianProduct:
    """
    Products of the Hessian with vectors, in closed form.
    """
    def __init__(
        self,
        weights: collections.abc.Sequence[typing.Any],
        biases: collections.abc.Sequence[typing.Any],
        X: numpy.ndarray,
        ones: typing.Any,
        Y: numpy.ndarray,
        scale: typing.SupportsFloat | typing.SupportsIndex,
        decay: typing.SupportsFloat | typing.SupportsIndex,
        gauss_newton: bool,
        functional: bool,
    ) -> None: ...
    def apply(self, v: numpy.ndarray, out: numpy.ndarray) -> None:
        """
        H v into out; v is (P,) or (P, k), in named_parameters() order.
        """
    def extend(
        self,
        vectors: numpy.ndarray,
        images: numpy.ndarray,
        start: typing.SupportsInt | typing.SupportsIndex,
        stop: typing.SupportsInt | typing.SupportsIndex,
        block: typing.SupportsInt | typing.SupportsIndex,
        inside: typing.Any,
    ) -> int:
        """
        Lanczos steps; -1, or how many vectors have images when nothing was left of a new vector.
        """

def advance(
    descents: collections.abc.Sequence[Descent],
    jobs: collections.abc.Sequence[typing.Any],
    threads: typing.SupportsInt | typing.SupportsIndex,
) -> list[tuple[str, int]]:
    """
    Run each job (rates, scales, order, ends, losses, batch_losses, gradient_norms, sharpness) with its descent; a list of ('running', 'converged' or 'diverged', steps whose losses were finite).
    """

def assemble(
    rows: collections.abc.Sequence[typing.Any],
    columns: collections.abc.Sequence[typing.Any],
    blocks: collections.abc.Sequence[typing.Any],
    out: numpy.ndarray,
    threads: typing.SupportsInt | typing.SupportsIndex = 1,
) -> None:
    """
    Dense blocks U[r,p] V[s,q] + B[s,p] W[r,q] into out; sides are (outer, inner, bias), blocks (U, V, B, W).
    """

def backward(
    weights: collections.abc.Sequence[typing.Any],
    biases: collections.abc.Sequence[typing.Any],
    X: numpy.ndarray,
    delta: numpy.ndarray,
    gradient: typing.Any,
    below: typing.Any,
) -> None:
    """
    From the gradient with respect to the predictions to that of the parameters (flat) and of X; None: not wanted.
    """

def count_left_call(change: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Add to the number of calls that compute on although nobody waits for them any more.
    """

def forward(
    weights: collections.abc.Sequence[typing.Any],
    biases: collections.abc.Sequence[typing.Any],
    X: numpy.ndarray,
    out: numpy.ndarray,
) -> None:
    """
    Predictions (N, o) of X (N, i) into out.
    """

def load_blas(capi: dict[str, typing.Any]) -> None:
    """
    Use the BLAS of `scipy.linalg.cython_blas.__pyx_capi__`; ImportError where it does not fit.
    """

def mixes_units(
    stack: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
    outputs: typing.SupportsInt | typing.SupportsIndex,
    limit: typing.SupportsFloat | typing.SupportsIndex,
) -> bool:
    """
    Whether a rotation of the hidden units, the columns, would lose digits of the product of both sides.
    """

def product_svd(
    first: numpy.ndarray,
    weights: collections.abc.Sequence[typing.Any],
    tolerance: typing.SupportsFloat | typing.SupportsIndex,
    rotated: bool = False,
) -> tuple[typing.Any, ...]:
    """
    Singular values of first @ W_1.T @ W_2.T ..., descending, as values and exponents of two, with (rank, kept, dropped, amplification, lost).
    """

def softmax_dense(
    features: numpy.ndarray, probabilities: numpy.ndarray, scale: numpy.ndarray, bias: bool, out: numpy.ndarray
) -> None:
    """
    Sum over samples of scale (diag(p) - p p^T) (x) f f^T into out (P, P); rows of a bias come after all weights.
    """

def softmax_product(
    features: numpy.ndarray,
    probabilities: numpy.ndarray,
    scale: numpy.ndarray,
    bias: bool,
    v: numpy.ndarray,
    out: numpy.ndarray,
) -> None:
    """
    The same matrix times v into out, both (P,) or (P, k), without the matrix.
    """

def squared_residual(
    weights: collections.abc.Sequence[typing.Any],
    biases: collections.abc.Sequence[typing.Any],
    X: numpy.ndarray,
    ones: typing.Any,
    Y: numpy.ndarray,
    scale: typing.SupportsFloat | typing.SupportsIndex = 1.0,
    gradient: typing.Any = None,
) -> float:
    """
    Squared norm of the residual; with `gradient` (flat) the gradient of scale/2 times it.
    """

def triangular_factor(parts: collections.abc.Sequence[typing.Any]) -> numpy.typing.NDArray[numpy.float64]:
    """
    R (n, n) of the QR decomposition of the parts side by side, read a few rows at a time.
    """

def unload_blas() -> None:
    """
    Use hesskern's own loops for products of any size.
    """

def wide_layer(
    parts: collections.abc.Sequence[typing.Any], split: typing.SupportsInt | typing.SupportsIndex
) -> tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]]:
    """
    The same R, and the product of the columns from `split` on, transposed, and those before, in one pass.
    """

available_isas: tuple[str, ...]
isa: str
version: str
