"""The same bits for a seed, a backend and an instruction set, whatever the number of threads."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from children import child_environment
from looped import few_quick

SCRIPT = """
import hashlib, json, sys
import numpy as np, hesskern as hk
backend, threads, dtype = map(json.loads, sys.argv[1:])
cases = {
    "large, full batch": ([400, 500, 300], 450, dict(lr=0.2, max_steps=4)),
    "large, all layers reduced": ([60, 900, 50], 2000, dict(lr=0.2, max_steps=30, momentum=0.9)),
    "large, batches": ([300, 400, 200], 600, dict(lr=0.1, max_steps=8, batch_size=250, nesterov=True, momentum=0.5)),
    "deep, sharpness": ([40, 90, 70, 30], 300, dict(lr=0.1, max_steps=6, record=["loss", "sharpness"], reduce="none")),
    "block": ([150, 300, 100], 200, dict(lr=0.1, max_steps=2, record=["loss", "condition[1.weight]"])),
}
if backend == "numpy":  # dense eigenproblems of a size that takes minutes
    del cases["deep, sharpness"]
digests = {}


def take(found, *arrays):
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())


for name, (widths, samples, options) in cases.items():
    found = digests[name] = hashlib.sha256()
    rng = np.random.default_rng(5)
    X, Y = rng.standard_normal((samples, widths[0])), rng.standard_normal((samples, widths[-1]))
    loss = hk.SquaredLoss(X.astype(dtype), Y.astype(dtype), "mean")
    nets = [hk.LinearNetwork.random(widths, seed=k, dtype=np.dtype(dtype).type) for k in range(2)]
    run = hk.fit(nets[0], loss, backend=backend, **options)
    take(found, run.network.flatten(), *(run.history[key] for key in sorted(run.history)))
    assert np.isfinite(run.network.flatten()).all()
    if backend == "cpp" and name != "block":
        runs = hk.fit_ensemble(nets, loss, backend=backend, threads=threads, **options)
        take(found, *runs.weights, *(runs.history[key] for key in sorted(runs.history)))
        assert (runs.network(0).flatten() == run.network.flatten()).all()
print(json.dumps({name: found.hexdigest() for name, found in digests.items()}))
"""


CASES = [pytest.param(name, dtype) for name in ("cpp", "numba", "numpy") for dtype in ("float64", "float32")]


@pytest.mark.parametrize(("backend_name", "dtype"), few_quick(CASES, 0))
def test_threads_of_blas_and_of_the_ensemble(backend_name, dtype):
    """One process for each number of threads, which BLAS reads when it is loaded; only C++ has threads of its own."""
    seen = []
    for blas, threads in (("1", 1), ("2", 2), ("4", 3))[:: 1 if backend_name == "cpp" else 2]:
        variables = {f"{library}_NUM_THREADS": blas for library in ("OPENBLAS", "OMP", "MKL")}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *map(json.dumps, (backend_name, threads, dtype))],
            env=child_environment(**variables), capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        seen.append(json.loads(done.stdout))
    assert len(seen[0]) == (4 if backend_name == "numpy" else 5)
    for other in seen[1:]:
        assert other == seen[0]
