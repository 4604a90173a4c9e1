"""fit: the same updates as torch.optim.SGD, and what happens at the end of a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import oracle
import problems
import pytest
from conftest import child_environment

import hesskern as hk


def descend(problem, lr, steps, dtype=np.float64):
    """Gradient descent in plain loops over layers: losses before each step and the flat parameters after the last."""
    weights = [w.astype(dtype) for w in problem.weights]
    biases = [None if b is None else b.astype(dtype) for b in problem.biases]
    factor = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[problem.kind]
    decay, losses = problem.weight_decay, []
    for _ in range(steps):
        inputs = [problem.X]
        for weight, bias in zip(weights, biases, strict=True):
            inputs.append(inputs[-1] @ weight.T + (0 if bias is None else bias))
        residual = inputs.pop() - problem.Y
        theta = oracle.flatten(weights, biases)
        losses.append(0.5 * factor * np.sum(residual**2) + 0.5 * decay * np.sum(theta**2))
        delta = factor * residual
        for layer in reversed(range(len(weights))):
            weight, bias = weights[layer], biases[layer]
            below = delta @ weight
            weights[layer] = weight - lr * (delta.T @ inputs[layer] + decay * weight)
            if bias is not None:
                biases[layer] = bias - lr * (delta.sum(0) + decay * bias)
            delta = below
    return np.array(losses), oracle.flatten(weights, biases)


CONFIGURATIONS = [
    # widths, samples, bias, kind, weight decay, lr
    ([4, 7, 3], 9, False, "half_sum", 0.0, 0.01),
    ([4, 7, 3], 9, True, "mean", 0.1, 0.1),
    ([5, 4, 6, 3], 3, False, "sum", 0.05, 0.005),
    ([3, 8, 2, 5, 2], 40, True, "mean", 0.0, 0.1),
    ([6, 2], 20, True, "half_sum", 0.01, 0.01),
    ([1, 1, 1], 1, False, "half_sum", 0.0, 0.1),
    ([2, 30, 1], 5, True, "mean", 0.2, 0.005),
    ([280, 260, 270], 270, False, "mean", 0.0, 1.0),  # products above the BLAS threshold
]


@pytest.mark.parametrize(("widths", "samples", "bias", "kind", "decay", "lr"), CONFIGURATIONS)
def test_every_step_is_that_of_torch(backend, widths, samples, bias, kind, decay, lr):
    torch = pytest.importorskip("torch")
    problem = problems.normal(widths, samples, 3, bias=bias, kind=kind, weight_decay=decay)
    X, Y = torch.tensor(problem.X), torch.tensor(problem.Y)
    linears = [torch.nn.Linear(w.shape[1], w.shape[0], bias=bias, dtype=torch.float64) for w in problem.weights]
    model = torch.nn.Sequential(*linears)
    with torch.no_grad():
        for linear, weight, shift in zip(linears, problem.weights, problem.biases, strict=True):
            linear.weight.copy_(torch.tensor(weight))
            if shift is not None:
                linear.bias.copy_(torch.tensor(shift))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, weight_decay=decay)
    steps, losses = 30, []
    for _ in range(steps):
        optimizer.zero_grad()
        value = torch.nn.functional.mse_loss(model(X), Y, reduction="mean" if kind == "mean" else "sum")
        value = value * (0.5 if kind == "half_sum" else 1.0)
        value.backward()
        squares = sum(float((p.detach() ** 2).sum()) for p in model.parameters())
        losses.append(value.item() + 0.5 * decay * squares)
        optimizer.step()
    run = hk.fit(problem.network(), problem.loss(), lr=lr, max_steps=steps)
    # Stable rates contract errors: 30 steps add up to 30 roundings of sums of up to 100 terms.
    np.testing.assert_allclose(run.history["loss"], losses, rtol=1e-11)
    theta = torch.cat([p.detach().ravel() for p in model.parameters()]).numpy()
    np.testing.assert_allclose(run.network.flatten(), theta, rtol=0, atol=1e-12 * np.abs(theta).max())
    assert (run.status, run.steps) == ("max_steps", steps)
    np.testing.assert_array_equal(run.history["step"], np.arange(steps))


@pytest.mark.parametrize(("widths", "samples", "bias", "kind", "decay", "lr"), CONFIGURATIONS)
@pytest.mark.parametrize("reduce", ["auto", "none"])
def test_every_step_is_the_definition(backend, close, dtype, reduce, widths, samples, bias, kind, decay, lr):
    problem = problems.normal(widths, samples, 4, bias=bias, kind=kind, weight_decay=decay)
    losses, theta = descend(problem, lr, 40)
    run = hk.fit(problem.network(dtype), problem.loss(dtype), lr=lr, max_steps=40, reduce=reduce)
    assert run.network.dtype == dtype
    close(run.network.flatten(), theta, dtype)
    close(run.history["loss"], losses, dtype)
    rows = widths[0] + bias
    assert (run.reduction != "") == (reduce == "auto" and samples > rows)


def test_reduction_changes_nothing_but_rounding(backend):
    problem = problems.normal([4, 20, 3], 500, bias=True, kind="mean")
    runs = [hk.fit(problem.network(), problem.loss(), lr=0.1, max_steps=200, reduce=how) for how in ("auto", "none")]
    assert runs[0].reduction == "500 samples to 5 rows"
    assert runs[1].reduction == ""
    np.testing.assert_allclose(runs[0].history["loss"], runs[1].history["loss"], rtol=1e-12)
    np.testing.assert_allclose(runs[0].network.flatten(), runs[1].network.flatten(), rtol=0, atol=1e-12)


def test_the_network_given_is_not_changed(backend):
    problem = problems.normal([3, 4, 2], 6, bias=True)
    net = problem.network()
    before = net.flatten()
    run = hk.fit(net, problem.loss(), lr=0.01, max_steps=5)
    np.testing.assert_array_equal(net.flatten(), before)
    assert not np.array_equal(run.network.flatten(), before)


def test_rtol_stops_after_the_step_whose_loss_is_small_enough(backend):
    problem = problems.normal([3, 6, 2], 3)
    losses, _ = descend(problem, 0.05, 400)
    rtol = 1.0001 * losses[250] / losses[0]
    first = int(np.argmax(losses <= rtol * losses[0]))
    assert 200 < first <= 250
    run = hk.fit(problem.network(), problem.loss(), lr=0.05, max_steps=400, rtol=rtol)
    assert (run.status, run.steps) == ("converged", first + 1)
    assert len(run.history["loss"]) == first + 1
    assert run.history["loss"][-1] <= rtol * run.history["loss"][0] < run.history["loss"][-2]
    # The update of that step is made, as in a loop that tests the loss after optimizer.step().
    np.testing.assert_allclose(run.network.flatten(), descend(problem, 0.05, first + 1)[1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("max_steps", [1, 63, 64, 65, 200])
def test_max_steps_is_exact(backend, max_steps):
    problem = problems.normal([3, 6, 2], 3)
    run = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=max_steps)
    assert (run.status, run.steps, len(run.history["loss"])) == ("max_steps", max_steps, max_steps)
    np.testing.assert_allclose(run.history["loss"], descend(problem, 0.01, max_steps)[0], rtol=1e-11)


def test_rtol_one_and_a_perfect_start_converge_at_once(backend):
    problem = problems.normal([3, 6, 2], 3)
    run = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=10, rtol=1.0)
    assert (run.status, run.steps) == ("converged", 1)
    perfect = hk.SquaredLoss(np.eye(2), np.eye(2))
    run = hk.fit(hk.LinearNetwork([np.eye(2), np.eye(2)]), perfect, lr=0.1, max_steps=10, rtol=0.0)
    assert (run.status, run.steps) == ("converged", 1)
    np.testing.assert_array_equal(run.history["loss"], [0.0])


@pytest.mark.parametrize("every", [1, 2, 7, 64, 100, 1000])
def test_record_every(backend, every):
    problem = problems.normal([3, 6, 2], 3)
    whole = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=300).history
    thin = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=300, record_every=every).history
    np.testing.assert_array_equal(thin["step"], whole["step"][::every])
    np.testing.assert_array_equal(thin["loss"], whole["loss"][::every])


def test_record_nothing(backend):
    problem = problems.normal([3, 6, 2], 3)
    run = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=3, record=())
    assert "loss" not in run.history
    assert run.steps == 3


def check_diverged(run, losses, problem, tolerance=1e-9):
    """The run ends at the last finite loss and holds the history up to it."""
    finite = int(np.argmin(np.isfinite(losses)))
    assert not np.isfinite(losses[finite])
    assert run.status == "diverged"
    assert run.steps == finite - 1
    assert np.isfinite(run.network.flatten()).all()
    assert np.isfinite(run.history["loss"]).all()
    np.testing.assert_array_equal(run.history["step"], np.arange(finite))
    np.testing.assert_allclose(run.history["loss"], losses[:finite], rtol=tolerance)
    with np.errstate(over="ignore"):
        assert problem.loss()(run.network) == pytest.approx(losses[finite - 1], rel=tolerance)


@pytest.mark.parametrize(("lr", "bias"), [(0.05, False), (0.05, True), (0.3, False)])
def test_divergence_of_a_deep_net(backend, lr, bias):
    problem = problems.normal([4, 30, 3], 8, 1, bias=bias)
    with np.errstate(all="ignore"):
        losses, _ = descend(problem, lr, 120)
    assert not np.isfinite(losses[-1])
    # Each step of a catapult cubes the relative error of the one before: keep to a few before the overflow.
    check_diverged(hk.fit(problem.network(), problem.loss(), lr=lr, max_steps=1000), losses, problem)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 15, 31, 63, 64, 65, 127, 128, 129, 192, 193, 448])
def test_divergence_at_any_step(backend, step):
    """One layer diverges geometrically: the overflow can be put on any step, also where a piece of the run ends."""
    growth = 10.0 ** (308.25 / (2 * (step - 0.5)))
    problem = problems.Problem([np.ones((1, 1))], [None], np.ones((1, 1)), np.zeros((1, 1)))
    with np.errstate(all="ignore"):
        losses, _ = descend(problem, 1.0 + growth, step + 2)
    assert np.isfinite(losses[step - 1])
    assert not np.isfinite(losses[step])
    check_diverged(hk.fit(problem.network(), problem.loss(), lr=1.0 + growth, max_steps=1000), losses, problem)


def test_a_loss_that_is_infinite_from_the_start(backend):
    net = hk.LinearNetwork([np.full((1, 1), 1e200)])
    run = hk.fit(net, hk.SquaredLoss(np.ones((1, 1)), np.zeros((1, 1))), lr=0.1, max_steps=5)
    assert (run.status, run.steps) == ("diverged", 0)
    assert len(run.history["loss"]) == len(run.history["step"]) == 0
    np.testing.assert_array_equal(run.network.flatten(), net.flatten())


def test_divergence_in_float32(backend):
    problem = problems.normal([4, 30, 3], 8, 1)
    run = hk.fit(problem.network("float32"), problem.loss("float32"), lr=0.3, max_steps=1000)
    assert run.status == "diverged"
    assert 0 < run.steps < 20
    assert np.isfinite(run.network.flatten()).all()
    assert np.isfinite(run.history["loss"]).all()
    assert len(run.history["loss"]) == run.steps + 1


INTERRUPTED = """
import json, sys
import numpy as np, hesskern as hk
widths, samples, backend = json.loads(sys.argv[1])
rng = np.random.default_rng(0)
net = hk.LinearNetwork.random(widths, seed=0)
loss = hk.SquaredLoss(rng.standard_normal((samples, widths[0])), rng.standard_normal((samples, widths[-1])), "mean")
hk.fit(net, loss, lr=1e-3, max_steps=1, backend=backend, reduce="none")  # BLAS is loaded
print("running", flush=True)
run = hk.fit(net, loss, lr=1e-3, max_steps=10**9, record_every=3, backend=backend, reduce="none")
print("stopped", flush=True)
again = hk.fit(net, loss, lr=1e-3, max_steps=max(run.steps, 1), record_every=3, backend=backend, reduce="none")
same = float(np.abs(again.network.flatten() - run.network.flatten()).max()) if run.steps else 0.0
history = bool(np.allclose(again.history["loss"], run.history["loss"], rtol=1e-10)) if run.steps else True
print(json.dumps([run.status, run.steps, len(run.history["step"]), len(run.history["loss"]), same, history]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT")
@pytest.mark.parametrize(
    ("widths", "samples", "backend_name", "moved"),
    [
        ([5, 100, 5], 5, "cpp", True),
        ([5, 100, 5], 5, "numpy", True),
        ([500, 500, 500, 500], 700, "cpp", False),  # a step takes tens of milliseconds
    ],
)
def test_control_c_stops_within_a_second_and_keeps_what_was_reached(widths, samples, backend_name, moved):
    argument = json.dumps([widths, samples, backend_name])
    # Start-up of an interpreter in the background of a shell may ignore SIGINT: take Python's own handler.
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + INTERRUPTED
    with subprocess.Popen(
        [sys.executable, "-c", script, argument],
        env=child_environment(OPENBLAS_NUM_THREADS="1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        try:
            assert child.stdout.readline() == "running\n", child.stderr.read()
            time.sleep(0.4)
            began = time.perf_counter()
            os.kill(child.pid, signal.SIGINT)
            assert child.stdout.readline() == "stopped\n", child.stderr.read()
            took = time.perf_counter() - began
            output, errors = child.communicate(timeout=30)
        finally:
            child.kill()
    assert errors == ""
    status, steps, recorded_steps, recorded_losses, difference, same_history = json.loads(output)
    assert status == "interrupted"
    assert recorded_steps == recorded_losses == -(-steps // 3)
    assert same_history
    assert difference <= 1e-12  # same loop, same order of operations
    assert took < 1.0
    assert steps > 0 or not moved


def test_repr_says_how_it_ended():
    problem = problems.normal([3, 6, 2], 3)
    run = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=3)
    first, last = run.history["loss"][[0, -1]]
    assert repr(run) == f"Run(max_steps after 3 steps, loss {first:.6g} -> {last:.6g})"


def test_progress_bar(backend, capsys):
    pytest.importorskip("tqdm")
    problem = problems.normal([3, 6, 2], 3)
    plain = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=300)
    shown = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=300, progress=True)
    assert "300/300" in capsys.readouterr().err
    np.testing.assert_array_equal(plain.network.flatten(), shown.network.flatten())


def test_progress_without_tqdm_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    problem = problems.normal([3, 6, 2], 3)
    with pytest.raises(ImportError, match=r'progress=True needs tqdm.*pip install "hesskern\[progress\]"'):
        hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=3, progress=True)


def test_a_last_update_that_overflows_is_a_divergence(backend):
    case = hk.datasets.two_layer_case()
    loss = hk.SquaredLoss(case.X, case.Y)
    run = hk.fit(case.network, loss, lr=1e308, max_steps=1, backend=backend.name)
    assert (run.status, run.steps) == ("diverged", 0)
    np.testing.assert_array_equal(run.network.flatten(), case.network.flatten())


def test_a_run_without_losses_has_a_repr():
    case = hk.datasets.two_layer_case()
    run = hk.fit(case.network, hk.SquaredLoss(case.X, case.Y), lr=1e-6, max_steps=3, record=())
    assert repr(run) == "Run(max_steps after 3 steps)"
    assert list(run.history) == ["step"]
