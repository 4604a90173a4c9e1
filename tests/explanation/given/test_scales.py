"""Constant factors by their names, and multiples of the identity."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk


def test_loss_kinds_have_their_names(training):
    loss, nets = training
    theirs = hk.SquaredLoss(loss.X, loss.Y, "sum", 0.01).hessian(nets[1]).toarray()
    (finding,) = hk.explain(theirs, nets[1], loss).findings
    assert "'sum'" in finding.words and 'kind="sum"' in finding.fix


@pytest.mark.parametrize(("factor", "cause"), [(-1.0, "scale[-1]"), (-2.0, "scale[-2]"), (-0.37, "scale[constant]")])
def test_the_wrong_sign(training, factor, cause):
    loss, nets = training
    H = loss.hessian(nets[1])
    matrix = factor * H.toarray()
    for candidate in (matrix, np.linalg.eigvalsh(matrix)):
        assert [found.cause for found in hk.explain(candidate, nets[1], loss).findings] == [cause]
    assert "minus sign" in hk.explain(-H.toarray(), nets[1], loss).findings[0].fix
    largest = -H.spectrum().max
    assert [found.cause for found in hk.explain(f"{largest:.12g}", nets[1], loss).findings] == ["scale[-1]"]


@pytest.mark.parametrize("value", [1e-3, 0.25, 3.0, 0.123456789])
def test_damping_is_found(training, value):
    loss, nets = training
    H = loss.hessian(nets[1]).toarray()
    (finding,) = hk.explain(H + value * np.eye(len(H)), nets[1], loss).findings
    assert finding.cause == "damping" and f"lambda = {value:.9g}" in finding.words


def test_left_out_weight_decay(training):
    loss, nets = training
    H = loss.hessian(nets[1]).toarray()
    (finding,) = hk.explain(H - 0.01 * np.eye(len(H)), nets[1], loss).findings
    assert "weight decay is left out" in finding.words
