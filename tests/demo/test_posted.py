"""The post's own code in PyTorch: it starts where the case does, and says what to install without PyTorch."""

import dataclasses

import numpy as np
import pytest

from hesskern import datasets
from hesskern.demo import posted
from hesskern.demo.text import describe


def test_posted_code_starts_where_the_case_does():
    torch = pytest.importorskip("torch")
    case = datasets.two_layer_case()
    one_epoch = dataclasses.replace(case, rtol=1.0)  # the first loss is the first loss already
    script = posted.run(torch, one_epoch, repeats=1)
    W1, W2 = case.network.weights
    E = case.X @ W1.T @ W2.T - case.Y
    np.testing.assert_allclose(script.W1, W1 - case.lr * W2.T @ E.T @ case.X, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(script.W2, W2 - case.lr * E.T @ case.X @ W1.T, rtol=1e-12, atol=1e-14)
    assert script.epochs == 1
    A = case.X @ script.W1.T
    np.testing.assert_allclose(script.hessian, np.kron(np.eye(5), A.T @ A), atol=1e-12 * np.abs(A.T @ A).max())


def test_without_torch_it_says_what_to_install(bare):
    assert bare.autograd is None
    assert bare.ok
    text = describe(bare)
    assert 'pip install "hesskern[torch]"' in text
    assert "hesskern and the fixed formula agree" in text
    assert text.count("174.0739") == 2
