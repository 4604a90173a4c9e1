"""The QR reduction of the samples keeps loss, gradient and Hessian."""

from __future__ import annotations

import numpy as np
import problems
import pytest

import hesskern as hk


def reduce_samples(X, Y, *, bias):
    return hk.SquaredLoss(X, Y).data(bias=bias, reduced=True)


@pytest.mark.parametrize("bias", [False, True])
def test_the_reduced_data_have_the_same_moments(backend, bias):
    problem = problems.normal([4, 3], 60)
    reduced = reduce_samples(problem.X, problem.Y, bias=bias)
    columns = [problem.X, np.ones((60, 1))] if bias else [problem.X]
    small = [reduced.X, reduced.column[:, None]] if bias else [reduced.X]
    full, short = np.hstack(columns), np.hstack(small)
    assert len(short) == 4 + bias
    np.testing.assert_allclose(short.T @ short, full.T @ full, rtol=0, atol=1e-12)
    np.testing.assert_allclose(short.T @ reduced.Y, full.T @ problem.Y, rtol=0, atol=1e-12)
    best = np.linalg.lstsq(full, problem.Y)[0]
    rest = 0.5 * np.sum((problem.Y - full @ best) ** 2)
    assert reduced.constant == pytest.approx(rest, rel=1e-12)


def test_few_samples_stay_as_they_are(backend):
    problem = problems.normal([4, 3], 4)
    reduced = reduce_samples(problem.X, problem.Y, bias=False)
    np.testing.assert_array_equal(reduced.X, problem.X)
    np.testing.assert_array_equal(reduced.Y, problem.Y)
    assert reduced.constant == 0.0


def test_the_arrays_given_are_not_changed(backend):
    problem = problems.normal([4, 3], 30)
    before = problem.X.copy(), problem.Y.copy()
    reduce_samples(problem.X, problem.Y, bias=True)
    np.testing.assert_array_equal(problem.X, before[0])
    np.testing.assert_array_equal(problem.Y, before[1])


def test_dtype_is_kept(backend):
    problem = problems.normal([4, 3], 30)
    reduced = reduce_samples(problem.X.astype(np.float32), problem.Y.astype(np.float32), bias=True)
    assert {array.dtype for array in (reduced.X, reduced.Y, reduced.column)} == {np.dtype(np.float32)}
