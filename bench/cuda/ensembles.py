"""Many networks of one shape trained together on the device: time of a step of one; with a condition number as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import hesskern as hk
from bench.contest import Rung, Target, TimedProblem
from bench.cuda import floors
from bench.cuda.device import Device, Ours, Run, as_array
from bench.problems import Array, Size, gradient_multiply_adds, relative_error
from bench.tasks.ensemble import Nets, draw, numpy_product, torch_vmap

NAME = "cuda_ensemble"
SUMMARY = "A step of one of many small networks trained together on the device; with the condition number of a block."
GRAPH = "torch bmm in place, CUDA graph"
TOLERANCE = 1e-9  # of what the steps changed
COUNTS, QUICK_COUNTS = (256, 1024, 4096, 16_384), (2, 4, 8)
#: Networks that are compared with the reference: the first, the last, and some between.
COMPARED = 8
#: Steps that are one graph; and steps between two records.
CHUNK, EVERY = 10, 10
RECORD = "condition[1.weight]"


class TrainedEnsemble(NamedTuple):
    """Steps taken, weights (B, h, i) and (B, o, h), and condition numbers (records, B) where they were recorded."""

    steps: int
    weights: Any
    conditions: Any = None


def problems(device: Device, quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    size, counts = (Size(3, (3, 8, 2)), QUICK_COUNTS) if quick else (Size(5, (5, 100, 5)), COUNTS)
    steps, few = (20, 10) if quick else (1000, 100)
    return [
        *(partial(_problem, device, size, count, steps, few, record=False) for count in counts),
        partial(_problem, device, size, counts[1], few, few, record=True),
    ]


class Loops:
    """Training in torch, in place: everything a step needs is there."""

    def __init__(self, device: Device, nets: Nets, *, product: bool) -> None:
        self.device, self.torch, self.product = device, device.torch, product
        self.x, self.y = device.tensor(nets.X), device.tensor(nets.Y)
        self.start = device.tensor(nets.first), device.tensor(nets.second)
        self.rates = device.tensor(nets.column)
        self.first, self.second = (weight.clone() for weight in self.start)
        self.losses = device.empty(CHUNK, len(self.first))

    def step(self, k: int) -> None:
        """Take a step of every network, in the order of a model's layers or by the product of the weights."""
        torch, first, second = self.torch, self.first, self.second
        if self.product:
            E = torch.matmul(self.x, torch.bmm(second, first).mT).sub_(self.y)
            self.losses[k % CHUNK] = torch.linalg.vector_norm(E, dim=(1, 2))
            G = torch.matmul(E.mT, self.x).mul_(self.rates)
            gradient = torch.bmm(G, first.mT)
            first.baddbmm_(second.mT, G, alpha=-1)
            second.sub_(gradient)
        else:
            hidden = torch.matmul(self.x, first.mT)
            E = torch.bmm(hidden, second.mT).sub_(self.y)
            self.losses[k % CHUNK] = torch.linalg.vector_norm(E, dim=(1, 2))
            E.mul_(self.rates)
            delta = torch.bmm(E, second)
            second.baddbmm_(E.mT, hidden, alpha=-1)
            first.sub_(torch.matmul(delta.mT, self.x))

    def chunk(self) -> None:
        """Take as many steps as one graph holds."""
        for k in range(CHUNK):
            self.step(k)

    def condition(self) -> Any:
        """Return the condition number of each network's last block, from the Gram matrix of its hidden layer."""
        hidden = self.torch.matmul(self.x, self.first.mT)
        values = self.torch.linalg.eigvalsh(self.torch.bmm(hidden, hidden.mT))
        return values[:, -1] / values[:, 0]

    def begin(self) -> None:
        """Put the weights back to where they began."""
        self.first.copy_(self.start[0])
        self.second.copy_(self.start[1])

    def train(self, steps: int, *, graph: bool, record: bool) -> Run:
        """Return a run of so many steps, eager or a graph of some of them replayed."""
        chunk = self.device.graph(self.chunk) if graph else self.chunk

        def run() -> TrainedEnsemble:
            with self.torch.no_grad():
                self.begin()
                history, conditions = [], []
                for _ in range(steps // CHUNK):
                    if record:
                        conditions.append(self.condition())
                    chunk()
                    history.append(self.losses.clone())
            found = self.torch.stack(conditions) if record else None
            return TrainedEnsemble(steps, (self.first, self.second), found)

        return run


def vectorised(device: Device, nets: Nets, steps: int) -> Run:
    """Return the loop with the gradients of the loss of one network, vectorised over networks."""
    train = torch_vmap(device.torch, nets, steps, product=False, device=device.name)

    def run() -> TrainedEnsemble:
        flat = train().weights
        parts = flat.split([nets.first.size, nets.second.size])
        return TrainedEnsemble(
            steps, tuple(p.reshape(w.shape) for p, w in zip(parts, (nets.first, nets.second), strict=True))
        )

    return run


def _reference(nets: Nets, rows: Sequence[int], stops: Sequence[int], every: int) -> tuple[dict[int, Array], Array]:
    """Return some networks' weights after each of `stops` steps, and the condition numbers of their last blocks."""
    some = Nets(nets.X, nets.Y, nets.first[rows], nets.second[rows], nets.rates[rows])
    last = max(stops)
    after = numpy_product(some, last, sorted({*stops, *range(every, last, every)}))
    split, shape = some.first.size, some.first.shape
    before = [some.first, *(after[k][:split].reshape(shape) for k in range(every, last, every))]
    singular = [np.linalg.svd(nets.X @ first.transpose(0, 2, 1), compute_uv=False) for first in before]
    return after, np.stack([(values[:, 0] / values[:, -1]) ** 2 for values in singular])


def _problem(device: Device, size: Size, count: int, steps: int, few: int, *, record: bool) -> TimedProblem:
    nets = draw(size, count)
    rows = np.unique(np.linspace(0, count - 1, min(COMPARED, count)).astype(int)).tolist()
    after, conditions = _reference(nets, rows, [few, steps], EVERY)
    begun = np.concatenate([nets.first[rows].ravel(), nets.second[rows].ravel()])

    def error(result: Any) -> float:
        found = np.concatenate([as_array(weight)[rows].ravel() for weight in result.weights])
        worst = relative_error(found - begun, after[result.steps] - begun)
        if result.conditions is None:
            return worst
        shown = as_array(result.conditions)[:, rows]
        return max(worst, relative_error(shown / conditions[: len(shown)], np.ones_like(shown)) * 1e-2)

    def ours(how: Ours) -> Run:
        first, second = device.tensor(nets.first), device.tensor(nets.second)
        loss = hk.SquaredLoss(how.array(device.tensor(nets.X)), how.array(device.tensor(nets.Y)), backend=how.backend)
        networks = hk.NetworkStack([how.array(first), how.array(second)])
        kinds, every = (("loss", RECORD), EVERY) if record else (("loss",), 1)

        def run() -> TrainedEnsemble:
            runs = hk.fit_ensemble(
                networks, loss, lr=nets.rates, max_steps=steps, record=kinds, record_every=every, backend=how.backend
            )
            found = runs.history[RECORD] if record else None
            return TrainedEnsemble(steps, tuple(runs.weights), None if found is None else found.T)

        return run

    def torch_way(product: bool, graph: bool) -> Callable[[], Run]:
        return lambda: Loops(device, nets, product=product).train(few, graph=graph, record=record)

    note = f"gradients by hand, the first {few} of {steps} steps"
    peer = partial(device.peer, units=few * count)
    contestants = [
        device.ours("hesskern", ours, note=f"fit_ensemble, all {steps} steps", units=steps * count),
        peer("torch bmm in place", torch_way(False, False), note=note),
        peer("torch bmm in place, best association", torch_way(True, False), note=note),
        peer(GRAPH, torch_way(False, True), note=f"{CHUNK} steps a graph, {note}"),
        peer(f"{GRAPH}, best association", torch_way(True, True), note=f"{CHUNK} steps a graph, {note}"),
    ]
    if not record:
        contestants.append(
            peer("torch.func.vmap(grad)", lambda: vectorised(device, nets, few), note=f"the first {few} of {steps}")
        )
    contestants += floors.products(device, gradient_multiply_adds(size.reduced), np.float64)
    label = f"{count} networks, {size.label}, {steps} steps"
    ladder = f"{size.label}, {steps} steps"
    return TimedProblem(
        label=f"{label}, {RECORD} every {EVERY}" if record else label,
        contestants=contestants,
        error=error,
        tolerance=TOLERANCE,
        targets=[Target(contestant="hesskern", kind="faster", bound=20, than=GRAPH)] if count == COUNTS[-1] else [],
        rungs=[] if record else [Rung(ladder, "B", count)],
        memory=True,
    )
