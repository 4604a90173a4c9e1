"""What is said of a matrix beyond its causes: that it is not symmetric, that only rows are out of order."""

from __future__ import annotations

import corruptions
import numpy as np

import hesskern as hk


def test_not_symmetric_is_said(training):
    loss, nets = training
    H = loss.hessian(nets[1]).toarray()
    H[3, 5] += 0.5
    why = hk.explain(H, nets[1], loss)
    assert why.status == "unexplained" and any("not symmetric" in note for note in why.notes)


def test_order_of_the_rows_only(training):
    loss, nets = training
    H = loss.hessian(nets[1]).toarray()
    index = corruptions.order_index(
        corruptions.UserProblem(nets[1].weights, nets[1].biases, loss.X, loss.Y),
        nets[1].parameter_names,
        ["vec-column"],
    )
    why = hk.explain(H[index], nets[1], loss)
    assert [finding.cause for finding in why.findings] == ["vec-column", "order-of-rows"]


def test_zero_matrix(training):
    loss, nets = training
    assert hk.explain(np.zeros((51, 51)), nets[1], loss).verdict == "the matrix is zero."
