"""Dense Hessians on the device: the block of the last layer, and all layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

import hesskern as hk
from bench.autograd import dense
from bench.closed_form import ClosedForm
from bench.contest import Contestant, Rung, Target, TimedProblem
from bench.cuda import floors
from bench.cuda.device import Device, Ours, Run, as_array
from bench.cuda.setting import Setting
from bench.ladders import by_depth, by_width, rungs, union
from bench.problems import TOLERANCE, Size, relative_error

NAME = "cuda_assembly"
SUMMARY = "Dense Hessians written into device memory: the last layer's block, I kron G, and the whole matrix."
OF_THE_FILL = 1.18  # 85 % of the measured bandwidth of stores
BLOCKS = (by_width(20, 20, 20, (50, 100, 200, 400)),)
WHOLE = (by_width(20, 20, 20, (25, 50, 100)), by_depth(20, 20, 30, 20, (2, 3, 5)))
QUICK_BLOCKS, QUICK_WHOLE = (by_width(3, 4, 2, (3, 6, 12)),), (by_width(3, 4, 2, (2, 3)),)
#: One order, one dtype more.
SINGLE = Size(20, (20, 200, 20), "float32")
FILL, FUNC = "floor: fill_", "torch.func.hessian"


def problems(device: Device, quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    blocks, whole = (QUICK_BLOCKS, QUICK_WHOLE) if quick else (BLOCKS, WHOLE)
    more = [] if quick else [SINGLE]
    return [
        *(partial(_block, device, size) for size in union(blocks, more)),
        *(partial(_whole, device, size) for size in union(whole)),
    ]


def _targets(order: int, kron: Sequence[str]) -> list[Target]:
    targets = [Target(contestant="hesskern", kind="faster", bound=100, than=FUNC)]
    if order >= 4000:
        targets.append(Target(contestant="hesskern", kind="at_most", bound=OF_THE_FILL, than=FILL))
    if order >= 1000 and kron:
        targets.append(Target(contestant="hesskern", kind="faster", bound=1, than=kron, group="kron and block_diag"))
    return targets


def _block(device: Device, size: Size) -> TimedProblem:
    X, Y, weights = size.draw()
    torch, (_, width, outputs) = device.torch, size.widths
    hidden = X @ weights[0].T
    gram, order = hidden.T @ hidden, width * outputs
    identity, inner = device.tensor(np.eye(outputs, dtype=gram.dtype)), device.tensor(gram)
    exact = np.kron(np.eye(outputs), gram.astype(np.float64))
    count = device.turns(exact.nbytes * inner.element_size() // 8)
    buffers = [device.empty(order, order, dtype=size.dtype) for _ in range(count)]
    bytes_written = buffers[0].nbytes
    setting = Setting(device, X, Y, weights)

    def ours(how: Ours) -> Run:
        loss = hk.SquaredLoss(how.array(setting.x), how.array(setting.y), backend=how.backend)
        H = loss.hessian(hk.LinearNetwork([how.array(w) for w in setting.weights]), params=[1])
        return device.rotating(buffers, lambda out: H.toarray(out=how.array(out)))

    def multiply(out: Any) -> None:
        spread = out.view(outputs, width, outputs, width)
        torch.mul(identity[:, None, :, None], inner[None, :, None, :], out=spread)

    def diagonal(out: Any) -> None:
        out.zero_()
        out.view(outputs, width, outputs, width).diagonal(dim1=0, dim2=2).copy_(inner[:, :, None])

    def of_last(weight: Any) -> Any:
        return setting.loss(setting.weights[0], weight)

    blocks = [inner] * outputs
    kept = partial(device.keeping, size=bytes_written)
    contestants = [
        device.ours("hesskern", ours, note="toarray(out=) of an existing operator"),
        device.peer("torch.kron", lambda: kept(lambda: torch.kron(identity, inner)), note="a new tensor each time"),
        device.peer("torch.block_diag", lambda: kept(lambda: torch.block_diag(*blocks)), note="a new tensor each time"),
        *_both_ways(device, "torch.mul(out=)", buffers, multiply, "broadcast product of the factors"),
        *_both_ways(device, "torch zero_ and diagonal", buffers, diagonal, "zeroed, then the blocks in one copy"),
        device.compiled(
            "torch.compile of kron",
            lambda compile: kept(partial(compile(torch.kron), identity, inner)),
            note="one compiled kernel, a new tensor each time",
        ),
        device.peer(
            FUNC, lambda: kept(partial(torch.func.hessian(of_last), setting.weights[1])), note="from the network"
        ),
        *floors.stores(device, buffers),
    ]
    short = "" if size.dtype == "float64" else f", {size.dtype}"
    return TimedProblem(
        label=f"block, P = {order}, layer 1 of {'-'.join(map(str, size.widths))}{short}",
        contestants=contestants,
        error=lambda result: relative_error(as_array(result).reshape(order, order), exact),
        tolerance=TOLERANCE[size.dtype],
        targets=_targets(order, ("torch.kron", "torch.block_diag")),
        spoil=lambda: _spoil(buffers),
        rungs=[Rung(f"block, {rung.ladder}", "P", order) for rung in rungs(size, (*BLOCKS, *QUICK_BLOCKS))],
        memory=True,
    )


def _both_ways(
    device: Device, name: str, buffers: Sequence[Any], write: Callable[[Any], Any], note: str
) -> Iterator[Contestant]:
    """Return a way to write a buffer, eager and as a graph that writes each of them once."""

    def all_of_them() -> Any:
        for out in buffers:
            write(out)
        return buffers[-1]

    yield device.peer(name, lambda: device.rotating(buffers, write), note=f"{note}, into arrays that are there")
    yield device.peer(
        f"{name}, CUDA graph",
        lambda: device.graph(all_of_them),
        note=f"{note}; one graph writes all {len(buffers)} buffers",
        units=len(buffers),
    )


def _spoil(buffers: Sequence[Any]) -> None:
    for out in buffers:
        out.fill_(float("nan"))


def _whole(device: Device, size: Size) -> TimedProblem:
    X, Y, weights = size.draw()
    torch, setting = device.torch, Setting(device, X, Y, weights)
    order = sum(weight.size for weight in weights)
    buffers = [device.empty(order, order) for _ in range(device.turns(8 * order * order))]
    exact = ClosedForm(X, Y, weights).matrix()
    kept = partial(device.keeping, size=8 * order * order)

    def ours(how: Ours) -> Run:
        loss = hk.SquaredLoss(how.array(setting.x), how.array(setting.y), backend=how.backend)
        H = loss.hessian(hk.LinearNetwork([how.array(w) for w in setting.weights]))
        return device.rotating(buffers, lambda out: H.toarray(out=how.array(out)))

    def chunks() -> Run:
        many = torch.func.vmap(setting.product_flat, chunk_size=512)
        unit = torch.eye(order, dtype=setting.x.dtype, device=device.name)
        return kept(lambda: many(unit))

    numbers = tuple(range(len(weights)))
    contestants = [
        device.ours("hesskern", ours, note="toarray(out=) of an existing operator"),
        *_both_ways(device, "torch closed form", buffers, setting.assemble, "each pair of layers a broadcast product"),
        device.peer(
            FUNC,
            lambda: kept(partial(torch.func.hessian(setting.loss, argnums=numbers), *setting.weights)),
            note="blocks, not put together",
        ),
        device.peer("torch.func, vmap in chunks", chunks, note="jvp of grad, 512 rows at a time, one matrix"),
        device.peer(
            "torch.autograd.functional.hessian",
            lambda: kept(
                partial(torch.autograd.functional.hessian, setting.loss, tuple(setting.weights), vectorize=True)
            ),
            note="vectorize=True; blocks, not put together",
        ),
        *floors.stores(device, buffers),
    ]
    places = rungs(size, (*WHOLE, *QUICK_WHOLE))
    return TimedProblem(
        label=f"whole, P = {order}, {size.label}",
        contestants=contestants,
        error=lambda result: relative_error(_joined(result), exact),
        tolerance=TOLERANCE[size.dtype],
        targets=_targets(order, ()),
        spoil=lambda: _spoil(buffers),
        rungs=[Rung(f"whole, {rung.ladder}", rung.variable, rung.value) for rung in places],
        memory=True,
    )


def _joined(result: Any) -> Any:
    if isinstance(result, tuple):
        return dense(tuple(tuple(as_array(block) for block in line) for line in result))
    return as_array(result)
