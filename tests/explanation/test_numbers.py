"""The case: 174, 5345 and the posted formula; numbers and spectra in general."""

from __future__ import annotations

import itertools
import time

import judged
import numpy as np
import pytest
from looped import each

import hesskern as hk


@pytest.fixture(scope="module")
def case():
    case = hk.datasets.two_layer_case()
    loss = hk.SquaredLoss(case.X, case.Y)
    net = hk.fit(case.network, loss, lr=case.lr, max_steps=10_000, rtol=case.rtol).network
    wx = net.weights[0].dot(case.X)
    return net, loss, np.kron(wx.dot(wx.T), np.eye(5))


def takes_less(call, seconds, repeats=30):
    """Whether one of many calls takes less processor time: on a busy machine most take longer than alone."""
    for _ in range(repeats):
        began = time.process_time()
        call()
        if time.process_time() - began < seconds:
            return True
    return False


def test_the_posted_matrix(case):
    net, loss, posted = case
    why = hk.explain(posted, net, loss, params=[1])
    assert [finding.cause for finding in why.findings] == ["X-transposed", "vec-column"]
    assert "use W1 @ X.T" in why.findings[0].fix and "samples are rows" in why.findings[0].fix
    assert any("Kronecker" in other for other in why.findings[1].also)
    assert why.before > 0.5 and why.after < 1e-14
    assert hk.explain(why.corrected, net, loss, params=[1]).status == "match"


@pytest.mark.parametrize("number", [5345.81, "5345.81", "5345"])
def test_the_bare_number(case, number):
    net, loss, _ = case
    why = hk.explain(number, net, loss, params=[1])
    assert [finding.cause for finding in why.findings] == ["X-transposed"]
    assert why.findings[0].expected == pytest.approx(174.0739, rel=1e-6) == why.corrected
    assert "by chance" in why.confidence


def test_both_in_a_tenth_of_a_second(case):
    net, loss, posted = case
    assert takes_less(lambda: hk.explain(posted, net, loss, params=[1]), 0.1)
    assert takes_less(lambda: hk.explain(5345.81, net, loss, params=[1]), 0.1)


@pytest.mark.parametrize("number", [174, 174.07, "174.0739", 25, 2230.5])
def test_true_numbers_match(case, number):
    net, loss, _ = case
    why = hk.explain(number, net, loss, params=[1])
    assert (why.status, why.findings) == ("match", ())


@pytest.mark.parametrize("number", [5e20, 4.8e19, float("inf")])
def test_condition_numbers_of_singular_matrices_are_noise(case, number):
    net, loss, _ = case
    why = hk.explain(number, net, loss, params=[1])
    assert [finding.cause for finding in why.findings] == ["noise"]
    assert "singular, of rank 25 of 500" in why.verdict


def derived(H, rank):
    values = np.sort(np.abs(np.linalg.eigvalsh(H)))[::-1]
    kept = values[:rank]
    return {
        "square-root": np.sqrt(kept[0] / kept[-1]),
        "square": (kept[0] / kept[-1]) ** 2,
        "rank[20]": kept[0] / kept[19],
        "norm[fro]": np.linalg.norm(kept) * np.linalg.norm(1 / kept),
        "norm[nuc]": kept.sum() * (1 / kept).sum(),
        "norm[1]": np.abs(H).sum(axis=0).max()
        * np.abs(np.linalg.pinv(H, rcond=1e-12, hermitian=True)).sum(axis=0).max(),
    }


def test_other_condition_numbers(case):
    net, loss, _ = case
    H = loss.hessian(net, params=[1]).toarray()
    for cause, value in derived(H, 25).items():
        why = hk.explain(f"{value:.9g}", net, loss, params=[1], quantity="condition")
        assert [finding.cause for finding in why.findings] == [cause]


def test_numbers_of_a_dense_solver_are_rounded(case):
    net, loss, posted = case
    true = np.linalg.eigvalsh(loss.hessian(net, params=[1]).toarray())[-25:]
    wrong = np.linalg.svd(posted, compute_uv=False)[:25]
    assert hk.explain(true[-1] / true[0], net, loss, params=[1]).status == "match"
    why = hk.explain(wrong[0] / wrong[-1], net, loss, params=[1])
    assert [finding.cause for finding in why.findings] == ["X-transposed"]
    assert hk.explain(174.0739406 * (1 + 1e-6), net, loss, params=[1]).status == "unexplained"


def test_ranks(case):
    net, loss, _ = case
    assert hk.explain(25, net, loss, params=[1], quantity="rank").status == "match"
    few = hk.explain(20, net, loss, params=[1], quantity="rank")  # four samples, say
    assert few.status == "explained" and "last-batch[4]" in {f.cause for f in few.findings} | {
        cause for other in few.alternatives for cause in other.causes
    }
    assert hk.explain(500, net, loss, params=[1], quantity="rank").status == "unexplained"


