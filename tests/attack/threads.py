"""The group "thread": one operator, loss and network in several threads, backends by thread, and forks meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import hesskern as hk
from attack import generator
from attack.judge import Judge
from attack.methods import DENSE

#: Seconds that a child may take for a product of a few milliseconds.
_PATIENCE = 10.0


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Run one of the kinds of this group; `everything`: all of them."""
    rng = np.random.default_rng([5, seed])
    judge = Judge()
    kinds: list[Callable[..., None]] = [_shared, _shared, _backends, _forked]
    drawn = int(rng.integers(0, len(kinds)))
    for kind in kinds[1:] if everything else [kinds[drawn]]:
        with judge.check(f"threads {kind.__name__[1:]}/{backend or 'cpp'}"):
            kind(rng, backend or "cpp", judge)
    return judge


def _small(rng: np.random.Generator) -> generator.RandomProblem:
    problem = generator.draw(rng)
    while sum(weight.size for weight in problem.weights) > DENSE or problem.family in ("scaled", "graded"):
        problem = generator.draw(rng)
    return problem


def _shared(rng: np.random.Generator, backend: str, judge: Judge) -> None:
    """Everything of one operator, loss and network at once: the same bits as one after the other."""
    problem = _small(rng)
    net, loss = problem.network(), problem.loss(backend)
    size = len(generator.positions(problem, problem.params))
    v = rng.standard_normal(size).astype(problem.X.dtype)
    V = rng.standard_normal((size, 5)).astype(problem.X.dtype)

    def calls(net: hk.LinearNetwork, loss: hk.SquaredLoss) -> list[Callable[[], Any]]:
        hessian = loss.hessian(net, problem.params)

        def trained() -> np.ndarray:
            return hk.fit(net, loss, lr=1e-3, max_steps=5).network.flatten()

        return [
            lambda: hessian @ v, lambda: hessian @ V, hessian.toarray, hessian.diagonal, hessian.eigvalsh,
            lambda: loss.gradient(net), lambda: loss(net), lambda: hessian.condition().value,
            trained, lambda: net.forward(problem.X),
        ]  # fmt: skip

    wanted = [call() for call in calls(problem.network(), problem.loss(backend))]
    together = calls(net, loss)
    orders = [rng.permutation(len(together)) for _ in range(4)]
    barrier, wrong = threading.Barrier(len(orders)), []

    def work(order: np.ndarray) -> None:
        try:
            barrier.wait()
            for which in order:
                if not np.array_equal(np.asarray(together[which]()), np.asarray(wanted[which]), equal_nan=True):
                    wrong.append(f"call {which} differs from that of one thread")
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")

    _all(work, orders)
    judge.true(not wrong, "; ".join(sorted(set(wrong))) + f" [{problem}]")


def _backends(rng: np.random.Generator, backend: str, judge: Judge) -> None:
    """`use_backend` in a ``with`` block holds in its own thread, and only there."""
    before = hk.info()["backend"]
    names = [str(rng.choice(["cpp", "numpy"])) for _ in range(4)]
    rounds = [rng.uniform(0, 2e-3, 6) for _ in names]
    wrong: list[str] = []

    def work(number: int) -> None:
        for pause in rounds[number]:
            with hk.use_backend(names[number]):
                time.sleep(pause)
                if hk.info()["backend"] != names[number]:
                    wrong.append(f"asked for {names[number]}, has {hk.info()['backend']}")
            time.sleep(pause / 2)

    _all(work, range(len(names)))
    judge.true(not wrong, "; ".join(sorted(set(wrong))))
    judge.true(hk.info()["backend"] == before, f"the process is left with {hk.info()['backend']}")
    hk.use_backend(None)


def _forked(rng: np.random.Generator, backend: str, judge: Judge) -> None:
    """A fork while other threads compute: the child computes the same, and ends."""
    problem = _small(rng)
    net, loss = problem.network(), problem.loss(backend)
    hessian = loss.hessian(net)
    V = rng.standard_normal((hessian.shape[0], 40)).astype(problem.X.dtype)
    wanted = hessian @ V
    stop = threading.Event()

    def work(_: int) -> None:
        while not stop.is_set():
            hessian @ V
            loss.gradient(net)

    workers = [threading.Thread(target=work, args=(k,), daemon=True) for k in range(3)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(4):
            time.sleep(float(rng.uniform(0, 2e-3)))
            child = os.fork()
            if child == 0:
                signal.alarm(int(_PATIENCE))
                same = np.array_equal(hessian @ V, wanted) and np.isfinite(loss(net))
                os._exit(0 if same else 7)
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            judge.true(
                code == 0, f"the child {'hangs' if code == -signal.SIGALRM else f'ended with {code}'} [{problem}]"
            )
            if code:
                break
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def _all(work: Callable[[Any], None], arguments: Any) -> None:
    workers = [threading.Thread(target=work, args=(argument,)) for argument in arguments]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
