"""Operators that travel: pickled, copied, sent to other processes, used by several threads."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import problems
import pytest

import hesskern as hk

LEVELS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def operators(dtype="float64"):
    problem = problems.normal([4, 15, 5, 3], 9, bias=True, kind="mean", weight_decay=0.25)
    loss, net = problem.loss(dtype), problem.network(dtype)
    H = loss.hessian(net)
    part = loss.hessian(net, ["0.bias", "2.weight"])
    return [H, H.gauss_newton(), H.functional(), H.block(1, 1), H.block(0, 2), part, part.functional(), H.block(0, 1).T]


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {level}": lambda x, level=level: pickle.loads(pickle.dumps(x, level)) for level in LEVELS},
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.quick_in_cpp
def test_copies_are_the_same_operator(backend, dtype, how):
    for operator in operators(dtype):
        v = np.random.default_rng(0).standard_normal(operator.shape[1]).astype(dtype)
        for used in (False, True):  # before and after anything was computed
            if used:
                operator @ v, operator.toarray(), operator.condition()
            other = COPIES[how](operator)
            assert type(other) is type(operator)
            assert repr(other) == repr(operator)
            assert (other.shape, other.dtype) == (operator.shape, operator.dtype)
            np.testing.assert_array_equal(other.toarray(), operator.toarray())
            np.testing.assert_array_equal(other @ v, operator @ v)
            assert other.condition() == operator.condition()


def test_results_travel():
    H = operators()[0]
    spectrum = pickle.loads(pickle.dumps(H.spectrum()))
    np.testing.assert_array_equal(spectrum.values, H.spectrum().values)
    np.testing.assert_array_equal(spectrum.multiplicities, H.spectrum().multiplicities)
    values, vectors = H.eigh(3, dense=False)
    other = pickle.loads(pickle.dumps(vectors))
    np.testing.assert_array_equal(other.toarray(), vectors.toarray())
    assert len(values) == 3


@pytest.mark.parametrize("method", ["spectrum", "condition", "toarray", "diagonal", "eigh", "solve", "trace"])
def test_threads_read_one_operator(backend, method):
    """All of them ask a fresh operator at once."""
    problem = problems.normal([6, 40, 8, 5], 20, bias=True)
    H = problem.loss().hessian(problem.network())
    arguments = {"solve": (np.ones(H.shape[0]), 1e4), "eigh": (3,)}.get(method, ())
    expected = pickle.loads(pickle.dumps(getattr(copy.copy(H), method)(*arguments)))
    found = in_threads(lambda _: getattr(H, method)(*arguments), 4)
    for result in found:
        for one, other in zip(arrays(result), arrays(expected), strict=True):
            np.testing.assert_array_equal(one, other)


def arrays(result):
    if isinstance(result, hk.Spectrum):
        return [result.values, result.multiplicities]
    return list(result) if isinstance(result, tuple) else [result]


def in_threads(work, count):
    """What `work(k)` returns or raises in thread k; all of them start at once."""
    results, barrier = [None] * count, threading.Barrier(count)

    def run(k):
        barrier.wait()
        try:
            results[k] = work(k)
        except BaseException as error:
            results[k] = error

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


@pytest.mark.parametrize("widths", [[5, 40, 5], [40, 300, 40]])
def test_threads_multiply_with_an_operator_each(backend, widths):
    problem = problems.normal(widths, 100)
    # The loss names its backend: what the fixture has chosen holds for this thread only.
    H = hk.SquaredLoss(problem.X, problem.Y, backend=backend.name).hessian(problem.network())
    V = np.random.default_rng(0).standard_normal((4, H.shape[0], 3))
    expected = [H @ v for v in V]

    def work(k):
        own = copy.copy(H)
        return all(np.array_equal(own @ V[k], expected[k]) for _ in range(20))

    assert in_threads(work, 4) == [True] * 4


@pytest.mark.parametrize("widths", [[5, 40, 5], [40, 300, 40]])
def test_threads_never_mix_their_products(backend, widths):
    """One operator in four threads: each works in a memory of its own."""
    problem = problems.normal(widths, 100)
    H = problem.loss().hessian(problem.network())
    V = np.random.default_rng(0).standard_normal((4, H.shape[0], 3))
    expected = [H @ v for v in V]

    def work(k):
        return all(np.array_equal(H @ V[k], expected[k]) for _ in range(50))

    assert in_threads(work, 4) == [True] * 4
    for v, product in zip(V, expected, strict=True):  # and nothing stays locked
        np.testing.assert_array_equal(H @ v, product)
