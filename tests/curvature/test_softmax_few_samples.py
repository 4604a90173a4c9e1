"""A last layer under cross-entropy with fewer samples than features: as many directions as samples, all else zeros."""

from __future__ import annotations

import exact_last_layer
import numpy as np
import pytest
from looped import each

import hesskern as hk


def hessian(samples=6, features=11, classes=3, seed=0, *, bias=True, dtype="float64", **options):
    rng = np.random.default_rng(seed)
    F, logits = rng.standard_normal((samples, features)), 2 * rng.standard_normal((samples, classes))
    weights = 0.1 + rng.random(samples)
    F, logits, weights = (array.astype(dtype) for array in (F, logits, weights))
    return hk.SoftmaxHessian(F, logits, bias=bias, sample_weights=weights, **options)


def truth(H):
    return exact_last_layer.eigenvalues(H.features, H.logits, H.sample_weights, bias=H.bias)


def agree(H, *, digits=1e-13):
    """Compare eigenvalues, rank and condition number with 60 digits, and vectors with the dense matrix."""
    exact, size = truth(H), H.shape[0]
    found = H.condition()
    assert found.rank <= len(exact) <= found.rank + found.undecided
    ratio = exact[0] / exact[found.rank - 1]
    assert abs(found.value / ratio - 1) <= found.uncertainty
    expanded = exact_last_layer.expanded(exact, size)
    np.testing.assert_allclose(H.eigvalsh(), expanded, rtol=0, atol=digits * expanded[-1])
    dense = H.toarray().astype(float)
    values, vectors = H.eigh()
    largest = np.abs(dense).max()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(size), atol=1e-13)
    np.testing.assert_allclose(dense @ vectors, vectors * values, atol=size * largest * (digits + 1e-15))
    return found, len(exact)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("samples", [1, 6, 11, 13])
def test_spectra_and_vectors_against_60_digits(backend, samples, bias):
    H = hessian(samples, bias=bias)
    found, rank = agree(H)
    assert found.rank == rank == H.predicted_rank == 2 * min(samples, 11 + bias)
    assert found.undecided == 0
    assert found.uncertainty < 1e-9
    # Zeros by structure are zero to the bit, as one eigenvalue with its multiplicity.
    spectrum = H.spectrum()
    assert spectrum.values[0] == 0
    assert spectrum.multiplicities[0] == H.shape[0] - rank


def test_against_autograd(backend):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    X, labels = torch.from_numpy(rng.standard_normal((4, 9))), torch.tensor([0, 2, 1, 1])
    weight = torch.from_numpy(rng.standard_normal((3, 10)))

    def loss(flat):
        W = torch.cat([flat[:27].reshape(3, 9), flat[27:, None]], dim=1)
        logits = X @ W[:, :9].T + W[:, 9]
        return torch.nn.functional.cross_entropy(logits, labels)

    flat = torch.cat([weight[:, :9].reshape(-1), weight[:, 9]])
    dense = torch.autograd.functional.hessian(loss, flat).numpy()
    logits = (X @ weight[:, :9].T + weight[:, 9]).numpy()
    H = hk.SoftmaxHessian(X.numpy(), logits, bias=True, sample_weights=np.full(4, 0.25))
    np.testing.assert_allclose(H.eigvalsh(), np.linalg.eigvalsh(dense), atol=1e-14)
    values, vectors = H.eigh(5)
    np.testing.assert_allclose(dense @ vectors, vectors * values, atol=1e-14)
    b = rng.standard_normal((30, 3))
    np.testing.assert_allclose(H.solve(b, damping=0.1), np.linalg.solve(dense + 0.1 * np.eye(30), b), atol=1e-12)
    assert H.logdet(0.1) == pytest.approx(np.linalg.slogdet(dense + 0.1 * np.eye(30))[1], rel=1e-13)
    least_norm = np.linalg.pinv(dense, rcond=1e-10, hermitian=True)
    np.testing.assert_allclose(H.solve(dense @ b, rcond=1e-10), least_norm @ dense @ b, atol=1e-12)
    with pytest.raises(np.linalg.LinAlgError, match="rank 8 of 30"):
        H.solve(b)


