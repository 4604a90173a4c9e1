"""Vectors and flattened matrices in the place of a matrix."""

from __future__ import annotations

import corruptions
import numpy as np
import pytest

import hesskern as hk


def test_a_flattened_matrix(training):
    loss, nets = training
    why = hk.explain(loss.hessian(nets[1]).toarray().ravel(), nets[1], loss)
    assert why.status == "invalid" and any("flattened" in note for note in why.notes)


N = 30


def problem(kind="mean", *, outputs=1, bias=True, decay=0.0, hidden=5, seed=0):
    """A network, its loss, and the two as the plain functions below take them."""
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((N, 4)) * [1, 2, 0.5, 1] + [0, 1, 0, 3], rng.standard_normal((N, outputs))
    net = hk.LinearNetwork.random([4, hidden, outputs], seed=seed, bias=bias)
    return net, hk.SquaredLoss(X, Y, kind, decay)


def plain(net, loss):
    return corruptions.Problem(net.weights, net.biases, loss.X, loss.Y, loss.kind, loss.weight_decay)


def hessian(net, loss, X=None, Y=None):
    made = plain(net, loss)
    return corruptions.hessian(
        corruptions.Problem(
            made.weights, made.biases, loss.X if X is None else X, loss.Y if Y is None else Y, made.kind, made.decay
        )
    )


def sample_gradients(net, loss):
    """Of half the squared error of each sample, written out for two layers."""
    (W1, W2), (b1, b2) = net.weights, net.biases
    rows = []
    for x, y in zip(loss.X, loss.Y, strict=True):
        h = W1 @ x + (0 if b1 is None else b1)
        e = W2 @ h + (0 if b2 is None else b2) - y
        pieces = [np.outer(W2.T @ e, x), None if b1 is None else W2.T @ e, np.outer(e, h), None if b2 is None else e]
        rows.append(np.concatenate([piece.ravel() for piece in pieces if piece is not None]))
    return np.array(rows)


def causes(why):
    return [finding.cause for finding in why.findings]


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
