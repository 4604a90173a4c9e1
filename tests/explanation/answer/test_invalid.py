"""Candidates that cannot be compared: NaN, overflow, sizes of no parameters."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk


@pytest.mark.parametrize(("shape", "said"), [((5, 5), "5 x 5"), ((45, 51), "not square"), ((52, 52), "52 x 52")])
def test_sizes_that_fit_nothing(training, shape, said):
    loss, nets = training
    why = hk.explain(np.ones(shape), nets[1], loss)
    assert why.status == "invalid" and said in why.verdict and "expected size 51" in why.verdict
    assert "24 for W1" in why.findings[0].words and "18 for W2" in why.findings[0].words


def test_sizes_that_mean_something_else(training):
    loss, nets = training
    assert "tangent kernel" in " ".join(hk.explain(np.eye(60), nets[1], loss).notes)
    assert "kernel matrix" in " ".join(hk.explain(np.eye(20), nets[1], loss).notes)


def test_nan_and_where(training):
    loss, nets = training
    H = loss.hessian(nets[1]).toarray()
    H[2, 40] = np.nan
    H[7, 7] = np.inf
    why = hk.explain(H, nets[1], loss)
    assert why.status == "invalid" and why.findings[0].cause == "not-finite"
    assert "2 of 2601 values" in why.findings[0].words
    assert any("rows 2, 7" in note for note in why.notes) and any("W1 x W2" in note for note in why.notes)


def test_nan_at_zero_residual_is_torch_norm():
    net = hk.LinearNetwork.random([3, 4, 2], seed=0)
    X = np.random.default_rng(0).standard_normal((5, 3))
    why = hk.explain(np.full((20, 20), np.nan), net, hk.SquaredLoss(X, net.forward(X)))
    assert "torch.norm(prediction - Y) ** 2" in why.findings[0].fix


def test_values_whose_squares_overflow(training):
    loss, nets = training
    H = loss.hessian(nets[1]).toarray()
    values = np.linalg.eigvalsh(H)
    for factor in (1e200, 1e-200, -1e290, 1e-290):
        for candidate in (factor * H, factor * values):
            why = hk.explain(candidate, nets[1], loss)
            assert [found.cause for found in why.findings] == ["scale[constant]"]
            assert f"{factor:.6g}" in why.verdict and why.before == pytest.approx(1.0)
