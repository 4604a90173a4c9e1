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

    def kronecker(self, output_factor: Array, input_factor: Array, *, bias: bool, out: Array) -> None:
        """Write ``output_factor ⊗ input_factor`` into `out`, in the order weight (row-major), then bias."""

    def product_svd(
        self, first: NDArray[np.float64], weights: Sequence[NDArray[np.float64]], tolerance: float
    ) -> ProductSvd:
        """Return the singular values of ``first @ W_1.T @ W_2.T ...`` and its rank."""
