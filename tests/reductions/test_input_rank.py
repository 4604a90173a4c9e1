"""The space of the rows of X: what is decided, what is not, and the lowest layer in a basis of it."""

from __future__ import annotations

import numpy as np
import pytest

from hesskern.backends.protocol import PlainLayers
from hesskern.reductions.input_rank import InputStage, RowSpan, mixes_inputs

RNG = np.random.default_rng(5)
UNCLEAR = "the rank of the data is not clear"
GRADED = "the columns of the data differ by orders of magnitude"


def spans(span, X, rank):
    """Check that the basis is orthonormal and spans the rows of X."""
    assert span.basis.shape == (X.shape[1], rank)
    assert span.rank == rank
    np.testing.assert_allclose(span.basis.T @ span.basis, np.eye(rank), rtol=0, atol=1e-14)
    rest = X - X @ span.basis @ span.basis.T
    assert np.linalg.norm(rest, axis=1).max() <= 1e-13 * np.linalg.norm(X, axis=1).max()


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_fewer_samples_than_inputs(scale):
    X = RNG.standard_normal((4, 9))
    span = RowSpan.of(X * scale)
    spans(span, X, 4)
    assert span.mixes


def test_columns_of_zeros_are_left_out_without_mixing():
    X = RNG.standard_normal((20, 6)) * 10.0 ** np.arange(0, -18, -3)  # of any size
    X[:, [1, 4]] = 0.0
    span = RowSpan.of(X)
    assert not span.mixes
    assert (span.basis == np.eye(6)[:, [0, 2, 3, 5]]).all()


def test_data_of_zeros_are_left_as_they_are():
    assert RowSpan.of(np.zeros((4, 3))) == RowSpan(None)
    assert RowSpan.of(np.zeros((2, 3))) == RowSpan(None)


@pytest.mark.parametrize("samples", [5, 6, 40])
def test_full_rank(samples):
    assert RowSpan.of(RNG.standard_normal((samples, 5))) == RowSpan(None)


@pytest.mark.parametrize("triangular", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_constant_and_repeated_columns(triangular, scale):
    X = RNG.standard_normal((30, 7))
    X[:, 1], X[:, 2], X[:, 5] = 0.25, -3.0, X[:, 0] - 2 * X[:, 3]
    given = np.linalg.qr(X)[1] if triangular else X
    span = RowSpan.of(given * scale, samples=30 if triangular else None)
    spans(span, X, 5)
    assert span.mixes


@pytest.mark.parametrize(("distance", "clear"), [(1e-12, False), (1e-10, False), (1e-7, True)])
def test_no_clear_gap(distance, clear):
    """A column that depends on others, and one that almost does: neither rounding errors, nor far from them."""
    X = RNG.standard_normal((30, 6))
    X[:, 4] = X[:, 0] + distance * RNG.standard_normal(30)
    assert RowSpan.of(X) == RowSpan(None)
    X[:, 5] = X[:, 1]
    span = RowSpan.of(X)
    assert span.rank == (5 if clear else None)
    assert span.reason == ("" if clear else UNCLEAR)


def test_small_columns_are_no_rounding_errors():
    """Alone, the smallest singular values look like rounding; columns of equal size show that they are not."""
    X = RNG.standard_normal((30, 5))
    X[:, 4] *= 1e-5
    X[:, 3] = X[:, 4] + 1e-15 * RNG.standard_normal(30)
    assert RowSpan.of(X) == RowSpan(None, reason=UNCLEAR)


def test_graded_columns():
    X = RNG.standard_normal((30, 5)) * 10.0 ** -np.arange(0.0, 10, 2)
    assert RowSpan.of(X) == RowSpan(None)
    assert RowSpan.of(X[:3]) == RowSpan(None, reason=GRADED)


@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize("units", [1.0, 10.0 ** np.linspace(-150, 150, 5)[:, None]])
def test_what_mixes(samples, units):
    X, W = RNG.standard_normal((8, 20)), RNG.standard_normal((5, 20)) * units
    sizes = 10.0 ** np.linspace(4, -4, 20)
    assert not mixes_inputs(X, W, samples=samples)
    assert not mixes_inputs(X, W * sizes, samples=samples)  # large weights see large numbers
    assert not mixes_inputs(X * sizes, W, samples=samples)
    assert mixes_inputs(X * sizes, W / sizes, samples=samples)
    assert mixes_inputs(X * sizes, np.vstack([W, W[:1] / sizes**2]), samples=samples)  # a single unit
    assert not mixes_inputs(np.eye(20)[:8], W, samples=samples)  # zeros are no small numbers


def test_one_layer_there_and_back():
    X, W = RNG.standard_normal((4, 9)), RNG.standard_normal((6, 9))
    layers = PlainLayers((W, RNG.standard_normal((2, 6))), (None, None))
    stage = InputStage.of(layers, RowSpan.of(X).basis)
    small = stage.reduced(layers)
    np.testing.assert_allclose((X @ stage.basis) @ small.weights[0].T, X @ W.T, rtol=0, atol=1e-13)
    assert (stage.lift(small, 1.0).weights[0] == W).all()  # exact at the start
    projector = stage.basis @ stage.basis.T
    outside = W - W @ projector
    assert stage.decaying == pytest.approx(np.linalg.norm(outside), rel=1e-12)
    change = RNG.standard_normal((6, 4))
    moved = small._replace(weights=(small.weights[0] + change, small.weights[1]))
    expected = W @ projector + change @ stage.basis.T + 0.3 * outside
    np.testing.assert_allclose(stage.lift(moved, 0.3).weights[0], expected, rtol=0, atol=1e-14)
    seen = W @ projector + change @ stage.basis.T
    np.testing.assert_allclose(stage.seen(moved).weights[0], seen, rtol=0, atol=1e-14)
    assert InputStage.of(layers, np.eye(9)).decaying == 0.0
