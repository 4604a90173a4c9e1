"""Ctrl-C: the run stops within a second, keeps what was reached, and can be resumed.

The second is one of the child's own processor time, not of the clock: on a busy machine the child may have to wait.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import numpy as np
import psutil
import pytest
from children import BY, child, train
from looped import few_quick
from test_checkpoint import same

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGINT")


#: What a script prints when it has stopped: the processor time that it has used, of all its threads.
STOPPED = """
import time
print("stopped", time.process_time(), flush=True)
"""


def used(process):
    """Return the processor time that a child has used."""
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def interrupt(process, after):
    """Interrupt a script once it has computed for `after` seconds of processor time; return its last line and the
    processor time that it went on for.
    """
    assert process.stdout.readline() == "running\n", process.stderr.read()
    enough = used(process) + after
    while used(process) < enough:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    before = used(process)
    os.kill(process.pid, signal.SIGINT)
    word, _, at = process.stdout.readline().partition(" ")
    assert word == "stopped", process.stderr.read()
    answer = process.stdout.readline()
    assert process.wait(600) == 0, process.stderr.read()
    assert process.stderr.read() == ""
    return json.loads(answer), float(at) - before


FIT = (
    """
import json
import numpy as np, hesskern as hk
widths, samples, options = map(json.loads, sys.argv[1:])
rng = np.random.default_rng(0)
net = hk.LinearNetwork.random(widths, seed=0)
loss = hk.SquaredLoss(rng.standard_normal((samples, widths[0])), rng.standard_normal((samples, widths[-1])), "mean")
options |= dict(lr=1e-3, record_every=3, reduce="none")
hk.fit(net, loss, max_steps=1, **options)  # BLAS is loaded
print("running", flush=True)
run = hk.fit(net, loss, max_steps=10**9, **options)
"""
    + STOPPED
    + """
same = history = True
if run.steps:
    again = hk.fit(net, loss, max_steps=run.steps, **options)
    same = bool((again.network.flatten() == run.network.flatten()).all())
    history = all(np.array_equal(run.history[name], again.history[name]) for name in again.history)
print(json.dumps([run.status, run.steps, {name: len(values) for name, values in run.history.items()}, same, history]))
"""
)


@pytest.mark.parametrize(
    ("widths", "samples", "options", "moved"),
    few_quick(
        [
            pytest.param(*case)
            for case in [
                ([5, 100, 5], 5, {"backend": "cpp"}, True),
                ([5, 100, 5], 5, {"backend": "cpp", "record": ["loss", "sharpness"], "momentum": 0.5}, True),
                (
                    [5, 100, 5],
                    50,
                    {"backend": "cpp", "record": ["loss", "batch_loss", "condition[1]"], "batch_size": 7},
                    True,
                ),
                ([5, 100, 5], 5, {"backend": "numpy"}, True),
                ([5, 20, 5], 50, {"backend": "numpy", "batch_size": 7, "record": ["loss", "gradient_norm"]}, True),
                ([500, 500, 500, 500], 700, {"backend": "cpp"}, False),  # a step takes tens of milliseconds
            ]
        ],
        3,
    ),
)
def test_it_stops_within_a_second_and_keeps_what_was_reached(widths, samples, options, moved):
    with child(FIT, widths, samples, options) as process:
        (status, steps, lengths, same_network, same_history), went_on = interrupt(process, 0.4)
    assert status == "interrupted"
    assert set(lengths.values()) == {-(-steps // 3)}
    assert same_network  # whole updates, none half done
    assert same_history
    assert went_on < 1.0
    assert steps > 0 or not moved


ENSEMBLE = (
    """
import json
import numpy as np, hesskern as hk
backend, batch_size, threads = map(json.loads, sys.argv[1:])
rng = np.random.default_rng(0)
nets = [hk.LinearNetwork.random([5, 20, 5], seed=k) for k in range(6)]
loss = hk.SquaredLoss(rng.standard_normal((9, 5)), rng.standard_normal((9, 5)), "mean")
lr = np.array([1e-3, 2e-3, 1e9, 1e-3, 3e-3, 5e-3])
options = dict(record_every=1000, backend=backend, batch_size=batch_size)
hk.fit_ensemble(nets, loss, max_steps=2, lr=lr, threads=threads, **options)
print("running", flush=True)
runs = hk.fit_ensemble(nets, loss, max_steps=10**9, lr=lr, threads=threads, **options)
"""
    + STOPPED
    + """
same = []
for b, net in enumerate(nets):
    if runs.status[b] == "interrupted" and runs.steps[b]:
        again = hk.fit_ensemble([net], loss, max_steps=int(runs.steps[b]), lr=lr[b : b + 1], **options)
        same.append(bool((again.network(0).flatten() == runs.network(b).flatten()).all()))
        count = again.history["loss"].shape[1]
        same.append(bool((again.history["loss"][0] == runs.history["loss"][b, :count]).all()))
print(json.dumps([runs.status.tolist(), runs.steps.tolist(), same]))
"""
)


@pytest.mark.parametrize(
    ("backend_name", "batch_size", "threads"),
    few_quick(
        [pytest.param(*case) for case in [("cpp", None, 1), ("cpp", 2, 2), ("numba", 2, 2), ("numpy", 4, None)]], 3
    ),
)
def test_ensembles(backend_name, batch_size, threads):
    with child(ENSEMBLE, backend_name, batch_size, threads) as process:
        (status, steps, same_bits), went_on = interrupt(process, 0.3)
    assert status == ["interrupted", "interrupted", "diverged", "interrupted", "interrupted", "interrupted"]
    assert min(steps[:2] + steps[3:]) > 0
    assert len(same_bits) == 10
    assert all(same_bits)
    assert went_on < 1.0 * (threads or 1)


SAVED = (
    """
import json
import numpy as np
from children import train
name, path, every, options = map(json.loads, sys.argv[1:])
train(name, max_steps=2, **options)
print("running", flush=True)
run = train(name, max_steps=10**9, checkpoint=path, checkpoint_every=every, **options)
"""
    + STOPPED
    + """
print(json.dumps([np.array(run.status).tolist(), np.array(run.steps).tolist()]))
"""
)


@pytest.mark.parametrize(
    ("name", "backend_name", "every"),
    [*few_quick([pytest.param(*by, None) for by in BY], 6), ("minibatches", "cpp", 10**8)],
)
def test_a_last_checkpoint_is_written(tmp_path, name, backend_name, every):
    path = tmp_path / "state.npz"
    options = {"backend": backend_name, "record_every": 500}
    with child(SAVED, name, str(path), every, options) as process:
        (status, steps), _ = interrupt(process, 0.2)
    assert "interrupted" in np.atleast_1d(status)
    assert np.max(steps) > 0
    reached = train(name, resume=path, max_steps=1, **options)
    np.testing.assert_array_equal(reached.steps, steps)
    further = int(np.max(steps)) + 300
    same(train(name, resume=path, max_steps=further, **options), train(name, max_steps=further, **options))
    assert os.listdir(tmp_path) == ["state.npz"]


def test_ctrl_c_in_the_function_of_the_learning_rate(backend):

    def lr(step):
        if step == 30:
            raise KeyboardInterrupt
        return 1e-4

    run = train("full width", max_steps=100, lr=lr)
    assert run.status == "interrupted"
    assert run.steps <= 30
    assert len(run.history["loss"]) == run.steps
    if run.steps:
        expected = train("full width", max_steps=run.steps, lr=1e-4)
        np.testing.assert_array_equal(run.network.flatten(), expected.network.flatten())
