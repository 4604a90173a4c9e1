"""Networks one step of gradient descent before and after, against the definition of a step."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

from hesskern.explanation.given.gradient_steps import after, before, known_steps, step_cause

RATE = 0.02


@pytest.fixture
def case():
    problem = problems.normal([3, 4, 2], 8, bias=True, kind="mean")
    return problem, problem.network(), problem.loss()


def stepped(theta, problem, rate=RATE):
    return theta - rate * oracle.loss_and_gradient(theta, problem)[1]


def test_the_step_after(case):
    problem, net, loss = case
    np.testing.assert_allclose(after(net, loss, RATE).flatten(), stepped(net.flatten(), problem), rtol=1e-12)


def test_the_step_before_leads_here(case):
    problem, net, loss = case
    found = before(net, loss, RATE).flatten()
    np.testing.assert_allclose(stepped(found, problem), net.flatten(), rtol=1e-11, atol=1e-12)
    assert not np.allclose(found, net.flatten())


def test_steps_of_a_loss_with_weight_decay(case):
    problem, net, loss = case
    decayed = problems.Problem(problem.weights, problem.biases, problem.X, problem.Y, "mean", 0.5)
    stale, ahead = known_steps(net, loss, 0.5, RATE)
    assert stale.causes[0].key == "stale" and ahead.causes[0].key == "step-ahead"
    np.testing.assert_allclose(ahead.net.flatten(), stepped(net.flatten(), decayed), rtol=1e-12)
    np.testing.assert_allclose(stepped(stale.net.flatten(), decayed), net.flatten(), rtol=1e-11, atol=1e-12)


def test_causes_say_the_rate_and_where_it_comes_from():
    assert "lr = 0.02 (estimated)" in step_cause(0.02, ahead=True, estimated=True).words
    assert "estimated" not in step_cause(0.02, ahead=False, estimated=False).words
    assert "after optimizer.step()" in step_cause(0.02, ahead=False, estimated=False).fix
