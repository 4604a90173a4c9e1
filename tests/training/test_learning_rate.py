"""Learning rates that change: arrays and functions of the step."""

from __future__ import annotations

import math

import numpy as np
import oracle
import problems
import pytest
from looped import few_quick
from trainings import METHODS, by_torch, rate, training
from witness import relative

import hesskern as hk


def cosine(step):
    return 0.5 * (1.0 + math.cos(math.pi * step / 60))


SCHEDULES = {
    "cosine": cosine,
    "warm-up": lambda step: min(1.0, (step + 1) / 10),
    "steps": lambda step: 0.5 ** (step // 20),
    "off and on": lambda step: float(step % 3 > 0),
}


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("method", few_quick(METHODS, 2))
@pytest.mark.quick_in_cpp
def test_every_step_is_that_of_torch(backend, method, schedule, as_array):
    problem, most = training("wide with biases", 3), rate("wide with biases", 3)

    def lr(step):
        return most * SCHEDULES[schedule](step)

    expected = by_torch(problem, lr, 60, **METHODS[method])
    given = np.array([lr(step) for step in range(60)]) if as_array else lr
    run = hk.fit(
        problem.network(), problem.loss(), lr=given, max_steps=60, record=("loss", "weights"), **METHODS[method]
    )
    relative(run.history["weights"], expected.thetas[:-1])
    relative(run.network.flatten(), expected.thetas[-1])


def test_it_is_what_a_scheduler_of_torch_does(backend):
    torch = pytest.importorskip("torch")
    problem = problems.normal([4, 6, 3], 9)
    model = problem.network()
    linears = [torch.nn.Linear(w.shape[1], w.shape[0], bias=False, dtype=torch.float64) for w in model.weights]
    with torch.no_grad():
        for linear, weight in zip(linears, model.weights, strict=True):
            linear.weight.copy_(torch.tensor(weight))
    chain = torch.nn.Sequential(*linears)
    optimizer = torch.optim.SGD(chain.parameters(), lr=0.01, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.97)
    for _ in range(50):
        optimizer.zero_grad()
        (0.5 * ((chain(torch.tensor(problem.X)) - torch.tensor(problem.Y)) ** 2).sum()).backward()
        optimizer.step()
        scheduler.step()
    theta = torch.cat([p.detach().ravel() for p in chain.parameters()]).numpy()
    run = hk.fit(
        model, problem.loss(), lr=lambda step: 0.01 * 0.97**step, max_steps=50, momentum=0.9
    )  # fmt: skip
    relative(run.network.flatten(), theta)


def test_a_constant_in_any_form(backend):
    problem = problems.normal([3, 9, 2], 6, bias=True)
    forms = [0.01, np.full(70, 0.01), np.full(90, 0.01), [0.01] * 70, lambda step: 0.01, lambda step: np.float64(0.01)]
    ends = [
        hk.fit(problem.network(), problem.loss(), lr=lr, max_steps=70, momentum=0.5).network.flatten() for lr in forms
    ]
    for end in ends[1:]:
        np.testing.assert_array_equal(end, ends[0])


def test_the_function_is_asked_for_every_step_in_order(backend):
    problem = problems.normal([3, 4, 2], 6)
    asked = []

    def lr(step):
        asked.append(step)
        return 0.01

    run = hk.fit(problem.network(), problem.loss(), lr=lr, max_steps=200)
    assert run.steps == 200
    assert all(type(step) is int for step in asked)
    assert sorted(set(asked)) == list(range(200))
    assert asked == sorted(asked)


def test_a_rate_of_zero_stands_still(backend):
    problem = problems.normal([3, 9, 2], 6)
    lr = np.full(20, 0.01)
    lr[5:] = 0.0
    run = hk.fit(problem.network(), problem.loss(), lr=lr, max_steps=20, record=("weights", "loss"), momentum=0.9)
    weights = run.history["weights"]
    assert (weights[5:] == weights[5]).all()
    assert (weights[4] != weights[5]).any()
    np.testing.assert_array_equal(run.network.flatten(), weights[5])
    assert (run.history["loss"][5:] == run.history["loss"][5]).all()


def test_two_over_the_rate_stands_beside_the_sharpness(backend):
    problem = problems.normal([3, 4, 2], 6)
    lr = 0.01 * np.linspace(1, 2, 20)
    lr[7] = 0.0
    for given in (lr, lambda step: lr[step]):
        run = hk.fit(problem.network(), problem.loss(), lr=given, max_steps=20, record=("sharpness",), record_every=7)
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(run.history["2/lr"], (2 / lr)[::7], rtol=1e-15)
        assert "loss" not in run.history
    constant = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=20, record=("2/lr",), record_every=7)
    np.testing.assert_allclose(constant.history["2/lr"], [200.0] * 3, rtol=1e-15)


def test_the_array_is_read_when_it_is_given(backend):
    problem = problems.normal([3, 4, 2], 6)
    lr = np.full(10, 0.01)
    before = lr.copy()
    run = hk.fit(problem.network(), problem.loss(), lr=lr, max_steps=10)
    np.testing.assert_array_equal(lr, before)
    expected = oracle.train(problem, 0.01, 10).thetas[-1]
    relative(run.network.flatten(), expected)
    strided = np.repeat(lr, 3)[::3]
    again = hk.fit(problem.network(), problem.loss(), lr=strided, max_steps=10)
    np.testing.assert_array_equal(again.network.flatten(), run.network.flatten())


def test_integers_and_single_precision_are_numbers_too(backend):
    problem = problems.normal([3, 4, 2], 6)
    expected = hk.fit(problem.network(), problem.loss(), lr=np.zeros(3), max_steps=3).network.flatten()
    found = hk.fit(problem.network(), problem.loss(), lr=np.zeros(3, dtype=int), max_steps=3).network.flatten()
    np.testing.assert_array_equal(found, expected)
    rates = np.array([0.01, 0.03, 0.02], dtype=np.float32)
    ends = [
        hk.fit(problem.network(), problem.loss(), lr=lr, max_steps=3).network.flatten()
        for lr in (rates, rates.astype(np.float64))
    ]
    np.testing.assert_array_equal(*ends)


def test_an_error_in_the_function_comes_out_as_it_is(backend):
    problem = problems.normal([3, 4, 2], 6)

    def lr(step):
        if step >= 30:
            raise ZeroDivisionError(f"at step {step}")
        return 0.01

    with pytest.raises(ZeroDivisionError, match="at step 30"):
        hk.fit(problem.network(), problem.loss(), lr=lr, max_steps=100)


@pytest.mark.parametrize("rates", [[0.1, [0.2, 0.3]], lambda step: [0.1, [0.2, 0.3]]])
def test_rows_of_unequal_length_get_a_sentence_of_ours(rates):
    problem = problems.normal([3, 4, 2], 8)
    nets = [problem.network()] * 2
    with pytest.raises(TypeError, match=r"^lr(\(0\))? is a list that is not an array; expected numbers, in rows"):
        hk.fit_ensemble(nets, problem.loss(), lr=rates, max_steps=2)
