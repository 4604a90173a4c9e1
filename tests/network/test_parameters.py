"""Which parameters a Hessian is taken with respect to: by layer, by name, mixed, in any order."""

from __future__ import annotations

import numpy as np
import problems
import pytest
from witness import dense, positions, relative

import hesskern as hk
from hesskern.curvature.hessian import Hessian, KroneckerHessian


@pytest.fixture
def three():
    """Layers with, without and with a bias; where they stand is in PLACES."""
    problem = problems.normal([4, 5, 6, 3], 9, bias=True, kind="sum", weight_decay=0.5)
    problem.biases[1] = None
    return problem


PLACES = {
    "0.weight": range(0, 20),
    "0.bias": range(20, 25),
    "1.weight": range(25, 55),
    "2.weight": range(55, 73),
    "2.bias": range(73, 76),
}

CHOICES = [
    ([0], ["0.weight", "0.bias"]),
    ([1], ["1.weight"]),
    ([2, 0], ["0.weight", "0.bias", "2.weight", "2.bias"]),  # the order is the network's
    ([0, 0, 2, 0], ["0.weight", "0.bias", "2.weight", "2.bias"]),  # once each
    (["2.bias", "0.bias"], ["0.bias", "2.bias"]),
    (["0.bias", 1, "0.bias"], ["0.bias", "1.weight"]),  # numbers and names together
    ([2, "2.weight"], ["2.weight", "2.bias"]),
    (["2.bias", "2.weight"], ["2.weight", "2.bias"]),
    (("0.weight",), ["0.weight"]),
    ([np.int32(1), "2.bias"], ["1.weight", "2.bias"]),
    ([0, 1, 2], list(PLACES)),
    (None, list(PLACES)),
]


@pytest.mark.parametrize(("params", "names"), CHOICES)
def test_a_selection_is_a_part_of_the_full_matrix(backend, three, params, names):
    truth = dense(three)
    where = np.concatenate([PLACES[name] for name in names])
    expected, plain, curved = (truth[part][np.ix_(where, where)] for part in ("full", "gauss_newton", "functional"))
    H = three.loss().hessian(three.network(), params)
    V = np.random.default_rng(0).standard_normal((len(where), 2))
    for operator, matrix in ((H, expected), (H.gauss_newton(), plain), (H.functional(), curved)):
        assert isinstance(operator, Hessian)
        assert operator.shape == matrix.shape
        np.testing.assert_allclose(operator.toarray(), matrix, rtol=0, atol=1e-12 * np.abs(expected).max())
        np.testing.assert_allclose(operator @ V, matrix @ V, rtol=0, atol=1e-12 * np.abs(expected).sum())
        np.testing.assert_allclose(operator @ V[:, 0], matrix @ V[:, 0], rtol=0, atol=1e-12 * np.abs(expected).sum())
        np.testing.assert_allclose(operator.diagonal(), np.diag(matrix), rtol=0, atol=1e-12 * np.abs(expected).max())
        assert operator.trace() == pytest.approx(np.trace(matrix), rel=1e-12, abs=1e-10)
        values = np.linalg.eigvalsh(matrix)
        np.testing.assert_allclose(operator.eigvalsh(), values, rtol=0, atol=1e-12 * np.abs(expected).sum())
    one_layer = len({name.split(".")[0] for name in names}) == 1
    assert isinstance(H, KroneckerHessian) == one_layer
    assert isinstance(H.gauss_newton(), KroneckerHessian) == one_layer


def test_selections_of_wide_networks(backend):
    """Half of what the width reduction rotates may be left out."""
    problem = problems.normal([3, 17, 2, 11, 2], 7, bias=True)
    loss, net = problem.loss(), problem.network()
    full = dense(problem)["full"]
    names = [f"{layer}.{kind}" for layer in range(4) for kind in ("weight", "bias")]
    rng = np.random.default_rng(0)
    chosen = [list(rng.choice(8, size=count, replace=False)) for count in (2, 2, 3, 3, 4, 5, 6, 7)]
    chosen += [[1, 2], [0, 2], [1, 3], [1, 5], [4, 6], [2, 6]]
    for numbers in chosen:
        H = loss.hessian(net, [names[k] for k in numbers])
        where = positions(problem, [names[k] for k in sorted(numbers)])
        matrix = full[np.ix_(where, where)]
        relative(H.toarray(), matrix)
        relative(H.eigvalsh(), np.linalg.eigvalsh(matrix), 1e-12)
        values, vectors = H.eigh()
        relative(vectors @ np.diag(values) @ vectors.T, matrix, 1e-12)
        b = rng.standard_normal(len(matrix))
        shift = 1.5 * np.abs(values).max()
        relative(H.solve(b, damping=shift), np.linalg.solve(matrix + shift * np.eye(len(b)), b), 1e-12)


def test_everything_but_one_number(backend):
    problem = problems.normal([4, 5, 1], 9, bias=True)
    loss, net = problem.loss(), problem.network()
    H = loss.hessian(net, ["0.weight", "0.bias", "1.weight"])
    full = dense(problem)["full"]
    assert H.shape == (30, 30)
    relative(H.toarray(), full[:30, :30])
    relative(H @ np.eye(30), full[:30, :30])


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ([3], ValueError, "params holds layer 3; layers are counted from 0 to 2"),
        ([0, -1], ValueError, "params holds layer -1; layers are counted from 0 to"),
        (["1.bias"], ValueError, r"params holds '1\.bias'; the network has 0\.weight, 0\.bias, 1\.weight, 2\.weight"),
        (["weight"], ValueError, "params holds 'weight'; the network has"),
        (["0.weight", 1.5], TypeError, r"params is 1\.5 .*expected an integer"),
        ([None], TypeError, "params is None .*expected an integer"),
        ("0.weight", TypeError, r"params is '0\.weight' .*; expected a list"),
        (0, TypeError, "params is 0 .*; expected a list"),
        ({0}, TypeError, r"params is \{0\} .*; expected a list"),
        ((), ValueError, "params is empty; expected a list"),
    ],
)
def test_bad_selections_are_named(three, params, error, message):
    with pytest.raises(error, match=message):
        three.loss().hessian(three.network(), params)


def test_what_is_not_selected_is_constant(backend):
    """The Hessian of a selection is that of the loss as a function of it, everything else held."""
    problem = problems.normal([3, 4, 2], 6, bias=True)
    loss, net = problem.loss(), problem.network()
    H = loss.hessian(net, ["0.bias", "1.weight"])
    theta = net.flatten()
    where = np.r_[12:16, 16:24]
    v = np.zeros_like(theta)
    v[where] = np.random.default_rng(0).standard_normal(12)

    def along(t):
        return loss(hk.LinearNetwork.unflatten(net, theta + t * v))

    t = np.arange(-2, 3)  # a polynomial of degree four: five points determine it
    second = 2 * np.polyfit(t, [along(k) for k in t], 4)[2]
    assert v[where] @ (H @ v[where]) == pytest.approx(second, rel=1e-10)