def test_largest_eigenvalue_with_a_factor(case):
    net, loss, _ = case
    largest = loss.hessian(net, params=[1]).spectrum().max
    why = hk.explain(f"{2 * largest / 25:.10g}", net, loss, params=[1], quantity="largest")
    assert why.status == "explained" and why.findings[0].cause.startswith("scale[2/")


@pytest.mark.parametrize("number", ["0", "0.", "00", 0, 0.0])
def test_zero_is_nothing(case, number):
    net, loss, _ = case
    assert hk.explain(number, net, loss, params=[1]).status == "unexplained"


def test_few_digits_prove_nothing(case):
    net, loss, _ = case
    statuses = [hk.explain(f"{number:.1g}", net, loss, params=[1]).status for number in (3e3, 7e4, 4e5)]
    assert "explained" not in statuses
    assert hk.explain(3.14159265, net, loss, params=[1]).status == "unexplained"


@each("number", np.exp(np.random.default_rng(0).uniform(np.log(1.5), np.log(1e6), 30)), quick=8)
def test_numbers_at_random_are_not_explained(case, number):
    net, loss, _ = case
    assert hk.explain(f"{number:.10g}", net, loss, params=[1]).status == "unexplained"


def test_spectra(case):
    net, loss, posted = case
    H = loss.hessian(net, params=[1])
    assert hk.explain(H.eigvalsh(), net, loss, params=[1]).status == "match"
    assert hk.explain(np.linalg.eigvalsh(H.toarray())[::-1], net, loss, params=[1]).status == "match"
    wrong = hk.explain(np.linalg.eigvalsh(posted), net, loss, params=[1])
    assert [finding.cause for finding in wrong.findings] == ["X-transposed"]
    nonzero = H.spectrum().expand()[-25:]
    assert [f.cause for f in hk.explain(3 * nonzero, net, loss, params=[1]).findings] == [
        "zeros-left-out",
        "scale[constant]",
    ]
    assert hk.explain(np.random.default_rng(0).standard_normal(500), net, loss, params=[1]).status == "unexplained"
    assert hk.explain(np.ones(501), net, loss, params=[1]).status == "unexplained"
    assert hk.explain(np.ones(1001), net, loss, params=[1]).status == "invalid"


SPECTRA = {
    "float32-stored": lambda e: e.astype(np.float32),
    "decimals[3]": lambda e: np.round(e, 3),
    "digits[6]": lambda e: np.array([float(f"{value:.5e}") for value in e]),
    "largest-only": lambda e: e[-8:],
    "scale[-1]": lambda e: -e,
}


def with_biases(seed):
    rng = np.random.default_rng(seed)
    net = hk.LinearNetwork.random([4, 6, 3], seed=seed, bias=True)
    return rng, net, hk.SquaredLoss(rng.standard_normal((9, 4)), rng.standard_normal((9, 3)))


EVERY_SPECTRUM = list(itertools.product(range(3), SPECTRA))


@pytest.mark.parametrize(
    ("seed", "cause"),
    judged.quick_first([(0, "scale[-1]"), (0, "largest-only"), (2, "float32-stored")], EVERY_SPECTRUM),
)
def test_spectra_that_are_known_to_some_digits_or_in_part(seed, cause):
    _, net, loss = with_biases(seed)
    values = np.linalg.eigvalsh(loss.hessian(net).toarray())
    assert [found.cause for found in hk.explain(SPECTRA[cause](values), net, loss).findings] == [cause]


@pytest.mark.parametrize(("seed", "cause"), judged.quick_first([(0, "scale[-1]")], EVERY_SPECTRUM))
def test_spectra_of_something_else_known_to_some_digits_or_in_part(seed, cause):
    rng, net, loss = with_biases(seed)
    other = net.unflatten(net.flatten() + 1e-3 * rng.standard_normal(net.num_parameters))
    elsewhere = SPECTRA[cause](np.linalg.eigvalsh(loss.hessian(other).toarray()))
    assert hk.explain(elsewhere, net, loss).status == "unexplained"
    assert hk.explain(SPECTRA[cause](rng.standard_normal(net.num_parameters)), net, loss).status == "unexplained"


def test_eigenvalues_computed_in_float32():
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork.random([4, 6, 3], seed=0)
    loss = hk.SquaredLoss(rng.standard_normal((9, 4)), rng.standard_normal((9, 3)))
    values = np.linalg.eigvalsh(loss.hessian(net).toarray().astype(np.float32))
    assert [found.cause for found in hk.explain(values, net, loss).findings] == ["float32-stored"]


def test_singular_values_of_an_indefinite_hessian(case):
    _, loss, _ = case
    net = hk.datasets.two_layer_case().network
    values = np.abs(loss.hessian(net).eigvalsh())
    assert [finding.cause for finding in hk.explain(values, net, loss).findings] == ["singular-values"]
    parts = loss.hessian(net).gauss_newton().eigvalsh()
    assert [finding.cause for finding in hk.explain(parts, net, loss).findings] == ["gauss-newton"]
