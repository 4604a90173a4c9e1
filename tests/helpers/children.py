"""Trainings in a process of their own, to be interrupted or killed, and the same ones here.

The children import this file: nothing that is slow to load.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from checkout import HELPERS

import hesskern as hk

#: name -> widths, samples, options; "nets" makes an ensemble of as many.
TRAININGS = {
    "momentum, sharpness": {
        "widths": [4, 12, 3], "lr": 2e-4, "momentum": 0.9, "record": ["loss", "sharpness", "weights"],
    },
    "minibatches": {
        "widths": [4, 12, 5, 3], "lr": 1e-4, "momentum": 0.5, "nesterov": True, "batch_size": 4, "seed": 3,
        "record": ["loss", "batch_loss", "distance", "condition[0]"],
    },
    "full width": {"widths": [4, 12, 3], "lr": 1e-4, "reduce": "none", "record": ["loss", "balance"]},
    "ensemble": {
        "widths": [4, 12, 3], "nets": 5, "lr": [2e-4, 1e-9, 1e9, 3e-4, 1e-8], "rtol": 0.5, "momentum": 0.5,
        "record": ["loss", "sharpness"],
    },
    "ensemble, minibatches": {
        "widths": [4, 12, 3], "nets": 4, "lr": 1e-4, "batch_size": 4, "seed": [1, 2, 3, 4], "momentum": 0.9,
        "record": ["loss", "weights"],
    },
}  # fmt: skip


#: Each of them by C++ and NumPy; by Numba, which is slow to start and shares all but the steps, one of each kind.
BY = [(name, backend) for name in TRAININGS for backend in ("cpp", "numpy")]
BY += [("momentum, sharpness", "numba"), ("ensemble, minibatches", "numba")]


def train(name: str, **options: object) -> hk.Run:
    """Train one of them."""
    training = dict(TRAININGS[name])
    widths, nets = training.pop("widths"), training.pop("nets", None)
    rng = np.random.default_rng(12)
    X, Y = rng.standard_normal((10, widths[0])), rng.standard_normal((10, widths[-1]))
    loss = hk.SquaredLoss(X, Y, weight_decay=0.01)
    options = training | options
    if nets is None:
        return hk.fit(hk.LinearNetwork.random(widths, seed=0, bias=True), loss, **options)
    starts = [hk.LinearNetwork.random(widths, seed=seed, bias=True) for seed in range(nets)]
    return hk.fit_ensemble(starts, loss, **options)


def child_environment(**variables: str | None) -> dict[str, str]:
    """The environment of a child: ours without HESSKERN_*, with these variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HESSKERN_")}
    root = str(Path(hk.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    for name, value in variables.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return environment


@contextlib.contextmanager
def child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a script that can import this file; it ends with the block at the latest."""
    # A shell may have told its background jobs to ignore SIGINT: take Python's own handler.
    start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    start += f"sys.path.insert(0, {str(HELPERS)!r})\n"
    command = [sys.executable, "-c", start + script, *map(json.dumps, arguments)]
    environment = child_environment(OPENBLAS_NUM_THREADS="1")
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
