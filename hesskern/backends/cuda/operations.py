"""The kernels of the protocol on tensors of a device; what a GPU has no part in yet, training, is not here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hesskern.backends.cuda.assembly import Launch, assemble
from hesskern.backends.cuda.precision import full_precision
from hesskern.backends.cuda.product import CudaProduct, activations
from hesskern.backends.protocol import Block, Layers, Side
from hesskern.problem import Data


class CudaBackend:
    """Matrix products by PyTorch, the rest by the package's kernels, on PyTorch's current stream.

    Where the protocol says array, these take and return tensors.

    Parameters
    ----------
    launch : callable
        Launches one of the kernels; see `hesskern.backends.cuda.launch.launch`.
    """

    name = "cuda"
    instructions = ""

    def __init__(self, launch: Launch) -> None:
        self.tolerance = {"float64": 1e-12, "float32": 2e-4}
        self._launch = launch

    def forward(self, net: Layers, X: Any) -> Any:
        """Return the predictions (N, o)."""
        with full_precision():
            return activations(net, X, X.new_ones(len(X)))[-1]

    def squared_residual(self, net: Layers, data: Data) -> float:
        """Return ``‖E‖²``, summed in float64; waits for the device."""
        X: Any = data.X
        Y: Any = data.Y
        column: Any = data.column
        with full_precision():
            residual = activations(net, X, column)[-1] - Y
        return float(residual.double().square().sum())

    def gradient(self, net: Layers, data: Data, scale: float) -> tuple[float, Any]:
        """Return ``‖E‖²`` and the flat gradient of ``scale/2 ‖E‖²``."""
        column: Any = data.column
        X: Any = data.X
        Y: Any = data.Y
        weights: Sequence[Any] = net.weights
        pieces: list[Tensor] = []
        with full_precision():
            values = activations(net, X, column)
            residual = values[-1] - Y
            delta = scale * residual
            for layer in reversed(range(len(net.weights))):
                if net.biases[layer] is not None:
                    pieces.append(delta.T @ column)
                pieces.append((delta.T @ values[layer]).flatten())
                delta = delta @ weights[layer]
        return float(residual.double().square().sum()), torch.cat(pieces[::-1])

    def assemble(self, rows: Sequence[Side], columns: Sequence[Side], blocks: Sequence[Block], out: Any) -> None:
        """Write a dense block of the Hessian, one `Block` for each pair of sides (row-major), into `out`."""
        assemble(self._launch, rows, columns, blocks, out)

    def hessian_product(
        self, net: Layers, data: Data, *, scale: float, decay: float, gauss_newton: bool, functional: bool
    ) -> CudaProduct:
        """Return products with ``scale * (the parts asked for) + decay * I`` at these weights."""
        return CudaProduct(net, data, scale, decay, gauss_newton, functional)

    def triangular_factor(self, parts: Sequence[Any]) -> Any:
        """Return R (n, n), float64, of the thin QR of these matrices side by side; rows of zeros if they are few."""
        stacked = torch.cat([part.double() for part in parts], dim=1)
        size = stacked.shape[1]
        triangle = stacked.new_zeros(size, size)
        found = torch.linalg.qr(stacked, mode="r").R
        triangle[: len(found)] = found
        return triangle
