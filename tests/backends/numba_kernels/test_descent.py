"""Steps of SGD, jitted, against the plain loop, and where they stop."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

from hesskern.backends.data import Data
from hesskern.backends.protocol import Job, Update, Watch

pytest.importorskip("numba")
from hesskern.backends.numba_backend import BACKEND

STEPS = 6


def run(problem, lr, momentum=0.0, nesterov=False, rtol=-1.0):
    """Parameters at the end, how it stopped, how many steps had a finite loss, and the losses."""
    running = BACKEND.descent(
        problem.network(), Data(problem.X, None, problem.Y, 0.0), None, 0, scale=1.0, rtol=rtol,
        update=Update(momentum, nesterov, problem.weight_decay), watch=Watch(1, True, False, ()), ensemble=False,
    )  # fmt: skip
    losses = np.full(STEPS, np.nan)
    job = Job(np.full(STEPS, lr), np.ones(STEPS), None, None, losses, None, None, None)
    ((how, finite),) = BACKEND.advance([running], [job], 1)
    return running.parameters(), how, finite, losses


@pytest.mark.parametrize("method", [(0.0, False), (0.9, False), (0.9, True)])
def test_steps_are_those_of_the_plain_loop(method):
    problem = problems.normal([3, 5, 2], 8, bias=True, weight_decay=0.1)
    theta, how, finite, losses = run(problem, 0.01, *method)
    wanted = oracle.train(problem, 0.01, STEPS, momentum=method[0], nesterov=method[1])
    assert (how, finite) == ("running", STEPS)
    np.testing.assert_allclose(theta, wanted.thetas[-1], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(losses, wanted.losses[:-1], rtol=1e-12)


def test_a_run_ends_where_its_loss_is_small_enough():
    problem = problems.normal([3, 5, 2], 8)
    wanted = oracle.train(problem, 0.01, STEPS)
    share = wanted.losses[3] / wanted.losses[0]
    theta, how, finite, _ = run(problem, 0.01, rtol=share * (1 + 1e-9))
    assert how == "converged" and finite == 4
    np.testing.assert_allclose(theta, wanted.thetas[4], rtol=1e-12, atol=1e-13)


def test_a_run_that_overflows_goes_back_to_the_last_finite_loss():
    problem = problems.normal([3, 5, 2], 8)
    theta, how, finite, losses = run(problem, 1e60)
    assert how == "diverged" and 0 < finite < STEPS
    assert np.isfinite(theta).all() and np.isfinite(losses[:finite]).all()
    value, _ = oracle.loss_and_gradient(theta, problem)
    assert value == pytest.approx(losses[finite - 1], rel=1e-10)
