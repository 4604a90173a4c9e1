"""The GPU's assembly kernel on the host, against the numpy backend: arithmetic, indices, every entry written once."""

from __future__ import annotations

import cuda_host
import numpy as np
import problems
import pytest
from looped import few_quick

from hesskern import backends
from hesskern.backends.cuda.assembly import BYTES, THREADS, TILE_ROWS, assemble, launch_blocks
from hesskern.backends.protocol import Block
from hesskern.curvature.dense_blocks import grid
from hesskern.curvature.layer_factors import Factors
from hesskern.network.parameters import select

torch = pytest.importorskip("torch")

#: Widths and whether there are biases: sizes odd, even, divisible by four; wide, narrow, one.
NETWORKS = [
    ([3, 5], False),
    ([4, 2], True),
    ([1, 1], False),
    ([3, 5, 2], False),
    ([3, 5, 2], True),
    ([4, 8, 4], False),
    ([2, 1, 3], True),
    ([5, 3, 4, 2], True),
    ([2, 3, 1, 4, 3], False),
    ([3, 2, 4, 1, 2], True),
]


def blocks_of(widths, bias, dtype, params=(None, None), mode="full", vec="row"):
    """What `Backend.assemble` takes, of a random network."""
    problem = problems.normal(widths, 2 * max(widths), bias=bias, kind="mean")
    net, loss = problem.network(dtype), problem.loss(dtype)
    factors = Factors(net, loss.data(bias=net.has_bias, reduced=True), loss.scale)
    rows, columns = (select(net, part) for part in params)
    return grid(factors, rows, columns, mode, vec, np.dtype(dtype))


def size_of(sides):
    return sum(side.outer * (side.inner + side.bias) for side in sides)


def tensors(blocks):
    return [Block(*(None if x is None else torch.tensor(x) for x in block)) for block in blocks]


def on_host(rows, columns, blocks, dtype, *, shift=0, launch=cuda_host.launch):
    """The kernel's result; `shift`: how many numbers behind an aligned address it begins. Around it nothing changes."""
    height, width = size_of(rows), size_of(columns)
    around = 64
    memory = torch.full((height * width + 2 * around,), torch.nan, dtype=getattr(torch, dtype))
    start = around + shift - memory.data_ptr() % BYTES // memory.element_size()
    out = memory[start : start + height * width].view(height, width)
    assemble(launch, rows, columns, tensors(blocks), out)
    assert memory[:start].isnan().all()
    assert memory[start + height * width :].isnan().all()
    return out.numpy()


def on_numpy(rows, columns, blocks, dtype):
    out = np.empty((size_of(rows), size_of(columns)), dtype)
    backends.get("numpy").assemble(rows, columns, blocks, out)
    return out


def check(case, dtype, **options):
    found, wanted = on_host(*case, dtype, **options), on_numpy(*case, dtype)
    scale = max(1.0, np.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=4 * np.finfo(dtype).eps * scale)
    return found


@pytest.mark.parametrize("vec", few_quick(["row", "column"], 1))
@pytest.mark.parametrize(("widths", "bias"), NETWORKS, ids=str)
def test_the_full_hessian(widths, bias, vec, dtype):
    found = check(blocks_of(widths, bias, dtype, vec=vec), dtype)
    assert (found == found.T).all()


@pytest.mark.parametrize("mode", ["gauss_newton", "functional"])
def test_its_parts(mode, dtype):
    check(blocks_of([3, 5, 4, 3], True, dtype, mode=mode), dtype)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [([0], [1]), ([2], [0]), ([1], [1]), (["1.weight"], ["1.weight"]), (["1.bias"], [0, 2]), ([0, 2], ["0.bias"])],
    ids=str,
)
def test_blocks(rows, columns, dtype):
    check(blocks_of([3, 5, 4, 3], True, dtype, (rows, columns)), dtype)


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
@pytest.mark.parametrize("widths", [[3, 5, 2], [4, 8, 4], [7, 3, 3]], ids=str)
def test_a_matrix_may_begin_anywhere_in_memory(widths, shift, dtype):
    check(blocks_of(widths, True, dtype), dtype, shift=shift)


def test_more_tiles_than_blocks_and_more_packs_than_threads():
    """1500 rows and columns: a row has more packs than a block has threads, the matrix many rows of tiles."""
    dtype = "float32"
    case = blocks_of([20, 50, 10], False, dtype)
    assert size_of(case[0]) > TILE_ROWS * 8
    assert size_of(case[1]) > THREADS * 4
    first = check(case, dtype)

    def few(kernel, blocks, threads, *arguments):
        assert blocks > 3
        cuda_host.launch(kernel, 3, 32, *arguments)

    np.testing.assert_array_equal(on_host(*case, dtype, launch=few), first)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("widths", [[3, 5, 2], [2, 4, 2]], ids=str)
def test_every_entry_is_written_by_one_thread(widths, shift, dtype):
    case = blocks_of(widths, True, dtype)
    writers = np.zeros((size_of(case[0]), size_of(case[1])), int)
    for number in range(2 * 8):

        def one(kernel, blocks, threads, *arguments, only=number):
            cuda_host.launch(kernel, 2, 8, *arguments, only=only)

        writers += ~np.isnan(on_host(*case, dtype, shift=shift, launch=one))
    assert (writers == 1).all()


@pytest.mark.parametrize(
    ("shape", "itemsize", "blocks"),
    [((1, 1), 4, 1), ((17, 1000), 4, 2), ((16, 2000), 4, 2), ((4000, 4000), 8, 250 * 8), ((10**6, 10**6), 4, 1 << 16)],
    ids=str,
)
def test_one_block_for_each_tile_while_the_matrix_is_small(shape, itemsize, blocks):
    assert launch_blocks(*shape, itemsize) == blocks


def test_no_kernel_is_missing_or_left_over():
    """Every name that the Python side makes is one that the source defines."""
    source = (cuda_host.SOURCES / "assembly.cuh").read_text()
    asked = set()
    for mode in ("full", "gauss_newton"):
        for dtype in ("float32", "float64"):
            on_host(
                *blocks_of([2, 2, 2], False, dtype, mode=mode), dtype,
                launch=lambda kernel, *_: asked.add(kernel),
            )  # fmt: skip
    assert {f"HESSKERN_ASSEMBLE({name}," for name in asked} == {
        line.split()[0] for line in source.splitlines() if line.startswith("HESSKERN_ASSEMBLE(")
    }
