"""Vectors and flattened matrices in the place of a matrix."""

from __future__ import annotations

import numpy as np
import pytest
from explained import N, causes, hessian, problem, sample_gradients

import hesskern as hk


def test_a_flattened_matrix(training):
    loss, nets = training
    why = hk.explain(loss.hessian(nets[1]).toarray().ravel(), nets[1], loss)
    assert why.status == "invalid" and any("flattened" in note for note in why.notes)


@pytest.mark.parametrize(("kind", "outputs", "bias", "decay"), [("sum", 2, False, 0.0), ("mean", 3, True, 0.1)])
def test_vectors_are_no_eigenvalues(kind, outputs, bias, decay):
    net, loss = problem(kind, outputs=outputs, bias=bias, decay=decay)
    H, W1 = hessian(net, loss), net.weights[0]
    gradient = {"half_sum": 1, "sum": 2, "mean": 2 / (N * outputs)}[kind] * sample_gradients(net, loss).sum(0)
    gradient += decay * net.flatten()
    for vector, name in (
        (np.diag(H), "diagonal"),
        (gradient, "gradient"),
        (H.sum(1), "row-sums"),
        (net.flatten(), "parameters"),
    ):
        first = vector[: W1.size]
        for candidate in (vector, vector[None], vector[:, None], first.reshape(W1.shape), first.reshape(W1.shape).T):
            why = hk.explain(candidate.copy(), net, loss)
            assert causes(why) == [name], (candidate.shape, str(why))
        assert causes(hk.explain(-2.0 * vector, net, loss)) == [name, "scale[-2]"]
    # The eigenvalues themselves, and what is nothing of the kind.
    assert hk.explain(np.linalg.eigvalsh(H), net, loss).status == "match"
    nothing = np.random.default_rng(99).standard_normal(W1.shape)
    why = hk.explain(nothing, net, loss)
    assert why.status == "invalid" and any("shape of W1" in note for note in why.notes)
