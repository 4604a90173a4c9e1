"""The reduction by ranks: values, vectors and ranks of deep networks, against the dense matrix."""

from __future__ import annotations

import numpy as np
import problems
import pytest
from looped import each

import hesskern as hk


@pytest.fixture(autouse=True)
def _however_small(monkeypatch):
    """Ranks are looked for in networks of any size."""
    monkeypatch.setattr("hesskern.curvature.deep_problem._LARGE", 0)


def network(seed):
    """A network of depth 1 to 6: few samples, equal, narrow or wide layers, ranks that are not full, biases."""
    rng = np.random.default_rng([20, seed])
    depth = int(rng.integers(1, 7))
    widths = [int(width) for width in rng.integers(1, 12, depth + 1)]
    if seed % 4 == 0 and depth > 2:
        widths[1:-1] = [int(rng.integers(5, 13))] * (depth - 1)
    weights = [rng.standard_normal((b, a)) / np.sqrt(a) for a, b in zip(widths[:-1], widths[1:], strict=True)]
    if seed % 5 == 0:
        layer = int(rng.integers(depth))
        left, values, right = np.linalg.svd(weights[layer], full_matrices=False)
        values[(len(values) + 1) // 2 :] = 0.0
        weights[layer] = (left * values) @ right
    biases = [rng.standard_normal(width) if rng.random() < 0.4 else None for width in widths[1:]]
    X = rng.standard_normal((int(rng.integers(1, 20)), widths[0]))
    if seed % 3 == 0:
        X[:, -1] = X[:, 0]
    if seed % 7 == 0:
        X[:, 0] = 1.0
    Y = rng.standard_normal((len(X), widths[-1]))
    return problems.Problem(weights, biases, X, Y, problems.KINDS[seed % 3], (0.0, 0.1)[seed % 2])


def parts_of(H):
    return {"full": H, "functional": H.functional(), "gauss_newton": H.gauss_newton()}


@each("seed", range(500), quick=60)
def test_values_and_vectors(seed):
    problem = network(seed)
    for name, H in parts_of(problem.loss().hessian(problem.network())).items():
        dense = H.toarray()
        expected = np.linalg.eigvalsh(dense)
        size = np.abs(expected).max()
        np.testing.assert_allclose(H.eigvalsh(), expected, rtol=0, atol=1e-13 * size, err_msg=name)
        values, vectors = H.eigh()
        residual = np.linalg.norm(dense @ vectors - vectors * values, 2)
        assert residual <= 1e-12 * size, name
        assert np.linalg.norm(vectors.T @ vectors - np.eye(len(dense))) <= 1e-12 * len(dense) ** 0.5, name


@each("seed", range(200), quick=40)
def test_selected_parameters(seed):
    problem = network(seed)
    net, rng = problem.network(), np.random.default_rng(seed)
    names = [name for name in net.parameter_names if rng.random() < 0.6] or [net.parameter_names[0]]
    for name, H in parts_of(problem.loss().hessian(net, names)).items():
        dense = H.toarray()
        expected = np.linalg.eigvalsh(dense)
        np.testing.assert_allclose(
            H.eigvalsh(), expected, rtol=0, atol=1e-13 * max(np.abs(expected).max(), 1e-300), err_msg=f"{name} {names}"
        )


@each("seed", range(100), quick=20)
def test_solve_and_logdet(seed):
    problem = network(seed)
    H = problem.loss().hessian(problem.network())
    dense, b = H.toarray(), np.random.default_rng(seed).standard_normal(H.shape[0])
    damping = 0.5 + float(np.abs(np.linalg.eigvalsh(dense)).max())
    shifted = dense + damping * np.eye(len(dense))
    np.testing.assert_allclose(H.solve(b, damping), np.linalg.solve(shifted, b), rtol=0, atol=1e-12 * np.abs(b).max())
    assert H.logdet(damping) == pytest.approx(np.linalg.slogdet(shifted)[1], rel=1e-12, abs=1e-11)


@each("biased", [False, True])
def test_the_size_is_the_rank_in_general_position(biased):
    """Singh, Bachmann and Hofmann (2021): 2qM - Lq² + q(r + K) without biases."""
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork.random([5, 20, 20, 20, 5], seed=0, bias=biased)
    X, Y = rng.standard_normal((40, 5)), rng.standard_normal((40, 5))
    condition = hk.SquaredLoss(X, Y).hessian(net).condition()
    spectrum = hk.SquaredLoss(X, Y).hessian(net).spectrum()
    zeros = int(spectrum.multiplicities[spectrum.values == 0].sum())
    if not biased:
        assert condition.rank == 2 * 5 * 60 - 4 * 25 + 5 * 10 == 550
    assert zeros == spectrum.size - condition.rank
    assert condition.undecided == 0


@pytest.mark.long
def test_a_network_of_21000_parameters():
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork.random([5, 100, 100, 100, 5], seed=0)
    H = hk.SquaredLoss(rng.standard_normal((50, 5)), rng.standard_normal((50, 5))).hessian(net)
    condition = H.condition()
    assert (condition.rank, condition.size, condition.undecided) == (2950, 21000, 0)
    values, vectors = H.eigh(3, "LM")
    assert np.linalg.norm(H @ vectors - vectors * values) <= 1e-12 * np.abs(values).max()


@pytest.mark.parametrize("d", [1e4, 1e8, 1e15])
@pytest.mark.parametrize("widths", [(4, 3, 2), (4, 3, 3, 2)])
def test_graded_samples_and_outputs_keep_their_part_of_the_residual(d, widths):
    """A sample with small features and a large target, an output with small weights and a large one."""
    for seed in range(6):
        problem = problems.normal(list(widths), 3, seed)
        if seed % 2:
            problem.X[0] /= d
            problem.Y[0] *= d
        else:
            problem.weights[-1][0] /= d
            problem.Y[:, 0] *= d
        for name, H in parts_of(problem.loss().hessian(problem.network())).items():
            dense = H.toarray()
            expected = np.linalg.eigvalsh(dense)
            size = np.abs(expected).max()
            np.testing.assert_allclose(H.eigvalsh(), expected, rtol=0, atol=1e-13 * size, err_msg=name)
            values, vectors = H.eigh()
            assert np.linalg.norm(dense @ vectors - vectors * values, 2) <= 1e-12 * size, name


def test_what_rounding_leaves_out_is_no_zero_to_be_sure_of():
    """A damping below the errors of the eigenvalues is refused, though those left out come back as zeros."""
    problem = problems.normal([4, 6, 6, 3], 9)
    problem.X[:, 3] = problem.X[:, 0] * (1 + 1e-15 * problem.X[:, 1])
    H = problem.loss().hessian(problem.network())
    condition = H.condition()
    assert condition.undecided
    damping = 0.1 * condition.tolerance * condition.largest
    with pytest.raises(np.linalg.LinAlgError, match="below the rounding error"):
        H.solve(np.ones(H.shape[0]), damping)
    with pytest.raises(np.linalg.LinAlgError, match="below the rounding error"):
        H.logdet(damping)


def test_a_residual_that_is_zero_only_as_computed():
    """The exact residual is 0.1 + 0.2 - 0.3 for floats, which is not zero: nothing is called a zero by shape."""
    net = hk.LinearNetwork([np.full((4, 1), 0.25), np.full((1, 4), 1.0)])
    H = hk.SquaredLoss(np.array([[0.1]]), np.array([[0.1]])).hessian(net)
    assert H.functional().predicted_rank == 8
    assert H.functional().condition().undecided == 8
