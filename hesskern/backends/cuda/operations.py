"""The kernels of the protocol on tensors of a device, and the training of many networks at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hesskern._base.array_types import AnyArray
from hesskern._base.flat_layout import FlatLayout, join
from hesskern.backends.cuda import batched_curvature, layers
from hesskern.backends.cuda.assembly import Launch, assemble
from hesskern.backends.cuda.batched_width_reduction import ReducedStack
from hesskern.backends.cuda.descents import Descents
from hesskern.backends.cuda.precision import full_precision
from hesskern.backends.cuda.product import CudaProduct
from hesskern.backends.cuda.shared_memory_kernel import Limits
from hesskern.backends.cuda.state import DescentProblem, RecordedColumns
from hesskern.backends.data import Data
from hesskern.backends.protocol import Block, Layers, Side


class CudaBackend:
    """Matrix products by PyTorch, the rest by the package's kernels, on PyTorch's current stream.

    Where the protocol says array, these take and return tensors.

    Parameters
    ----------
    launch : callable
        Launches one of the kernels; see `hesskern.backends.cuda.launch.launch`.
    limits : callable
        Returns the limits of a device for one of them; see `hesskern.backends.cuda.launch.limits`.
    """

    name = "cuda"
    instructions = ""

    def __init__(self, launch: Launch, limits: Callable[[torch.device], Limits]) -> None:
        self.tolerance = {"float64": 1e-12, "float32": 2e-4}
        self._launch, self._limits = launch, limits

    def forward(self, net: Layers, X: AnyArray) -> AnyArray:
        """Return the predictions (N, o)."""
        with full_precision():
            return layers.activations(_layers(net), X, X.new_ones(len(X)))[-1]

    def squared_residual(self, net: Layers, data: Data) -> float:
        """Return ``‖E‖²``, summed in float64; waits for the device."""
        return float(self._residual(net, data)[1].double().square().sum())

    def gradient(self, net: Layers, data: Data, scale: float) -> tuple[float, AnyArray]:
        """Return ``‖E‖²`` and the flat gradient of ``scale/2 ‖E‖²``."""
        values, residual = self._residual(net, data)
        column: AnyArray = data.column
        with full_precision():
            flat = layers.gradient(_layers(net), values, residual, column, scale)
        return float(residual.double().square().sum()), flat

    @staticmethod
    def _residual(net: Layers, data: Data) -> tuple[list[Tensor], Tensor]:
        parts: Sequence[AnyArray] = data.X, data.column, data.Y
        with full_precision():
            return layers.residual(_layers(net), *parts)

    def assemble(self, rows: Sequence[Side], columns: Sequence[Side], blocks: Sequence[Block], out: AnyArray) -> None:
        """Write a dense block of the Hessian, one `Block` for each pair of sides (row-major), into `out`."""
        assemble(self._launch, rows, columns, blocks, out)

    def hessian_product(
        self, net: Layers, data: Data, *, scale: float, decay: float, gauss_newton: bool, functional: bool
    ) -> CudaProduct:
        """Return products with ``scale * (the parts asked for) + decay * I`` at these weights."""
        return CudaProduct(net, data, scale, decay, gauss_newton, functional)

    def triangular_factor(self, parts: Sequence[AnyArray]) -> AnyArray:
        """Return R (n, n), float64, of the thin QR of these matrices side by side; rows of zeros if they are few."""
        stacked = torch.cat([part.double() for part in parts], dim=1)
        size = stacked.shape[1]
        triangle = stacked.new_zeros(size, size)
        upper = torch.linalg.qr(stacked, mode="r").R
        triangle[: len(upper)] = upper
        return triangle

    # Many networks at once; weights are (networks, out, in) ----------------------------------------------------------

    #: Of many networks: largest eigenvalues, and what decides the condition number of a layer's block.
    sharpness = staticmethod(batched_curvature.sharpness)
    block = staticmethod(batched_curvature.block)

    @staticmethod
    def reduced(weights: Sequence[AnyArray], biases: Sequence[AnyArray], *, reduce: bool) -> ReducedStack:
        """Return the small networks that are trained instead of these."""
        return ReducedStack(layers.TensorLayers(list(weights), list(biases)), reduce=reduce)

    def descents(self, small: ReducedStack, problem: DescentProblem, watched: RecordedColumns) -> Descents:
        """Return a descent of each of these networks."""
        layout = FlatLayout.of(*small.layers)
        return Descents(self._launch, self._limits, layout, join(*small.layers), problem, watched)


def _layers(net: Layers) -> layers.TensorLayers:
    weights: Sequence[AnyArray] = net.weights
    biases: Sequence[AnyArray] = net.biases
    return layers.TensorLayers(list(weights), list(biases))
