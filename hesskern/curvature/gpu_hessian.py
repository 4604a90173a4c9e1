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
from hesskern.curvature.hessian import Hessian, made
from hesskern.curvature.layer_factors import KINDS, Factors, Mode
from hesskern.curvature.objective import Objective, setting
from hesskern.curvature.point import Point
from hesskern.curvature.scaled_product import hessian_product
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import Part, part_size, parts_in_words, positions


class DeviceHessian:
    """Second derivatives of a loss whose samples and network are on a GPU; made by ``loss.hessian(net, params)``.

    What `Hessian` is in main memory, of shape (P, P); `block` of two layers is rectangular. It has what a GPU is for,
    the dense matrix and products, as tensors on the same device. Eigenvalues, condition numbers and solutions come from
    small matrices, on the CPU: ``H.cpu()``.

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
        """Where it is: "cuda:0"."""
        return self._net.device

    def gauss_newton(self) -> DeviceHessian:
        """Return the Gauss-Newton part ``J.T J``, without weight decay."""
        return DeviceHessian(self._loss, self._net, self.rows, self.columns, "gauss_newton")

    def functional(self) -> DeviceHessian:
        """Return the functional part: second derivatives of the network, weighted by the residual."""
        return DeviceHessian(self._loss, self._net, self.rows, self.columns, "functional")

    def block(self, row: int, column: int) -> DeviceHessian:
        """Return the block of two layers' selected parameters, rows first."""
        found: list[tuple[Part]] = []
        for name, layer, parts in (("row", row, self.rows), ("column", column, self.columns)):
            selected = {part.layer: part for part in parts}
            if checks.integer(layer, name, 0) not in selected:
                raise ValueError(f"{name} is layer {layer}; this Hessian is over the layers {sorted(selected)}.")
            found.append((selected[layer],))
        return DeviceHessian(self._loss, self._net, found[0], found[1], self._mode)

    def cpu(self) -> Hessian | CrossBlock:
        """Return the same in main memory, with all that can be asked of it there."""
        loss, net = self._loss.cpu(), self._net.cpu()
        if self.rows == self.columns:
            return made(loss, net, self.rows, self._mode)
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

        All k columns at once. The second product of a shape is recorded as a CUDA graph, for which it waits for the
        device, and replayed from then on. Nothing else waits, so NaN goes through; and after a first product one may be
        part of a CUDA graph of the user's.

        Raises
        ------
        TypeError
            If `v` is somewhere else, or has another dtype.
        ValueError
            If its shape does not fit.
        MemoryError
            If the device has not enough memory free; the message says about how much it takes.
        """
        if not devices.on_device(v):
            where = "on cpu" if hasattr(v, "shape") else f"a {type(v).__name__}"
            raise TypeError(
                f"v is {where}, but the Hessian is on {self.device}; move it there with torch.tensor(v).cuda()."
            )
        given = devices.taken(v, "v")
        checks.same_kind(self._net.weights[0], "the Hessian", given, "v")
        if given.ndim not in (1, 2) or len(given) != self.shape[1]:
            raise ValueError(f"v has shape {tuple(given.shape)}; expected ({self.shape[1]},) or ({self.shape[1]}, k).")
        return self._times(given)

    def _times(self, v: Any) -> Any:
        size, count = self._net.num_parameters, math.prod(v.shape[1:])
        # The vectors, what they move, and the products, each with what it is made of.
        words = count * (6 * size + 4 * len(self._data.X) * sum(self._net.widths))
        what = f"the product with {count} vector{'s' if count > 1 else ''} (about {memory.human(8 * words)} in all)"
        with devices.enough_memory(v, what, "multiply with fewer vectors at a time."):
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
        found = positions(self._net, parts)
        like = self._net.weights[0]
        indices = np.arange(self._net.num_parameters) if found is None else found
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
            If the device has not enough memory free; the message says how much it takes.
        TypeError, ValueError
            If `out` is somewhere else, or has another shape, dtype or layout.
        """
        checks.one_of(vec, "vec", ("row", "column"))
        like = self._net.weights[0]
        if out is not None:
            self._check_out(out)
        needed = memory.human(math.prod(self.shape) * self._net.dtype.itemsize)
        what = f"the dense {self.shape[0]} x {self.shape[1]} Hessian ({needed})"
        with devices.enough_memory(like, what, "use H @ v, which needs its small factors only."):
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
        what = f"{KINDS[self._mode]} of {parts}"
        return f"<{self.shape[0]}x{self.shape[1]} {what} {setting(self._loss, self._net)}>"
