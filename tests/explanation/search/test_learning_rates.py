"""Weights one step of gradient descent away, by a learning rate that is known or estimated."""

from __future__ import annotations

import pytest

import hesskern as hk


@pytest.mark.parametrize(("at", "cause"), [(1, "stale"), (2, "step-ahead")])
@pytest.mark.parametrize("lr", [0.05, None])
def test_weights_one_step_away(training, at, cause, lr):
    loss, nets = training
    candidate, ours = (nets[1], nets[2]) if cause == "stale" else (nets[2], nets[1])
    why = hk.explain(loss.hessian(candidate).toarray(), ours, loss, lr=lr)
    assert [finding.cause for finding in why.findings] == [cause], at
    assert "lr = 0.05" in why.findings[0].words
    assert ("estimated" in why.findings[0].words) == (lr is None)