def graded(seed):
    """Columns in units from 1e-8 to 1e8, samples likewise, repeated and constant columns, repeated samples."""
    rng = np.random.default_rng([20, seed])
    samples, features, classes = (int(count) for count in rng.integers((1, 1, 2), (6, 12, 5)))
    F, logits = (
        rng.standard_normal((samples, features)),
        rng.choice([1.0, 15.0]) * rng.standard_normal((samples, classes)),
    )
    if seed % 2:
        F *= 10.0 ** rng.uniform(-8, 8, features)
    if seed % 3 == 0:
        F *= 10.0 ** rng.uniform(-8, 8, (samples, 1))
    if seed % 5 == 0:
        F[:, 0] = 1.0
    if seed % 7 == 0:
        F[:, 0] = F[:, -1]
    if seed % 4 == 0:
        F[0], logits[0] = F[-1], logits[-1]
    weights = 10.0 ** rng.uniform(-6, 6, samples) if seed % 6 == 0 else np.ones(samples)
    return hk.SoftmaxHessian(F, logits, bias=bool(rng.integers(2)), sample_weights=weights)


@each("seed", range(200), quick=30)
def test_graded_and_dependent_features(seed):
    agree(graded(seed))


def test_repeated_samples_and_columns_are_found_by_the_singular_values(backend):
    rng = np.random.default_rng(4)
    F, logits = rng.standard_normal((5, 20)), rng.standard_normal((5, 3))
    F[1], F[2] = F[0], 2.0 * F[0]
    F[:, 10:] = F[:, :10]
    found, rank = agree(hk.SoftmaxHessian(F, logits, bias=False))
    assert found.rank == rank == 6
    assert found.undecided == 4  # of the ten directions that five samples may have
    assert found.gap > 1e6


def test_float32_features(backend):
    H = hessian(dtype="float32")
    found, rank = agree(H, digits=1e-6)
    assert (found.rank, H.dtype) == (rank, np.float32)


def test_the_factor_is_as_large_as_the_samples_are_many(backend):
    """The matrix itself would take 300 GiB."""
    rng = np.random.default_rng(5)
    F, logits = rng.standard_normal((7, 20000)), rng.standard_normal((7, 10))
    H = hk.SoftmaxHessian(F / 100, logits, bias=True)
    found = H.condition()
    assert (found.rank, found.undecided, found.size) == (63, 0, 200010)
    values, vectors = H.eigh(3, dense=False)
    dense = vectors.toarray()
    assert vectors.shape == dense.shape == (200010, 3)
    np.testing.assert_allclose(dense.T @ dense, np.eye(3), atol=1e-13)
    np.testing.assert_allclose(H @ dense, dense * values, atol=1e-13 * values[-1])
    np.testing.assert_allclose(vectors.T @ (vectors @ np.eye(3)), np.eye(3), atol=1e-13)
    b = rng.standard_normal(200010)
    x = H.solve(b, damping=0.5)
    np.testing.assert_allclose(H @ x + 0.5 * x, b, atol=1e-12)
    assert H.reduction == "200010 parameters to 63; 199947 exact zeros"


def test_the_reduction_in_words():
    assert hessian().reduction == "36 parameters to 12; 24 exact zeros"
    assert hessian(12).reduction == (
        "36 parameters to 24; 12 exact zeros (as many samples as features or more: only the common shift of all "
        "classes is left out)"
    )


@pytest.mark.parametrize("power", [-660, -550, 500, 530])
@pytest.mark.parametrize("samples", [4, 30])
def test_features_whose_squares_leave_the_range(power, samples):
    rng = np.random.default_rng(0)
    features, logits = rng.standard_normal((samples, 6)), rng.standard_normal((samples, 3))
    expected = hk.SoftmaxHessian(features, logits).condition()
    found = hk.SoftmaxHessian(np.ldexp(features, power), logits).condition()
    assert (found.value, found.rank, found.undecided) == (expected.value, expected.rank, expected.undecided)
