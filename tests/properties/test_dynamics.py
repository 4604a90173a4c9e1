"""What theory says about training linear networks: catapult, balance, Saxe's curve, the edge of stability."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
import trainings
from looped import each, few_quick
from witness import relative

import hesskern as hk

# Catapult (Lewkowycz et al. 2020): f = v . u / sqrt(n), one sample x = 1, y = 0.


def catapult(n, eta_lambda, reduce, seed=0, steps=300):
    """Return the function f and the tangent kernel lambda at every step, and the learning rate."""
    rng = np.random.default_rng([55, seed])
    u, v = rng.standard_normal((n, 1)), rng.standard_normal((1, n))
    loss = hk.SquaredLoss(np.full((1, 1), n**-0.5), np.zeros((1, 1)))
    lr = eta_lambda * n / float(np.sum(u**2) + np.sum(v**2))
    run = hk.fit(hk.LinearNetwork([u, v]), loss, lr=lr, max_steps=steps, record=("weights", "loss"), reduce=reduce)
    rows = run.history["weights"]
    f = np.einsum("tk,tk->t", rows[:, :n], rows[:, n:]) / np.sqrt(n)
    return run, f, np.sum(rows**2, axis=1) / n, lr


@each("reduce", ["auto", "none"])
@pytest.mark.parametrize(
    ("n", "eta_lambda"), few_quick([pytest.param(n, e) for n in (3, 50, 1000) for e in (0.5, 1.9, 2.5, 3.9)], 4)
)
@pytest.mark.quick_in_cpp
def test_catapult_recursion(backend, n, eta_lambda, reduce):
    run, f, kernel, lr = catapult(n, eta_lambda, reduce)
    np.testing.assert_allclose(np.sqrt(2 * run.history["loss"]), np.abs(f), rtol=1e-13, atol=1e-14 * kernel.max())
    next_f = (1 - lr * kernel + lr**2 * f**2 / n) * f
    next_kernel = kernel + lr * f**2 / n * (lr * kernel - 4)
    size = np.abs(f[:-1]) * np.maximum(1.0, lr * kernel[:-1])
    assert (np.abs(f[1:] - next_f[:-1]) <= 1e-13 * np.maximum(size, kernel[:-1])).all()
    np.testing.assert_allclose(kernel[1:], next_kernel[:-1], rtol=1e-13)


@each("reduce", ["auto", "none"])
@each("seed", range(3), quick=1)
@pytest.mark.quick_in_cpp
def test_catapult_converges_below_four_and_diverges_above(backend, reduce, seed):
    run, f, kernel, lr = catapult(500, 3.9, reduce, seed, steps=3000)
    assert run.status == "max_steps"
    assert abs(f[-1]) < 1e-10
    assert np.abs(f).max() > 3 * abs(f[0])  # up first
    assert kernel[-1] < 2 / lr < kernel[0]  # and down to where it is flat enough
    run, *_ = catapult(500, 4.1, reduce, seed, steps=3000)
    assert run.status == "diverged"


# Balance: D = W_2.T W_2 - W_1 W_1.T, D+ = (1 - lr w)^2 D + lr^2 (g_2.T g_2 - g_1 g_1.T), exactly.


@each("reduce", ["auto", "none"])
@pytest.mark.parametrize(
    ("widths", "decay", "steps"),
    few_quick(
        [
            pytest.param([3, 12, 2], 0.0, 300),
            *(pytest.param(w, d, 2000) for w in ([3, 12, 2], [3, 4, 2], [3, 9, 4, 2]) for d in (0.0, 0.3)),
        ],
        1,
    ),
)
def test_balance_identity(backend, widths, decay, steps, reduce):
    problem = problems.normal(widths, 10, 3, weight_decay=decay)
    steps, lr = (min(steps, 300) if backend.name == "numpy" else steps), 0.5 / trainings.sharpness(problem)
    run = hk.fit(
        problem.network(), problem.loss(), lr=lr, max_steps=steps, record=("balance", "weights"), reduce=reduce
    )
    D = oracle.balance(problem.network().flatten(), problem)
    bare = problems.normal(widths, 10, 3)  # gradients without decay
    for k, theta in enumerate(run.history["weights"]):
        found = [float(np.linalg.norm(part)) for part in D]
        np.testing.assert_allclose(run.history["balance"][k], found, rtol=1e-11)
        g, _ = oracle.split(oracle.loss_and_gradient(theta, bare)[1], bare)
        D = [
            (1 - lr * decay) ** 2 * part + lr**2 * (above.T @ above - below @ below.T)
            for part, below, above in zip(D, g[:-1], g[1:], strict=True)
        ]


def test_balance_is_conserved_by_slow_descent_only(backend):
    """The flow conserves it: the drift at a fixed time is proportional to the learning rate."""
    problem = problems.normal([3, 8, 2], 10, 3, kind="mean")
    drifts = []
    for lr in (0.04, 0.02, 0.01):
        run = hk.fit(
            problem.network(), problem.loss(), lr=lr, max_steps=round(4 / lr) + 1, record=("balance", "weights")
        )
        ends = [oracle.balance(run.history["weights"][k], problem)[0] for k in (0, -1)]
        drifts.append(np.linalg.norm(ends[1] - ends[0]))
    assert drifts[0] / drifts[1] == pytest.approx(2.0, rel=0.1)
    assert drifts[1] / drifts[2] == pytest.approx(2.0, rel=0.1)


# Saxe et al. 2014: whitened inputs, aligned and balanced start: every mode learns by itself.

STRENGTHS = np.array([3.0, 2.0, 1.2])
START = 1e-3


def saxe(time):
    grown = np.exp(2 * STRENGTHS * time[:, None])
    return STRENGTHS * grown / (grown - 1 + STRENGTHS / START)


def mode_strengths(lr, until, reduce):
    rng = np.random.default_rng(8)
    U, V, R = (np.linalg.qr(rng.standard_normal((size, 3)))[0] for size in (4, 3, 10))
    root = np.sqrt(START) * np.eye(3)
    net = hk.LinearNetwork([R @ root @ V.T, U @ root @ R.T])
    X = np.linalg.qr(rng.standard_normal((20, 3)))[0]
    loss = hk.SquaredLoss(X, X @ (U @ np.diag(STRENGTHS) @ V.T).T)
    steps = round(until / lr) + 1
    every = max(1, steps // 40)
    run = hk.fit(net, loss, lr=lr, max_steps=steps, record=("weights",), record_every=every, reduce=reduce)
    found = []
    for row in run.history["weights"]:
        W1, W2 = net.unflatten(row).weights
        found.append(U.T @ W2 @ W1 @ V)
    return run.history["step"] * lr, np.array(found)


@each("reduce", ["auto", "none"])
def test_saxes_curve(backend, reduce):
    errors = []
    for lr in (0.008, 0.004) if backend.name == "numpy" else (0.002, 0.001):
        time, found = mode_strengths(lr, 5.0, reduce)
        diagonal = np.einsum("tkk->tk", found)
        assert np.abs(found - diagonal[:, :, None] * np.eye(3)).max() < 1e-11  # modes stay apart
        errors.append(np.abs(diagonal - saxe(time)).max())
        assert diagonal[-1] == pytest.approx(STRENGTHS, rel=0.02)  # all of them learned
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.15)  # Euler's method is of first order
    assert errors[1] < 10 * (0.004 if backend.name == "numpy" else 0.001)


# A quadratic: one layer.


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_one_layer_is_a_quadratic(backend, momentum):
    """Errors along eigenvectors of X.T X follow the two-term recursion of heavy ball."""
    problem = problems.normal([4, 3], 9, 5)
    values, vectors = np.linalg.eigh(problem.X.T @ problem.X)
    best = np.linalg.lstsq(problem.X, problem.Y, rcond=None)[0].T
    lr = 1.0 / values[-1]
    run = hk.fit(problem.network(), problem.loss(), lr=lr, max_steps=80, momentum=momentum, record=("weights",))
    errors = (run.history["weights"].reshape(-1, 3, 4) - best) @ vectors
    expected = [errors[0], (1 - lr * values) * errors[0]]
    for _ in range(78):
        expected.append((1 + momentum - lr * values) * expected[-1] - momentum * expected[-2])
    relative(errors, np.array(expected), 1e-13)


@pytest.mark.parametrize(("fraction", "stable"), [(0.999, True), (1.001, False)])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
@pytest.mark.quick_in_cpp
def test_the_threshold_of_stability(backend, momentum, fraction, stable):
    """Heavy ball on a quadratic is stable up to 2 (1 + momentum) / lambda_max, without momentum up to 2/lambda_max."""
    problem = problems.normal([4, 3], 9, 5)
    top = trainings.sharpness(problem)
    lr = fraction * 2 * (1 + momentum) / top
    run = hk.fit(
        problem.network(), problem.loss(), lr=lr, max_steps=6000, momentum=momentum, record=("loss", "sharpness"),
        record_every=50,
    )  # fmt: skip
    np.testing.assert_allclose(run.history["sharpness"], top, rtol=1e-10)
    best = problem.Y - problem.X @ np.linalg.lstsq(problem.X, problem.Y, rcond=None)[0]
    excess = run.history["loss"] - 0.5 * np.sum(best**2)
    assert (excess[-1] < excess[20]) == stable
    assert (run.history["2/lr"] > run.history["sharpness"]).all() == (stable and momentum == 0.0)
