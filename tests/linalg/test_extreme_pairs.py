"""A few eigenpairs with a certificate: copies that were missed are searched for, and what is too large is said."""

import functools

import numpy as np
import pytest

from hesskern._base import memory
from hesskern._base.lanczos import steps
from hesskern.linalg import extreme_pairs
from hesskern.linalg.certificate import DenseOperator
from hesskern.linalg.extreme_pairs import ToFactorise, searched, worthwhile

VALUES = np.concatenate([np.linspace(0.0, 1.0, 296), [1.5, 2.0, 2.0, 2.0]])
MATRIX = np.diag(VALUES)


def found(k, which="LA", matrix=MATRIX, **options):
    def apply(v, out):
        out[...] = matrix @ v

    size = len(matrix)
    tests = [ToFactorise(size, lambda: DenseOperator(lambda: matrix, size))]
    return searched(functools.partial(steps, apply, None), size, k, which, tests, **options)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7])
def test_all_copies(k):
    few = found(k)
    np.testing.assert_allclose(np.sort(few.values), VALUES[-k:], rtol=0, atol=1e-13)
    assert few.certified and few.note.endswith("no other eigenvalue is larger") and few.error < 1e-12


def test_a_sabotaged_search_is_noticed(monkeypatch):
    """One start vector finds one of three copies; without further rounds that stays so, and is said."""
    monkeypatch.setattr(extreme_pairs, "_MOST_ROUNDS", 1)
    # Stopped early: later, rounding errors bring the copies into the space.
    monkeypatch.setattr("hesskern.linalg.krylov._UNITS", 1e12)
    monkeypatch.setattr("hesskern.linalg.krylov._FIRST_LOOK", 16)
    few = found(2)
    np.testing.assert_allclose(np.sort(few.values), [1.5, 2.0], rtol=1e-3)
    assert not few.certified and few.small
    assert few.note == "not certified: the factorisation shows that an eigenvalue is missing"


def test_a_start_without_the_wanted_vector_is_noticed(monkeypatch):
    class Blind:
        def __init__(self, seed):
            self._random = np.random.Generator(np.random.PCG64(seed))
            self.drawn = 0

        def standard_normal(self, size):
            vector = self._random.standard_normal(size)
            self.drawn += 1
            if self.drawn == 1:
                vector[-1] = 0.0
            return vector

        def random(self, size):
            return self._random.random(size)

    matrix = np.diag(np.concatenate([np.linspace(0.0, 1.0, 299), [2.0]]))
    monkeypatch.setattr(np.random, "default_rng", Blind)
    monkeypatch.setattr(extreme_pairs, "_MOST_ROUNDS", 1)
    blind = found(1, matrix=matrix)
    assert blind.values[0] == pytest.approx(1.0) and not blind.certified
    monkeypatch.setattr(extreme_pairs, "_MOST_ROUNDS", 6)
    few = found(1, matrix=matrix)
    assert few.certified and few.values[0] == pytest.approx(2.0, rel=1e-14)


def test_an_iteration_stopped_early_is_not_certified(monkeypatch):
    monkeypatch.setattr("hesskern.linalg.krylov._MOST_RESTARTS", 1)
    few = found(2, matrix=np.diag(np.linspace(0.0, 1.0, 1000)))
    assert not few.certified and few.note == "not certified: the iteration did not converge"


def test_what_is_too_large_is_said(monkeypatch):
    few = found(3, refusal="nobody asked for it")
    np.testing.assert_allclose(few.values, 2.0, rtol=1e-14)  # more start vectors than values wanted
    assert not few.certified and not few.small and few.note == "not certified: nobody asked for it"
    monkeypatch.setattr(extreme_pairs, "_MOST_FACTORISED", 299)
    assert found(1).note == "not certified: it takes a factorisation of 300 rows, more than 299"
    monkeypatch.undo()
    monkeypatch.setattr(extreme_pairs, "_LARGE", 1)
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    few = found(1)
    assert few.note == "not certified: it takes a factorisation of 300 rows, and 2.1 MiB of memory"


def test_when_it_is_worthwhile():
    assert worthwhile(700, 900, 1) and worthwhile(700, 900, 30)
    assert not worthwhile(200, 900, 1) and not worthwhile(700, 900, 40) and not worthwhile(700, 100, 1)
