"""The question: in float64 and without weight decay inside, the true Hessian with it; and what is no question."""

from __future__ import annotations

import corruptions
import judged
import numpy as np
import pytest

import hesskern as hk
from hesskern.explanation.given.question import Question


@pytest.fixture
def problem():
    return corruptions.random_problem(4)  # with weight decay


@pytest.mark.parametrize("params", [None, [0]])
def test_the_true_matrix_and_spectrum_have_the_weight_decay(problem, params):
    assert problem.decay > 0
    net, loss = judged.given(problem)
    question = Question(net, loss, params, (), None, None)
    names = problem.names if params is None else [name for name in problem.names if name.startswith("0.")]
    wanted = corruptions.hessian(problem, names)
    size = np.abs(wanted).max()
    np.testing.assert_allclose(question.true_matrix(), wanted, rtol=0, atol=1e-12 * size)
    np.testing.assert_allclose(question.true_spectrum(), np.linalg.eigvalsh(wanted), rtol=0, atol=1e-12 * size)
    assert question.selection.size == len(wanted) and question.everything.size == len(corruptions.hessian(problem))
    assert question.samples == len(problem.X) and question.loss.weight_decay == 0.0


def test_a_float32_network_is_taken_as_it_is(problem):
    net, loss = judged.given(problem)
    narrow = hk.LinearNetwork(
        [w.astype("f4") for w in net.weights], [b if b is None else b.astype("f4") for b in net.biases]
    )
    data = hk.SquaredLoss(loss.X.astype("f4"), loss.Y.astype("f4"), loss.kind)
    question = Question(narrow, data, None, (), None, None)
    assert question.net.dtype == np.float64 and question.epsilon == np.finfo("f4").eps
    np.testing.assert_array_equal(question.net.flatten(), narrow.flatten().astype(float))


def test_a_learning_rate_adds_the_weights_one_step_away(problem):
    net, loss = judged.given(problem)
    keys = [[cause.key for cause in each.causes] for each in Question(net, loss, None, (), 1e-3, None).weights]
    assert keys[0] == [] and ["stale"] in keys and ["step-ahead"] in keys


def test_what_is_no_question(problem):
    net, loss = judged.given(problem)
    for arguments, error, message in (
        ((net, 3, None, (), None, None), TypeError, "loss is a int; expected a hesskern.SquaredLoss"),
        ((net, loss, None, "nets", None, None), TypeError, "trajectory is 'nets'"),
        ((net, loss, None, [3], None, None), TypeError, r"trajectory\[0\] is a int"),
        ((net, loss, None, [hk.LinearNetwork.random([1, 1], seed=0)], None, None), ValueError, r"trajectory\[0\] is "),
        ((net, loss, None, (), 0.0, None), ValueError, "lr is 0.0"),
        ((net, loss, None, (), None, 0), ValueError, "batch_size is 0"),
    ):
        with pytest.raises(error, match=message):
            Question(*arguments)
