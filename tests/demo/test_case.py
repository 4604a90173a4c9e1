"""The demo: its numbers against the known ones, its verdict when something is off, with and without PyTorch."""

import dataclasses
import sys

import numpy as np
import pytest

from hesskern import datasets
from hesskern.backends import host_names
from hesskern.demo import case as demo
from hesskern.demo.text import describe


@pytest.fixture(scope="module")
def full():
    pytest.importorskip("torch")
    return demo.run(repeats=1)


@pytest.mark.parametrize("backend", host_names())
def test_the_known_numbers(backend):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        found = demo.run(backend, repeats=1)
    assert found.backend == backend
    assert found.status == "converged"
    assert found.steps == len(found.losses) == 608
    assert found.losses[-1] <= 1e-20 * found.losses[0]
    assert found.losses.max() / found.losses[0] == pytest.approx(9.4966, rel=1e-4)
    assert found.condition.value == pytest.approx(174.0739405, rel=1e-6)
    assert found.fixed.cond == pytest.approx(174.0739405, rel=1e-6)
    assert found.as_posted.cond == pytest.approx(5345.8106, rel=1e-6)
    assert found.condition.rank == found.fixed.rank == found.as_posted.rank == 25
    assert found.numpy_cond > 1e16  # meaningless, which is the point
    assert found.ok and found.failures == ()


def test_the_learning_rate_is_beyond_the_stable_one(bare):
    case = datasets.two_layer_case()
    W1, W2 = case.network.weights
    X, G = case.X, (case.X @ W1.T @ W2.T - case.Y).T @ case.X
    k, i = W1.shape
    gram = np.kron(W2.T @ W2, X.T @ X)
    cross = np.einsum("ck,an->kacn", W2, X.T @ X @ W1.T) + np.einsum("ca,kn->kacn", G, np.eye(k))
    cross = cross.reshape(k * i, -1)
    full = np.block([[gram, cross], [cross.T, np.kron(np.eye(len(W2)), W1 @ X.T @ X @ W1.T)]])
    assert bare.stable_lr == pytest.approx(2 / np.linalg.eigvalsh(full)[-1], rel=1e-10)
    assert bare.lr > bare.stable_lr


def test_spectrum_is_that_of_the_dense_matrix(bare):
    ours = np.repeat(bare.values, bare.multiplicities)
    np.testing.assert_allclose(ours, bare.fixed.values[:25], rtol=1e-9)
    assert not np.allclose(ours, bare.as_posted.values[:25], rtol=0.1)


def test_autograd_agrees(full):
    assert full.autograd_missing == ""
    assert full.autograd.epochs == 608
    assert full.autograd.dense.cond == pytest.approx(174.0739405, rel=1e-6)
    assert full.autograd.dense.rank == 25
    assert full.autograd.difference < 1e-12
    assert full.ok, full.failures
    text = describe(full)
    assert "hesskern, autograd and the fixed formula agree" in text
    assert text.count("174.0739") == 3


def test_interrupted_training_is_not_taken_for_a_result(monkeypatch):
    interrupted = dataclasses.replace(demo.fit(*_start(), lr=1e-5, max_steps=3), status="interrupted")
    monkeypatch.setattr(demo, "fit", lambda *args, **options: interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.run(repeats=1)


def _start():
    case = datasets.two_layer_case()
    return case.network, demo.SquaredLoss(case.X, case.Y)
