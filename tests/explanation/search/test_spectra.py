"""Eigenvalues: of something else, to some digits, or in part."""

from __future__ import annotations

import itertools

import judged
import numpy as np
import pytest

import hesskern as hk


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
