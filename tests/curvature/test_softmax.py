"""The Hessian of softmax cross-entropy with respect to a last layer: its definition, its digits, its rank."""

from __future__ import annotations

import functools
import math
import pickle

import mpmath
import numpy as np
import pytest

import hesskern as hk


def problem(samples=23, features=3, classes=4, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    arrays = (
        rng.standard_normal((samples, features)),
        2 * rng.standard_normal((samples, classes)),
        rng.random(samples),
    )
    return [array.astype(dtype) for array in arrays]


def defined(features, logits, weights, *, bias):
    """Sample after sample, parameter after parameter."""
    features = np.column_stack([features, np.ones(len(features))]) if bias else features
    (samples, inner), classes = features.shape, logits.shape[1]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    index = [(c, k) for c in range(classes) for k in range(inner - bias)] + [
        (c, inner - 1) for c in range(classes)
    ] * bias
    return np.array(
        [
            [
                sum(
                    weights[n] * p[n, c] * ((c == e) - p[n, e]) * features[n, j] * features[n, k]
                    for n in range(samples)
                )
                for e, k in index
            ]
            for c, j in index
        ]
    )


@pytest.mark.parametrize("bias", [False, True])
def test_matrix_products_and_the_rest_are_those_of_the_definition(backend, dtype, close, bias):
    features, logits, weights = problem(dtype=dtype)
    H = hk.SoftmaxHessian(features, logits, bias=bias, sample_weights=weights)
    expected = defined(*problem(), bias=bias)
    dense = H.toarray()
    assert dense.dtype == dtype
    assert (dense == dense.T).all()
    close(dense, expected, dtype)
    V = np.random.default_rng(1).standard_normal((len(expected), 19))  # more than go through at once
    close(H @ V.astype(dtype), expected @ V, dtype, factor=10)
    close(H @ V[:, 0].astype(dtype), expected @ V[:, 0], dtype, factor=10)
    close(H.diagonal(), np.diag(expected), dtype)
    close(H.trace(), np.trace(expected), dtype)


@pytest.mark.parametrize("shape", [(1, 1, 2), (300, 17, 5), (700, 40, 10)])
def test_backends_agree_at_sizes_that_fill_chunks(backend, close, shape):
    features, logits, weights = problem(*shape)
    with hk.use_backend("numba" if backend.name != "numba" else "cpp"):
        other = hk.SoftmaxHessian(features, logits, bias=True, sample_weights=weights).toarray()
    H = hk.SoftmaxHessian(features, logits, bias=True, sample_weights=weights)
    close(H.toarray(), other, factor=10)


def exact(features, logits):
    """The matrix in 60 digits, of the definition."""
    with mpmath.workdps(60):
        classes, inner = len(logits[0]), len(features[0])
        H = mpmath.zeros(classes * inner)
        for f, z in zip(features, logits, strict=True):
            e = [mpmath.exp(mpmath.mpf(float(value))) for value in z]
            p = [value / mpmath.fsum(e) for value in e]
            for c in range(classes):
                for k in range(classes):
                    value = p[c] * ((c == k) - p[k])
                    for i in range(inner):
                        for j in range(inner):
                            H[c * inner + i, k * inner + j] += value * mpmath.mpf(float(f[i])) * mpmath.mpf(float(f[j]))
        return H


def eigenvalues(H, zeros):
    with mpmath.workdps(60):
        found = sorted(mpmath.eigsy(H, eigvals_only=True))
        return np.array([float(value) for value in found[zeros:]])


def test_the_condition_number_has_the_digits_that_the_matrix_has_lost():
    """Features graded over eight orders of magnitude, probabilities near 0 and 1: 60 digits decide."""
    rng = np.random.default_rng(3)
    features = rng.standard_normal((9, 2)) * [1.0, 1e-8]
    logits = 6 * rng.standard_normal((9, 3))
    H = hk.SoftmaxHessian(features, logits)
    truth = eigenvalues(exact(features, logits), 2)
    found = H.condition()
    assert found.rank == 4
    assert found.value == pytest.approx(truth[-1] / truth[0], rel=1e-6)
    assert abs(found.value / (truth[-1] / truth[0]) - 1) < found.uncertainty
    dense = np.linalg.eigvalsh(H.toarray())
    assert dense[2] < 0 or dense[-1] / dense[2] != pytest.approx(truth[-1] / truth[0], rel=0.1)


def test_probabilities_of_large_logits_keep_their_digits():
    """p = 1 - 1e-17 rounds to 1, and 1 - p is not 0."""
    features, logits = np.array([[1.0]]), np.array([[1e4 + 40.0, 1e4, 1e4 + 1.0]])
    truth = exact(features, logits - 1e4)
    H = hk.SoftmaxHessian(features, logits)
    for c in range(3):
        for k in range(3):
            assert H.toarray()[c, k] == pytest.approx(float(truth[c, k]), rel=1e-13, abs=0)
    assert H.diagonal() == pytest.approx(np.diag(H.toarray()), rel=1e-13, abs=0)
    np.testing.assert_allclose(H.eigvalsh()[1:], eigenvalues(truth, 1), rtol=1e-13)


def test_spectrum_rank_and_what_shifts_all_classes():
    features, logits, weights = problem(40, 3, 4)
    H = hk.SoftmaxHessian(features, logits, bias=True, sample_weights=weights)
    dense = H.toarray()
    np.testing.assert_allclose(H.eigvalsh(), np.linalg.eigvalsh(dense), atol=1e-13)
    assert (H.rank(), H.condition().size, H.condition().gap) == (12, 16, np.inf)
    common = np.concatenate([np.tile([1.0, -2.0, 3.0], 4), np.full(4, 5.0)])
    np.testing.assert_allclose(H @ common, 0, atol=1e-13)
    values, vectors = H.eigh()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(16), atol=1e-13)
    np.testing.assert_allclose(dense @ vectors, vectors * values, atol=1e-13)
    # Features that all lie on a line.
    assert hk.SoftmaxHessian(np.outer(features[:, 0], [1.0, 2.0]), logits).rank() == 3
    # One sample: the rank of its probabilities.
    assert hk.SoftmaxHessian(features[:1], logits[:1]).rank() == 3


