"""The group "kill": training processes that are killed or interrupted at any moment, and resumed.

Each case forks: the child trains and saves often; it gets SIGKILL or SIGINT after a random time. What lies at the path
afterwards must be a whole checkpoint, and the run resumed from it the run that was never stopped, to the bit.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import hesskern as hk
from attack.judge import Judge

#: Seconds after which a child that was interrupted must have ended.
_PATIENCE = 30.0
#: How a child ends that was interrupted before its run began.
_TOO_EARLY = 3


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Kill one run; `everything` changes nothing."""
    rng = np.random.default_rng([4, seed])
    judge = Judge()
    chosen = ("cpp", "cpp", "numpy")[rng.integers(0, 3)]
    backend = backend or chosen
    net = hk.LinearNetwork.random([4, 6, 3], seed=int(rng.integers(0, 100)))
    loss = hk.SquaredLoss(rng.standard_normal((20, 4)), rng.standard_normal((20, 3)), "mean")
    steps = 4000 if backend == "cpp" else 600
    arguments: dict[str, Any] = {
        "lr": 1e-3, "max_steps": steps, "momentum": float(rng.choice([0.0, 0.5])), "backend": backend,
        "batch_size": [None, 7][rng.integers(0, 2)], "record_every": 5,
    }  # fmt: skip
    several = bool(rng.random() < 0.3)
    interrupt = bool(rng.random() < 0.4)
    delay = float(rng.uniform(0.0, 0.15))

    def trained(**more: Any) -> Any:
        if several:
            return hk.fit_ensemble([net, net], loss, threads=1, **arguments, **more)
        return hk.fit(net, loss, **arguments, **more)

    with judge.check(f"kill/{backend}"), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.npz"
        ready, started = os.pipe()
        child = os.fork()
        if child == 0:
            _train_and_exit(trained, path, started)
        os.close(started)
        os.read(ready, 1)
        os.close(ready)
        time.sleep(delay)
        os.kill(child, signal.SIGINT if interrupt else signal.SIGKILL)
        code = _ended(child)
        if code is None:
            judge.fail(f"does not end within {_PATIENCE} s of {'SIGINT' if interrupt else 'SIGKILL'}")
        elif interrupt:
            judge.true(code in (0, _TOO_EARLY), f"after SIGINT the child ended with {code}")
        whole = trained()
        if path.exists():
            again = trained(resume=path)
            one, other = ((each.weights if several else each.network.weights) for each in (again, whole))
            for found, wanted in zip(one, other, strict=True):
                judge.same(found, wanted, "weights of the resumed run")
            judge.same(again.history["loss"], whole.history["loss"], "history of the resumed run")
        else:
            judge.true(not interrupt or code == _TOO_EARLY, "no checkpoint after SIGINT")
        judge.true(len(os.listdir(folder)) <= 1 + (not interrupt), f"left behind: {os.listdir(folder)}")
    return judge


def _train_and_exit(trained: Any, path: Path, started: int) -> None:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(started, b"x")
        trained(checkpoint=path, checkpoint_every=3)
        code = 0
    except KeyboardInterrupt:
        code = _TOO_EARLY
    finally:
        os._exit(code)


def _ended(child: int) -> int | None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
