"""The dense assembly on the device, from the factors of all pairs of layers and tables of indices.

The kernel (``csrc/cuda/assembly.cuh``) knows no layers. It computes ``H[k,c] = U[r,p] V[s,q] + B[s,p] W[r,q]`` from
four matrices whose rows and columns are the outer or inner indices of all layers, numbered consecutively.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hesskern._base.array_types import AnyArray
from hesskern.backends.protocol import Block, Side

#: As in the kernel.
THREADS, TILE_ROWS, BYTES = 256, 16, 16
#: A multiple of what any card runs at once; the kernel's threads go on from one tile to the next.
_MOST_BLOCKS = 1 << 16

#: What launches a kernel: its name, blocks, threads, and its arguments in order.
Launch = Callable[..., None]


def assemble(
    launch: Launch, rows: Sequence[Side], columns: Sequence[Side], blocks: Sequence[Block], out: Tensor
) -> None:
    """Write the matrix that these blocks make, one for each pair of sides (row-major), into `out`.

    Parameters
    ----------
    launch : callable
    rows, columns : sequence of Side
    blocks : sequence of Block
        Tensors of the dtype and on the device of `out`.
    out : (rows, columns) tensor, float32 or float64, contiguous
    """
    row_outer, row_inner = _indices(rows, out)
    column_outer, column_inner = _indices(columns, out)
    functional = any(block.B is not None for block in blocks)
    outer = [side.outer for side in rows], [side.outer for side in columns]
    inner = [side.inner + side.bias for side in rows], [side.inner + side.bias for side in columns]
    U = _joined(outer[0], outer[1], [block.U for block in blocks], out)
    V = _joined(inner[0], inner[1], [block.V for block in blocks], out)
    B = _joined(inner[0], outer[1], [block.B for block in blocks], out) if functional else None
    W = _joined(outer[0], inner[1], [block.W for block in blocks], out) if functional else None
    height, width = out.shape
    name = f"assemble{'_functional' if functional else ''}_float{8 * out.element_size()}"
    launch(
        name, launch_blocks(height, width, out.element_size()), THREADS,
        U, V, B, W, sum(outer[1]), sum(inner[1]),
        row_outer, row_inner, column_outer, column_inner, height, width, out,
    )  # fmt: skip


def launch_blocks(rows: int, columns: int, itemsize: int) -> int:
    """Return how many blocks of threads write a matrix of this shape."""
    packs = -(-columns * itemsize // BYTES) + 1
    return min(_MOST_BLOCKS, -(-packs // THREADS) * -(-rows // TILE_ROWS))


def _indices(sides: Sequence[Side], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outer and the inner index of each parameter, numbered consecutively over all sides."""
    outer, inner = [], []
    outer_start = inner_start = 0
    for side in sides:
        outputs = torch.arange(outer_start, outer_start + side.outer, dtype=torch.int32, device=like.device)
        inputs = torch.arange(inner_start, inner_start + side.inner, dtype=torch.int32, device=like.device)
        outer.append(outputs.repeat_interleave(side.inner))
        inner.append(inputs.repeat(side.outer))
        if side.bias:
            outer.append(outputs)
            inner.append(torch.full_like(outputs, inner_start + side.inner))
        outer_start += side.outer
        inner_start += side.inner + side.bias
    return torch.cat(outer), torch.cat(inner)


def _joined(rows: Sequence[int], columns: Sequence[int], parts: Sequence[AnyArray], like: Tensor) -> Tensor:
    """Return one matrix of these parts, one for each pair of rows and columns; zeros where there is None."""
    joined = like.new_zeros(sum(rows), sum(columns))
    top = 0
    for m, height in enumerate(rows):
        left = 0
        for k, width in enumerate(columns):
            part = parts[m * len(columns) + k]
            if part is not None:
                joined[top : top + height, left : left + width] = part
            left += width
        top += height
    return joined