def test_solutions():
    features, logits, weights = problem(40, 3, 4)
    H = hk.SoftmaxHessian(features, logits, bias=True, sample_weights=weights)
    b = np.random.default_rng(0).standard_normal((16, 2))
    expected = np.linalg.solve(H.toarray() + 0.25 * np.eye(16), b)
    np.testing.assert_allclose(H.solve(b, damping=0.25), expected, atol=1e-12)
    np.testing.assert_allclose(H.solve(H @ b[:, 0], rcond=0.0), np.linalg.pinv(H.toarray()) @ H @ b[:, 0], atol=1e-12)
    with pytest.raises(np.linalg.LinAlgError, match="rank 12 of 16"):
        H.solve(b)
    assert H.logdet(0.25) == pytest.approx(np.linalg.slogdet(H.toarray() + 0.25 * np.eye(16))[1], rel=1e-12)


def test_float64_vectors_are_not_rounded_for_float32_features():
    features, logits, weights = problem(dtype="float32")
    H = hk.SoftmaxHessian(features, logits, sample_weights=weights)
    v = np.random.default_rng(0).standard_normal(12)
    expected = defined(*(array.astype(float) for array in (features, logits, weights)), bias=False) @ v
    np.testing.assert_allclose(H @ v, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def test_it_is_pickled_and_described():
    features, logits, weights = problem()
    H = hk.SoftmaxHessian(features, logits, bias=True, sample_weights=weights, backend="numpy")
    again = pickle.loads(pickle.dumps(H))
    assert (again.toarray() == H.toarray()).all()
    assert "16x16 Hessian of softmax cross-entropy of 23 samples in 4 classes" in repr(again)
    out = np.empty((16, 16))
    assert H.toarray(out=out) is out


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": np.zeros((3, 1))}, ValueError, "at least two classes"),
        ({"logits": np.zeros((2, 2))}, ValueError, "logits has 2 rows, but features has 3"),
        ({"logits": np.zeros((3, 2), np.float32)}, TypeError, "logits has dtype float32, but features has float64"),
        ({"logits": np.full((3, 2), np.nan)}, ValueError, "NaN or infinite"),
        ({"sample_weights": np.array([1.0, -2.0, 1.0])}, ValueError, "sample_weights holds -2"),
        ({"sample_weights": np.ones(2)}, ValueError, r"sample_weights has shape \(2,\)"),
        ({"bias": 1}, TypeError, "bias is 1"),
        ({"backend": "fortran"}, ValueError, "backend is 'fortran'"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"features": np.ones((3, 2)), "logits": np.zeros((3, 2))} | change
    with pytest.raises(error, match=message):
        hk.SoftmaxHessian(**arguments)


@functools.cache
def exact_classes(logits):
    """``diag(p) - p p.T`` of one sample in 60 digits, and its largest eigenvalue."""
    with mpmath.workdps(60):
        odds = [mpmath.exp(mpmath.mpf(value) - mpmath.mpf(max(logits))) for value in logits]
        total, count = mpmath.fsum(odds), range(len(odds))
        rest = [mpmath.fsum(odds[k] for k in count if k != c) for c in count]
        matrix = mpmath.matrix([[odds[c] * (rest[c] if c == e else -odds[e]) / total**2 for e in count] for c in count])
        return matrix, float(max(mpmath.eigsy(matrix, eigvals_only=True)))


def confident(dtype):
    """Logits of one sample: every gap, near ties, many classes, and everything shifted."""
    single = dtype == "float32"
    for gap in (0.0, 15.0, 20.0, 30.0, 40.0, 80.0) if single else (0.0, 15.0, 30.0, 40.0, 200.0, 700.0):
        yield [gap, 0.0]
        yield [0.0, gap, 0.0, 1.0]
        yield [gap, gap, gap - 1e-3, 0.0]
    yield [0.0] * 8 + [40.0]
    for shift in (1e6, -1e6, 1e30, -1e30) + (() if single else (1e300, -1e300)):
        yield [shift, shift, shift]
        yield [shift, shift - 32.0]
    yield [float(np.finfo(dtype).max), -float(np.finfo(dtype).max)]


def test_confident_samples_keep_their_digits_in_products_too(backend, dtype):
    """Entry by entry: a product may be off by rounding of its terms ``|H| |v|``, the others by rounding of an entry."""
    epsilon, least = float(np.finfo(dtype).eps), 40 * float(np.finfo(dtype).tiny)
    features, inner = np.array([[2.0, -0.5]], dtype), [2.0, -0.5, 1.0]
    for logits in confident(dtype):
        given = np.array([logits], dtype)
        classes, largest = exact_classes(tuple(given[0].tolist()))
        order = [(c, k) for c in range(len(logits)) for k in range(2)] + [(c, 2) for c in range(len(logits))]
        dense = np.array([[float(classes[c, e] * inner[j] * inner[k]) for e, k in order] for c, j in order])
        # The difference of two logits is rounded once, which moves a probability by that much.
        unit = epsilon * (32 + 4 * len(logits)) + 2.3e-16 * min(800.0, logits[0] / 2 - logits[-1] / 2)
        H = hk.SoftmaxHessian(features, given, bias=True)
        v = np.random.default_rng(0).standard_normal(len(order)).astype(dtype)
        v[:2] = 0.0
        np.testing.assert_array_less(np.abs(H.toarray() - dense), unit * np.abs(dense) + least, str(logits))
        np.testing.assert_array_less(np.abs(H.diagonal() - np.diag(dense)), unit * np.diag(dense) + least)
        assert H.trace() == pytest.approx(np.trace(dense), rel=unit, abs=1e-306)
        assert H.spectrum().max == pytest.approx(largest * 5.25, rel=1e-12, abs=1e-306)
        # Exact sums of the exact terms: of float64 terms of both signs the sum would be as wrong as what is tested.
        product = [
            float(
                mpmath.fsum(classes[c, e] * inner[j] * inner[k] * float(b) for (e, k), b in zip(order, v, strict=True))
            )
            for c, j in order
        ]
        allowed = unit * (np.abs(dense) @ np.abs(v).astype(float)) + least
        for found in (H @ v, (H @ np.column_stack([v, v]))[:, 1]):
            np.testing.assert_array_less(np.abs(found - product), allowed, str(logits))


def test_the_diagonal_of_features_whose_squares_overflow(backend):
    features, logits = np.array([[1e160, 1.0]]), np.array([[100.0, 0.0]])
    H = hk.SoftmaxHessian(features, logits, sample_weights=np.array([1e-60]))
    q = math.exp(-100.0) * 1e-60
    np.testing.assert_allclose(H.diagonal(), [q * 1e160 * 1e160, q, q * 1e160 * 1e160, q], rtol=1e-13)
    np.testing.assert_allclose(np.diag(H.toarray()), H.diagonal(), rtol=1e-13)


def test_a_diagonal_that_does_not_fit_is_refused():
    H = hk.SoftmaxHessian(np.array([[1e160, 1.0]]), np.zeros((1, 2)))
    for call in (H.diagonal, H.trace):
        with pytest.raises(OverflowError, match="larger than float64 can hold"):
            call()


@pytest.mark.parametrize("gap", [20.0, 500.0, 730.5, 800.25, 5000.0])
def test_conditions_of_probabilities_below_the_smallest_float(backend, gap):
    """All samples are classified so confidently that p (1 - p) is subnormal, or 0."""
    features = np.array([[2.0, 1.0], [1.0, -1.0], [0.5, 3.0]])
    logits = np.array([[gap, 0.0, 0.5], [0.25, gap, -1.0], [0.0, 1.5, gap + 1.0]])
    weights = np.array([1.0, 0.0, 2.0])
    found = hk.SoftmaxHessian(features, logits, sample_weights=weights).condition()
    with mpmath.workdps(60):
        total = mpmath.zeros(6)
        for feature, logit, weight in zip(features, logits, weights, strict=True):
            odds = [mpmath.exp(mpmath.mpf(float(x)) - mpmath.mpf(float(max(logit)))) for x in logit]
            p = [each / mpmath.fsum(odds) for each in odds]
            for i in range(3):
                # p (1 - p) without cancellation
                rest = mpmath.fsum(p[k] for k in range(3) if k != i)
                for j in range(3):
                    entry = p[i] * rest if i == j else -p[i] * p[j]
                    for a in range(2):
                        for b in range(2):
                            moment = mpmath.mpf(float(feature[a])) * mpmath.mpf(float(feature[b]))
                            total[2 * i + a, 2 * j + b] += weight * entry * moment
        largest = max(abs(total[i, i]) for i in range(6))
        values = sorted(mpmath.eigsy(total / largest, eigvals_only=True), reverse=True)
        exact = values[0] / values[3]
        error = abs(found.value / exact - 1)
    assert (found.rank, found.undecided) == (4, 0)
    assert error <= 10 * found.uncertainty < 1e-9


def test_logits_of_any_size_have_a_condition(backend):
    for gap in (1e6, 1e15, 1e200, 1e308):
        found = hk.SoftmaxHessian(np.array([[2.0], [1.0]]), np.array([[gap, -gap], [-gap, gap]])).condition()
        assert "is zero" not in found.note
        assert found.rank == 1 or found.undecided or "overflow" in found.note
