"""`hesskern.explain`: what is no changed Hessian at all, made here by plain NumPy or PyTorch, and what is not it."""

from __future__ import annotations

import os

import corruptions
import numpy as np
import pytest
from explained import causes, hessian, plain, problem
from looped import each, few_quick

import hesskern as hk


@pytest.mark.parametrize("decay", [0.25, pytest.param(0.0, marks=pytest.mark.long)])
@pytest.mark.long
def test_diagonals_added_by_group(decay):
    net, loss = problem(decay=decay)
    bare = hessian(net, hk.SquaredLoss(loss.X, loss.Y, loss.kind))
    sizes = [20, 5, 5, 1]

    def why(values, times=1.0):
        return hk.explain(times * (bare + np.diag(np.repeat(values, sizes))), net, loss)

    for values, name in (
        ([0.05, 0, 0.05, 0], "decay-of-weights-only"),
        ([0, 0.5, 0, 0.5], "decay-of-biases-only"),
        ([0.1, 0.1, 0.3, 0.3], "damping-by-layer"),
        ([0.1, 0.2, 0.3, 0.4], "damping-by-parameter"),
    ):
        once = why(values)
        assert causes(once) == [name], values
        assert f"{max(values):g}" in once.findings[0].words
        assert set(causes(why(values, 2.0))) == {name, "scale[2]"}
    assert causes(why([decay + 0.1] * 4)) == ["damping"]
    matrix = bare + decay * np.eye(31)
    assert causes(hk.explain(matrix + 0.3 * np.diag(np.diag(bare)), net, loss)) == ["damping-of-the-diagonal"]
    # Nothing is on the diagonal but rounding, where everything else takes three names.
    order = corruptions.order_index(plain(net, loss), net.parameter_names, ["vec-column"])
    gauss_newton = 2.0 * corruptions.parts(plain(net, loss), net.parameter_names)[0][np.ix_(order, order)]
    assert set(causes(hk.explain(gauss_newton, net, loss))) == {"gauss-newton", "vec-column", "scale[2]"}
    one = matrix.copy()
    one[7, 7] += 0.1  # of one entry, no group has it
    assert hk.explain(one, net, loss).status == "unexplained"
    assert hk.explain(np.diag(np.repeat([0.1, 0.2, 0.3, 0.4], sizes)), net, loss).status == "unexplained"


@each("value", [0.0, 5e-324, 1e-310, 1e308, -1e308, np.inf, np.nan], quick=4)
def test_numbers_of_every_size_are_answered(value):
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork.random([2, 2, 1], seed=1)
    loss = hk.SquaredLoss(rng.standard_normal((2, 2)), rng.standard_normal((2, 1)))
    H = hessian(net, loss)
    with np.errstate(all="ignore"):
        candidates = value, np.full_like(H, value), np.full(len(H), value), H * value, H[0] * value
    for candidate in candidates:
        assert hk.explain(candidate, net, loss).status in ("match", "explained", "unexplained", "invalid")
    for symmetric in (False, True):
        matrix = H.copy()
        matrix[0, 1] = value
        matrix[1, 0] = value if symmetric else matrix[1, 0]
        assert hk.explain(matrix, net, loss).status in ("unexplained", "invalid")


def test_texts_of_every_size_are_answered():
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork.random([2, 2, 1], seed=1)
    loss = hk.SquaredLoss(rng.standard_normal((2, 2)), rng.standard_normal((2, 1)))
    with pytest.raises(ValueError, match="a number that float64 can hold"):
        hk.explain("1e999", net, loss)
    for text in ("0e999", "1e-999", "0." + "0" * 400 + "1"):
        assert hk.explain(text, net, loss).status == "unexplained"


@pytest.mark.parametrize("seed", few_quick(range(11), 1))
def test_random_corruptions_of_a_small_network(seed):
    count = (1000 if "HESSKERN_EXPLAIN_SUITE" in os.environ else 100) if seed else 30  # explain takes 60 ms for each
    rng = np.random.default_rng(seed)
    net = hk.LinearNetwork.random([2, 2, 1], seed=1)
    loss = hk.SquaredLoss(rng.standard_normal((4, 2)), rng.standard_normal((4, 1)))
    H = hessian(net, loss)
    for _ in range(count):
        matrix = H.copy()
        some = rng.integers(0, matrix.size, rng.integers(1, 5))
        matrix.ravel()[some] = 10.0 ** rng.uniform(-320, 308, len(some))
        why = hk.explain(matrix, net, loss)
        assert why.status in ("unexplained", "invalid"), (matrix, str(why))


def test_a_hessian_out_of_range_is_said_to_be():
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork.random([3, 2, 2], seed=0)
    for size in (1e80, 1e-80):
        loss = hk.SquaredLoss(size * rng.standard_normal((5, 3)), size * rng.standard_normal((5, 2)))
        why = hk.explain(loss.hessian(net).toarray(), net, loss)
        assert why.status == "invalid" and causes(why) == ["out-of-range"]
