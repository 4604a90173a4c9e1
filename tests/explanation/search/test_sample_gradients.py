"""Matrices made of each sample's gradient: empirical Fisher and its relatives."""

from __future__ import annotations

import numpy as np
import pytest
from explained import KINDS, N, causes, hessian, problem, sample_gradients

import hesskern as hk


@pytest.mark.parametrize(("kind", "outputs", "bias"), KINDS)
def test_outer_products_of_gradients(kind, outputs, bias):
    net, loss = problem(kind, outputs=outputs, bias=bias)
    g = {"half_sum": 1, "sum": 2, "mean": 2 / outputs}[kind] * sample_gradients(net, loss)
    H, whole = hessian(net, loss), g.sum(0) / (N if kind == "mean" else 1)
    np.testing.assert_allclose(whole, loss.gradient(net), rtol=1e-9)
    centred = g - g.mean(0)
    for matrix, names in (
        (g.T @ g / N, ["empirical-fisher"]),
        (g.T @ g, ["empirical-fisher", "scale[N]"]),
        (g.T @ g / N + 0.01 * np.eye(len(H)), ["empirical-fisher", "damping"]),
        (centred.T @ centred / N, ["gradient-covariance"]),
        (np.outer(whole, whole), ["gradient-outer-product"]),
    ):
        why = hk.explain(matrix, net, loss)
        assert causes(why) == names, str(why)
        assert why.after < 1e-12
    block = (g.T @ g / N)[: net.weights[0].size, : net.weights[0].size]
    assert causes(hk.explain(block, net, loss, params=["0.weight"])) == ["empirical-fisher"]
    assert hk.explain(g.T @ g / N + 1e-6 * H, net, loss).status == "unexplained"
