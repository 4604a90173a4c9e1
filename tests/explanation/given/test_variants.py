"""Other data and other weights that somebody may have used."""

from __future__ import annotations

import hesskern as hk


def test_weights_of_a_trajectory(training):
    loss, nets = training
    why = hk.explain(2.0 * loss.hessian(nets[0]).toarray(), nets[3], loss, trajectory=nets)
    assert [finding.cause for finding in why.findings] == ["trajectory[0]", "scale[2]"]
    assert "the first of the 4 networks" in why.findings[0].words


def test_batches_of_a_given_size(training):
    loss, nets = training
    part = hk.SquaredLoss(loss.X[7:14], loss.Y[7:14], "mean", 0.01)
    why = hk.explain(part.hessian(nets[1]).toarray(), nets[1], loss, batch_size=7)
    assert [finding.cause for finding in why.findings] == ["batch[7:14]"]
    uneven = sum(
        hk.SquaredLoss(loss.X[at : at + 7], loss.Y[at : at + 7], "mean", 0.01).hessian(nets[1]).toarray()
        for at in (0, 7, 14)
    )
    why = hk.explain(uneven / 3, nets[1], loss)
    assert [finding.cause for finding in why.findings] == ["uneven-batches[7]"]
