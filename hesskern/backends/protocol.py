"""What a backend is: the kernels of the package behind one set of signatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hesskern._array import Array
from hesskern.problem import Data

Stop = Literal["running", "converged", "diverged"]


class Layers(Protocol):
    """A network as backends see it."""

    @property
    def weights(self) -> tuple[Array, ...]:
        """Weights, each (out, in)."""

    @property
    def biases(self) -> tuple[Array | None, ...]:
        """Biases, each (out,) or None."""


class ProductSvd(NamedTuple):
    """Singular values of a product of factors, with the decision about its rank."""

    values: NDArray[np.float64]  # descending
    rank: int
    kept: float  # smallest singular value counted, relative to the largest, of an equilibrated factor
    dropped: float  # largest not counted, likewise
    amplification: float  # relative error of the smallest value counted, in units of the rounding unit


class Descent(Protocol):
    """Full-batch gradient descent that runs some steps at a time."""

    @property
    def steps(self) -> int:
        """Steps taken."""

    def run(self, losses: NDArray[np.float64]) -> Stop:
        """Take up to ``len(losses)`` steps, writing the loss each one started from.

        Stops before a step whose loss is not finite ("diverged"), and after one whose loss was at most ``rtol`` times
        the first ("converged").
        """

    def parameters(self) -> Array:
        """Return the current parameters, flat."""

    def set_parameters(self, flat: Array, steps: int) -> None:
        """Go back to these parameters."""


class Side(NamedTuple):
    """The parameters of one layer on one side of a dense block: ``outer * (inner + bias)`` of them."""

    outer: int
    inner: int
    bias: bool  # a last inner index, the constant input, whose parameters stand behind all others


class Block(NamedTuple):
    """``H[(r,s),(p,q)] = U[r,p] V[s,q] + B[s,p] W[r,q]``, r and p outer, s and q inner indices."""

    U: Array
    V: Array
    B: Array | None = None
    W: Array | None = None


class HessianProduct(Protocol):
    """Products with a Hessian, whatever does not depend on the vector kept."""

    def apply(self, v: Array, out: Array) -> None:
        """Write H v into `out`; both (P,) or (P, k), C-contiguous, in `named_parameters()` order."""


class Backend(Protocol):
    """The kernels; arguments are checked, C-contiguous, of one dtype."""

    name: str
    #: Relative error allowed against exact arithmetic, by dtype: rounding of sums of length n grows like sqrt(n).
    tolerance: dict[str, float]

    def forward(self, net: Layers, X: Array) -> Array:
        """Return the predictions (N, o)."""

    def squared_residual(self, net: Layers, data: Data) -> float:
        """Return ``‖E‖²`` for the residual ``E = prediction - Y``."""

    def gradient(self, net: Layers, data: Data, scale: float) -> tuple[float, Array]:
        """Return ``‖E‖²`` and the flat gradient of ``scale/2 ‖E‖²``."""

    def descent(self, net: Layers, data: Data, *, rate: float, scale: float, decay: float, rtol: float) -> Descent:
        """Return a descent on ``scale/2 ‖E‖² + decay/2 ‖θ‖² + scale * data.constant``; ``rtol < 0`` never converges."""

    def assemble(self, rows: Sequence[Side], columns: Sequence[Side], blocks: Sequence[Block], out: Array) -> None:
        """Write a dense block of the Hessian, one `Block` for each pair of sides (row-major), into `out`."""

    def hessian_product(
        self, net: Layers, data: Data, *, scale: float, decay: float, gauss_newton: bool, functional: bool
    ) -> HessianProduct:
        """Return products with ``scale * (the parts asked for) + decay * I`` at these weights."""

    def triangular_factor(self, parts: Sequence[Array]) -> NDArray[np.float64]:
        """Return R (n, n) of the thin QR of these matrices side by side; any strides, rows of zeros if they are few."""

    def product_svd(
        self,
        first: NDArray[np.float64],
        weights: Sequence[NDArray[np.float64]],
        tolerance: float,
        *,
        rotated: bool = False,
    ) -> ProductSvd:
        """Return the singular values of ``first @ W_1.T @ W_2.T ...`` and its rank.

        `rotated`: `first` is a triangular factor, whose small rows may be nothing but rounding errors.
        """
