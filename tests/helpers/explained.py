"""A network of two layers with its loss, its Hessian in plain NumPy, and the causes that an answer names."""

from __future__ import annotations

import corruptions
import numpy as np

import hesskern as hk

N = 30


def problem(kind="mean", *, outputs=1, bias=True, decay=0.0, hidden=5, seed=0):
    """A network, its loss, and the two as the plain functions below take them."""
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((N, 4)) * [1, 2, 0.5, 1] + [0, 1, 0, 3], rng.standard_normal((N, outputs))
    net = hk.LinearNetwork.random([4, hidden, outputs], seed=seed, bias=bias)
    return net, hk.SquaredLoss(X, Y, kind, decay)


def plain(net, loss):
    return corruptions.UserProblem(net.weights, net.biases, loss.X, loss.Y, loss.kind, loss.weight_decay)


def hessian(net, loss, X=None, Y=None):
    made = plain(net, loss)
    return corruptions.hessian(
        corruptions.UserProblem(
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


KINDS = [("half_sum", 1, True), ("sum", 2, False), ("mean", 3, True)]
