"""Ritz pairs of matrices with known eigenvalues: repeated, clustered, at either end, and after restarts."""

import functools

import numpy as np
import pytest

from hesskern._base.lanczos import steps
from hesskern.linalg.krylov import KrylovSearch, most_vectors


def matrix_of(values, seed=0):
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    matrix = Q * np.asarray(values) @ Q.T
    return 0.5 * (matrix + matrix.T)


def search(matrix, k, which, block=1, **options):
    def apply(v, out):
        out[...] = matrix @ v

    return KrylovSearch(functools.partial(steps, apply, None), len(matrix), k, which, block, **options)


def check(matrix, ritz, wanted):
    scale = np.abs(np.linalg.eigvalsh(matrix)).max()
    np.testing.assert_allclose(np.sort(ritz.values), np.sort(wanted), rtol=0, atol=1e-13 * scale)
    np.testing.assert_allclose(ritz.vectors @ ritz.vectors.T, np.eye(len(wanted)), atol=1e-12)
    residuals = np.linalg.norm(ritz.vectors @ matrix - ritz.values[:, None] * ritz.vectors, axis=1)
    assert residuals.max() <= 1e-12 * scale and abs(residuals - ritz.residuals).max() <= 1e-13 * scale
    assert ritz.converged


VALUES = np.concatenate([np.linspace(-2.0, 2.0, 400), [2.5, 2.6, 3.0, -2.9, -2.4]])


@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize(("which", "wanted"), [("LA", [3.0, 2.6]), ("SA", [-2.9, -2.4]), ("LM", [3.0, -2.9])])
def test_either_end(which, wanted, block):
    matrix = matrix_of(VALUES)
    check(matrix, search(matrix, 2, which, block).run(), wanted)


def test_many_restarts():
    """Neighbours are 1e-3 of the spectrum apart: a space of 64 vectors is restarted until they are separate."""
    values = np.linspace(0.0, 1.0, 1000)
    matrix = matrix_of(values)
    check(matrix, search(matrix, 3, "LA").run(), values[-3:])


@pytest.mark.parametrize("distance", [1e-10, 1e-13, 0.0])
def test_a_block_finds_neighbours_that_are_next_to_each_other(distance):
    values = np.concatenate([np.linspace(0.0, 1.0, 300), [2.0, 2.0 - distance, 2.0 - 2 * distance]])
    matrix = matrix_of(values)
    check(matrix, search(matrix, 3, "LA", block=3).run(), values[-3:])


def test_one_vector_misses_copies_and_more_starts_find_them(monkeypatch):
    # Stopped early: later, rounding errors bring the copies into the space.
    monkeypatch.setattr("hesskern.linalg.krylov._UNITS", 1e12)
    monkeypatch.setattr("hesskern.linalg.krylov._FIRST_LOOK", 16)
    matrix = np.diag(np.concatenate([np.linspace(0.0, 1.0, 300), [2.0, 2.0, 2.0, 1.5]]))
    lonely = search(matrix, 2, "LA")
    np.testing.assert_allclose(lonely.run().values, [2.0, 1.5], rtol=1e-3)
    lonely.more_starts(3)
    np.testing.assert_allclose(lonely.run().values, [2.0, 2.0], rtol=1e-3)


def test_an_offset_decides_what_is_large():
    values = np.concatenate([np.linspace(-0.5, 0.5, 200), [-3.0, 2.5]])
    matrix = matrix_of(values)
    check(matrix, search(matrix, 1, "LM").run(), [-3.0])
    check(matrix, search(matrix, 1, "LM", offset=1.0).run(), [2.5])


def test_entries_that_do_not_belong_to_the_operator():
    matrix = np.diag(np.arange(200.0))
    inside = (np.arange(200) < 150).astype(float)
    np.testing.assert_allclose(search(matrix, 2, "LA", inside=inside).run().values, [149.0, 148.0])


def test_no_eigenvalue_but_zero():
    ritz = search(np.zeros((200, 200)), 2, "LA").run()
    assert ritz.converged and not ritz.values.any() and not ritz.residuals.any()


def test_the_largest_residual_decides_and_nan_is_refused():
    class Stopped(KrylovSearch):
        def _restart(self, kept):
            raise AssertionError("a restart")

    def apply(v, out):
        out[...] = np.nan

    with pytest.raises(OverflowError, match="overflow"):
        Stopped(functools.partial(steps, apply, None), 200, 1, "LA", 1).run()
    assert most_vectors(1, 1) == 64 and most_vectors(20, 22) == 192 and most_vectors(1, 40) == 123
