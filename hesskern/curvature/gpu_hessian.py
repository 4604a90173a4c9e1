"""The Hessian on a GPU: dense, and products with it, as tensors that stay there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hesskern._base import checks, devices, memory
from hesskern._base.cached import cached_property
from hesskern.backends.protocol import Block, HessianProduct, Side
from hesskern.curvature.cross_block import CrossBlock
from hesskern.curvature.dense_blocks import grid
from hesskern.curvature.hessian import Hessian, hessian_of
from hesskern.curvature.layer_factors import KINDS, Factors, Mode
from hesskern.curvature.objective import Objective, setting
from hesskern.curvature.point import Point
from hesskern.curvature.scaled_product import hessian_product
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import Part, part_size, parts_in_words, positions


class DeviceHessian:
    """Second derivatives of a loss with samples and network on a GPU; made by ``loss.hessian(net, params)``.

    The counterpart of `Hessian`, of shape (P, P); a `block` of two layers is rectangular. The dense matrix and products
    are tensors on the same device. Eigenvalues, condition numbers and solutions come from small matrices on the CPU:
    ``H.cpu()``.

    Examples
    --------
    >>> H = loss.hessian(net)                           # doctest: +SKIP
    >>> H.toarray(), H @ v, H @ V                       # doctest: +SKIP
    >>> H.block(1, 0).toarray(), H.cpu().condition()    # doctest: +SKIP
    """

    def __init__(
        self, loss: Objective, net: LinearNetwork, rows: Sequence[Part], columns: Sequence[Part], mode: Mode = "full"
    ) -> None:
        self._loss, self._net, self._mode = loss, net, mode
        self.rows, self.columns = tuple(rows), tuple(columns)
        self._backend = loss.kernels
        self._data = loss.reduction(bias=net.has_bias)
        self._shift = loss.weight_decay if mode == "full" else 0.0
        height, width = (sum(part_size(net, part) for part in parts) for parts in (rows, columns))
        self.shape = (height, width)

    @property
    def dtype(self) -> Any:
        """The network's dtype, torch.float32 or torch.float64."""
        return self._net.weights[0].dtype

    @property
    def device(self) -> str:
        """The device, for instance "cuda:0"."""
        return self._net.device

    def gauss_newton(self) -> DeviceHessian:
        """Return the Gauss-Newton part ``J.T J``, without weight decay."""
        return DeviceHessian(self._loss, self._net, self.rows, self.columns, "gauss_newton")

    def functional(self) -> DeviceHessian:
        """Return the functional part: second derivatives of the network, weighted by the residual."""
        return DeviceHessian(self._loss, self._net, self.rows, self.columns, "functional")

    def block(self, row: int, column: int) -> DeviceHessian:
        """Return the block of two layers' selected parameters, rows first."""
        chosen: list[tuple[Part]] = []
        for name, layer, parts in (("row", row, self.rows), ("column", column, self.columns)):
            selected = {part.layer: part for part in parts}
            if checks.integer(layer, name, 0) not in selected:
                raise ValueError(f"{name} is layer {layer}; this Hessian is over the layers {sorted(selected)}.")
            chosen.append((selected[layer],))
        return DeviceHessian(self._loss, self._net, chosen[0], chosen[1], self._mode)

    def cpu(self) -> Hessian | CrossBlock:
        """Return the same Hessian in main memory, with eigenvalues, condition numbers and solutions."""
        loss, net = self._loss.cpu(), self._net.cpu()
        if self.rows == self.columns:
            return hessian_of(loss, net, self.rows, self._mode)
        return CrossBlock(Point(loss, net), self.rows[0], self.columns[0], self._mode)

    # Products ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _product(self) -> HessianProduct:
        return hessian_product(
            self._backend,
            self._net,
            self._data.astype(devices.numpy_dtype(self._net.weights[0])),
            scale=self._loss.scale,
            decay=self._shift,
            gauss_newton=self._mode != "functional",
            functional=self._mode != "gauss_newton",
        )

    def __matmul__(self, v: Any) -> Any:
        """Return the product with a tensor on this device and of this dtype, (P,) or (P, k).

        All k columns are multiplied at once. The second product of a shape is recorded as a CUDA graph, which waits for
        the device, and replayed from then on. Nothing else waits, so `v` is not searched for NaN. After the first
        product, a product may be part of the user's own CUDA graph.

        Raises
        ------
        TypeError
            If `v` is somewhere else, or has another dtype.
        ValueError
            If its shape does not fit.
        MemoryError
            If the device does not have enough free memory; the message says about how much it takes.
        """
        if not devices.on_device(v):
            where = "on cpu" if hasattr(v, "shape") else f"a {type(v).__name__}"
            raise TypeError(
                f"v is {where}, but the Hessian is on {self.device}; move it there with torch.tensor(v).cuda()."
            )
        tensor = devices.shared_tensor(v, "v")
        checks.same_kind(self._net.weights[0], "the Hessian", tensor, "v")
        if tensor.ndim not in (1, 2) or len(tensor) != self.shape[1]:
            raise ValueError(f"v has shape {tuple(tensor.shape)}; expected ({self.shape[1]},) or ({self.shape[1]}, k).")
        return self._times(tensor)

    def _times(self, v: Any) -> Any:
        size, count = self._net.num_parameters, math.prod(v.shape[1:])
        # The vectors, the changes of activations, and the products, each with temporary arrays.
        words = count * (6 * size + 4 * len(self._data.X) * sum(self._net.widths))
        description = (
            f"the product with {count} vector{'s' if count > 1 else ''} (about {memory.human(8 * words)} in all)"
        )
        with devices.enough_memory(v, description, "multiply with fewer vectors at a time."):
            out = v.new_empty((size, *v.shape[1:]))
            full = v
            if len(v) != size:
                full = out.new_zeros(out.shape)
                full[self._column_places] = v
            self._product.apply(full, out)
            return out if self.shape[0] == size else out[self._row_places]

    @cached_property
    def _row_places(self) -> Any:
        return self._indices(self.rows)

    @cached_property
    def _column_places(self) -> Any:
        return self._row_places if self.rows == self.columns else self._indices(self.columns)

    def _indices(self, parts: Sequence[Part]) -> Any:
        selected = positions(self._net, parts)
        like = self._net.weights[0]
        indices = np.arange(self._net.num_parameters) if selected is None else selected
        return devices.namespace(like).as_tensor(indices, device=like.device)

    # Dense ------------------------------------------------------------------------------------------------------------

    def toarray(self, out: Any = None, vec: str = "row") -> Any:
        """Return the dense matrix, symmetric to the bit where it is square. Each entry is written once.

        Parameters
        ----------
        out : (P, P) tensor, optional
            Contiguous, of this dtype and on this device, to write into.
        vec : {"row", "column"}
            As in `Hessian.toarray`.

        Raises
        ------
        MemoryError
            If the device does not have enough free memory; the message says how much it takes.
        TypeError, ValueError
            If `out` is somewhere else, or has another shape, dtype or layout.
        """
        checks.one_of(vec, "vec", ("row", "column"))
        like = self._net.weights[0]
        if out is not None:
            self._check_out(out)
        size = memory.human(math.prod(self.shape) * self._net.dtype.itemsize)
        description = f"the dense {self.shape[0]} x {self.shape[1]} Hessian ({size})"
        with devices.enough_memory(like, description, "use H @ v, which needs its small factors only."):
            out = like.new_empty(self.shape) if out is None else out  # type: ignore[attr-defined]
            rows, columns, blocks = self._grid(vec)
            self._backend.assemble(rows, columns, blocks, out)
            if self._shift and self.rows == self.columns:
                out.diagonal().add_(self._shift)
        return out

    def _check_out(self, out: Any) -> None:
        like: Any = self._net.weights[0]
        if not isinstance(out, type(like)):
            raise TypeError(f"out is a {type(out).__name__}; expected a tensor on {self.device}.")
        checks.same_kind(like, "the Hessian", out, "out")
        if tuple(out.shape) != self.shape or not out.is_contiguous():
            layout = "" if out.is_contiguous() else " and is not contiguous"
            raise ValueError(f"out has shape {tuple(out.shape)}{layout}; expected a contiguous tensor of {self.shape}.")

    def _grid(self, vec: str) -> tuple[list[Side], list[Side], list[Block]]:
        factors = Factors(self._net, self._data, self._loss.scale)
        return grid(factors, self.rows, self.columns, self._mode, vec, self._net.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise TypeError(f"this Hessian is on {self.device}, where NumPy cannot read; use np.asarray(H.cpu()).")

    def __reduce__(self) -> tuple[Any, ...]:
        return DeviceHessian, (self._loss, self._net, self.rows, self.columns, self._mode)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(Hessian, name):
            raise AttributeError(f"{name} is computed on the CPU, but this Hessian is on {self.device}: H.cpu().{name}")
        raise AttributeError(f"a Hessian on a GPU has no attribute {name!r}")

    def __repr__(self) -> str:
        parts = " and ".join(dict.fromkeys(parts_in_words(self._net, parts) for parts in (self.rows, self.columns)))
        description = f"{KINDS[self._mode]} of {parts}"
        return f"<{self.shape[0]}x{self.shape[1]} {description} {setting(self._loss, self._net)}>"
