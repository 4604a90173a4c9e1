"""Ctrl-C: the run stops within a second, keeps what was reached, and can be resumed.

The second is one of the child's own processor time, not of the clock: on a busy machine the child may have to wait.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from children import BY, child, train
from looped import few_quick
from scipy.linalg import lapack
from trainings import same

import hesskern as hk
from hesskern._base import decompositions
from hesskern._base.interrupt import interruptibly

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
@pytest.mark.quick_in_cpp
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
@pytest.mark.quick_in_cpp
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


def test_the_first_ctrl_c_leaves_a_long_call_of_a_recorded_hessian(monkeypatch):
    """What is recorded between steps may take hours; the run ends with what it has."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    asked, let_go = [], threading.Event()

    def endless(matrix):
        asked.append(len(matrix))
        if len(asked) < 3:
            return np.linalg.eigvalsh(matrix)
        threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
        return interruptibly(let_go.wait, 300.0, seconds=300.0)

    monkeypatch.setattr(decompositions, "eigvalsh", endless)
    net = hk.LinearNetwork.random([3, 2, 3], seed=0)
    rng = np.random.default_rng(0)
    loss = hk.SquaredLoss(rng.standard_normal((9, 3)), rng.standard_normal((9, 3)))
    try:
        run = hk.fit(net, loss, lr=1e-3, max_steps=50, record=("loss", "condition"), reduce="none")
    finally:
        let_go.set()
    assert (run.status, run.steps) == ("interrupted", 2)
    assert len(run.history["condition"]) == len(run.history["loss"]) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("call", ["graded_svdvals", "condition"])
def test_ctrl_c_out_of_jacobis_method(call):
    """SciPy's wrapper of dgejsv holds the GIL: Ctrl-C would be seen when it has ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((700, 700))
    H = hk.SquaredLoss(matrix, matrix, backend="numpy").hessian(hk.LinearNetwork([matrix]))
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        decompositions.graded_svdvals(matrix) if call == "graded_svdvals" else H.condition()
    left = [thread for thread in threading.enumerate() if thread.name == "hesskern-call"]
    assert left and all(thread.is_alive() for thread in left)
    for thread in left:
        thread.join()


def test_jacobis_method_is_that_of_scipy():
    rng = np.random.default_rng(1)
    for size in (1, 2, 5, 30):
        matrix = rng.standard_normal((size, size)) * 10.0 ** rng.uniform(-40, 40, size)
        before = matrix.copy()
        found, _, _, work, _, _ = lapack.dgejsv(matrix, joba=0, jobu=3, jobv=3, jobr=0, jobt=1, jobp=1)
        np.testing.assert_array_equal(decompositions.graded_svdvals(matrix), found * (work[0] / work[1]))
        np.testing.assert_array_equal(matrix, before)
