"""Numbers that dense solvers round, or that are nothing but their rounding."""

from __future__ import annotations

import numpy as np
import pytest
from explained import causes, hessian
from looped import each

import hesskern as hk


@pytest.mark.parametrize("number", [5e20, 4.8e19, float("inf")])
def test_condition_numbers_of_singular_matrices_are_noise(case, number):
    net, loss, _ = case
    why = hk.explain(number, net, loss, params=[1])
    assert [finding.cause for finding in why.findings] == ["noise"]
    assert "singular, of rank 25 of 500" in why.verdict


def test_numbers_of_a_dense_solver_are_rounded(case):
    net, loss, posted = case
    true = np.linalg.eigvalsh(loss.hessian(net, params=[1]).toarray())[-25:]
    wrong = np.linalg.svd(posted, compute_uv=False)[:25]
    assert hk.explain(true[-1] / true[0], net, loss, params=[1]).status == "match"
    why = hk.explain(wrong[0] / wrong[-1], net, loss, params=[1])
    assert [finding.cause for finding in why.findings] == ["X-transposed"]
    assert hk.explain(174.0739406 * (1 + 1e-6), net, loss, params=[1]).status == "unexplained"


def singular():
    """A network and data whose Hessian is singular."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((50, 4)), rng.standard_normal((50, 3))
    return hk.LinearNetwork.random([4, 10, 3], seed=0), hk.SquaredLoss(X, Y, kind="mean")


@each(
    ("solved", "name"),
    [
        (np.linalg.cond, "noise"),
        (lambda H: np.linalg.cond(H.astype(np.float32)), "noise[float32]"),
        (lambda H: float(np.linalg.cond(H.astype(np.float32))), "noise[float32]"),
        (lambda H: f"{np.linalg.cond(H.astype(np.float32)):.1e}", "noise[float32]"),
        (lambda H: np.linalg.eigvalsh(H.astype(np.float32))[-1], "solver-rounding[float32]"),
    ],
    quick=3,
)
def test_what_dense_solvers_make_of_a_singular_matrix(solved, name):
    net, loss = singular()
    why = hk.explain(solved(hessian(net, loss)), net, loss)
    assert causes(why) in ([name], []) and why.status in ("explained", "match"), str(why)
    assert causes(why) or why.status == "match"


# Sixteen digits that no float32 has, and ordinary sizes.
@each("number", [123456789.12345678, 3456.789123456789, 77777.0, "31.4159"], quick=1)
def test_numbers_that_no_solver_gives(number):
    assert hk.explain(number, *singular()).status == "unexplained"


def test_the_rounding_of_dense_solvers():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((50, 4)), rng.standard_normal((50, 3))
    X[:, 3] = X[:, 2] + 1e-7 * rng.standard_normal(50)
    net, loss = hk.LinearNetwork.random([4, 3], seed=0), hk.SquaredLoss(X, Y, kind="mean")
    H = hessian(net, loss)
    why = hk.explain(float(np.linalg.cond(H)), net, loss)
    assert causes(why) == ["solver-rounding[float64]"] and "the rounding of a dense solver" in why.verdict
    assert causes(hk.explain(float(np.linalg.cond(H.astype(np.float32))), net, loss))[0].startswith("noise")
    assert hk.explain(1e7 / 3, net, loss).status == "unexplained"


@pytest.mark.long
def test_what_shows_that_a_number_is_a_float32():
    net, loss = singular()
    single = hessian(net, loss).astype(np.float32)  # of rank 63 of 70
    values = np.linalg.svd(single, compute_uv=False)
    for number in (values[0] / values[62], float(values[0] / values[62])):
        why = hk.explain(number, net, loss, quantity="condition")
        assert why.status == "match" or causes(why) == ["solver-rounding[float32]"], str(why)
    assert any("may be rounding noise" in note for note in hk.explain("1.5e6", net, loss).notes)
    assert not any("may be" in note for note in hk.explain(1500000.123456, net, loss).notes)


# Digits of float64, sizes that float32 solvers do not give here, and sizes that other matrices really have.
@each("number", [204123456.7, "31234567.25", "3e7", 3e5, np.float32(1e6), "123456", 12345678], quick=1)
def test_what_shows_that_a_number_is_no_float32(number):
    why = hk.explain(number, *singular(), quantity="condition")
    assert why.status == "unexplained", str(why)
