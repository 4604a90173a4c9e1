"""The networks that `hk.validate` has when it is given none: every kind that it promises, the same each time."""

import numpy as np
import pytest

pytest.importorskip("torch")
from hesskern.validation import catalogue


def test_every_kind_of_network_is_there():
    made = [catalogue.problem(name) for name in catalogue.names()]
    assert [problem.name for problem in made] == list(catalogue.names())
    assert {len(problem.weights) for problem in made} >= {1, 2, 3, 4}
    assert {problem.kind for problem in made} == {"half_sum", "sum", "mean"}
    assert {problem.net.dtype for problem in made} == {np.dtype("float32"), np.dtype("float64")}
    assert any(problem.samples < problem.X.shape[1] for problem in made)
    assert any(problem.samples == 1 for problem in made)
    assert any(problem.decay > 0 for problem in made) and any(problem.decay == 0 for problem in made)
    has_bias = [[bias is not None for bias in problem.biases] for problem in made]
    assert any(all(some) for some in has_bias) and any(not any(some) for some in has_bias)
    assert any(any(some) and not all(some) for some in has_bias)
    widths = [problem.net.widths for problem in made]
    assert any(w[1] > w[0] + w[2] for w in widths if len(w) == 3)  # wide
    assert any(w[1] < min(w[0], w[2]) for w in widths if len(w) == 3)  # a bottleneck


@pytest.mark.parametrize("name", ["depth 1", "float32", "the case"])
def test_they_are_the_same_numbers_each_time(name):
    one, other = catalogue.problem(name), catalogue.problem(name)
    np.testing.assert_array_equal(one.theta, other.theta)
    np.testing.assert_array_equal(one.X, other.X)
    np.testing.assert_array_equal(one.Y, other.Y)


def test_an_unknown_name():
    with pytest.raises(KeyError):
        catalogue.problem("nothing")
