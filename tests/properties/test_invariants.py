"""What holds for every network, data and vector: Hypothesis looks for one where it does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import problems
from hypothesis import given, settings
from hypothesis import strategies as st

import hesskern as hk

settings.register_profile("quick", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("quick")


@st.composite
def problem(draw, max_depth=5, kind=None):
    depth = draw(st.integers(1, max_depth))
    widths = [draw(st.integers(1, 5)) for _ in range(depth + 1)]
    if depth > 1 and draw(st.booleans()):
        layer = draw(st.integers(1, depth - 1))
        widths[layer] = widths[layer - 1] + widths[layer + 1] + draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(st.integers(-2, 2))
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    samples = draw(st.integers(1, 8))
    return problems.Problem(
        [rng.standard_normal((out, inner)) for inner, out in pairs],
        [rng.standard_normal(out) if draw(st.booleans()) else None for _, out in pairs],
        scale * rng.standard_normal((samples, widths[0])),
        scale * rng.standard_normal((samples, widths[-1])),
        kind or draw(st.sampled_from(problems.KINDS)),
        draw(st.sampled_from([0.0, 0.5, 3.0])),
    )


def hessian(given_problem, params=None):
    return given_problem.loss().hessian(given_problem.network(), params)


def vectors(operator, count, seed=0):
    return np.random.default_rng(seed).standard_normal((operator.shape[0], count))


def close(found, expected, size, tolerance=1e-12):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * size)


def norm(operator):
    return max(float(np.abs(operator.toarray()).sum(axis=0).max()), 1e-300)


@given(problem())
def test_symmetry(p):
    H = hessian(p)
    u, v = vectors(H, 2).T
    close(u @ (H @ v), v @ (H @ u), norm(H) * np.linalg.norm(u) * np.linalg.norm(v))
    dense = H.toarray()
    np.testing.assert_array_equal(dense, dense.T)


@given(problem(), st.floats(-100, 100), st.floats(-100, 100))
def test_linearity(p, a, b):
    H = hessian(p)
    u, v = vectors(H, 2).T
    close(H @ (a * u + b * v), a * (H @ u) + b * (H @ v), norm(H) * (1 + abs(a) + abs(b)) * 5)
    assert not (H @ np.zeros(len(u))).any()


@given(problem())
def test_products_are_the_dense_matrix(p):
    H = hessian(p)
    V = vectors(H, 3)
    close(H @ V, H.toarray() @ V, norm(H) * 5)
    for k in range(3):
        close(H @ V[:, k], (H @ V)[:, k], norm(H) * 5)


@given(problem())
def test_the_spectrum_sums_to_the_trace_and_its_squares_to_the_norm(p):
    for operator in (hessian(p), hessian(p).gauss_newton(), hessian(p).functional()):
        spectrum, dense = operator.spectrum(), operator.toarray()
        size = norm(operator) * len(dense)
        assert spectrum.size == len(dense)
        close(spectrum.trace, operator.trace(), size)
        close(operator.trace(), operator.diagonal().sum(), size)
        close(spectrum.values**2 @ spectrum.multiplicities, np.sum(dense**2), size**2)


@given(problem())
def test_gauss_newton_is_positive_semidefinite(p):
    G = hessian(p).gauss_newton()
    assert G.spectrum().min >= 0.0  # squares: not even by rounding
    assert np.linalg.eigvalsh(G.toarray()).min() >= -1e-12 * norm(G)
    assert (G.diagonal() >= 0).all()
    V = vectors(G, 5)
    assert (np.einsum("pk,pk->k", V, G @ V) >= -1e-11 * norm(G)).all()
    assert G.condition().negative == 0


@given(problem())
def test_the_parts_add_up(p):
    H = hessian(p)
    G, F = H.gauss_newton(), H.functional()
    V = vectors(H, 2)
    decay = p.weight_decay
    close(H.toarray(), G.toarray() + F.toarray() + decay * np.eye(H.shape[0]), norm(H))
    close(H @ V, G @ V + F @ V + decay * V, 5 * (norm(G) + norm(F) + decay))
    close(H.diagonal(), G.diagonal() + F.diagonal() + decay, norm(H))
    close(H.trace(), G.trace() + F.trace() + decay * H.shape[0], norm(H) * H.shape[0])


@given(problem(), st.floats(0.01, 50))
def test_decay_shifts(p, decay):
    plain, shifted = dataclasses.replace(p, weight_decay=0.0), dataclasses.replace(p, weight_decay=decay)
    A, B = hessian(plain), hessian(shifted)
    size = norm(A) + decay
    close(B.toarray(), A.toarray() + decay * np.eye(A.shape[0]), size)
    close(B.eigvalsh(), A.eigvalsh() + decay, size)
    close(B.diagonal(), A.diagonal() + decay, size)
    close(B.trace(), A.trace() + decay * A.shape[0], size * A.shape[0])
    np.testing.assert_array_equal(B.gauss_newton().toarray(), A.gauss_newton().toarray())
    np.testing.assert_array_equal(B.functional().toarray(), A.functional().toarray())
    damping = 2 * norm(A)
    v = vectors(A, 1)[:, 0]
    close(B.solve(v, damping=damping), A.solve(v, damping=damping + decay), np.abs(v).max() / norm(A))


@given(problem(kind="half_sum"))
def test_kinds_scale(p):
    p = dataclasses.replace(p, weight_decay=0.0)
    H = hessian(p)
    v = vectors(H, 1)[:, 0]
    for kind, factor in (("sum", 2.0), ("mean", 2.0 / p.Y.size)):
        other = hessian(dataclasses.replace(p, kind=kind))
        size = factor * norm(H)
        close(other.toarray(), factor * H.toarray(), size)
        close(other @ v, factor * (H @ v), 5 * size)
        close(other.eigvalsh(), factor * H.eigvalsh(), size)
        close(other.diagonal(), factor * H.diagonal(), size)
        for layer in range(len(p.weights)):
            block, scaled = H.block(layer, layer), other.block(layer, layer)
            assert scaled.rank() == block.rank()
            if block.rank():
                np.testing.assert_allclose(scaled.cond(), block.cond(), rtol=1e-12)


@given(problem(), st.randoms(use_true_random=False))
def test_permuting_hidden_units_permutes_the_hessian(p, random):
    weights, biases = list(p.weights), list(p.biases)
    theta = np.arange(p.network().num_parameters, dtype=float)
    where = p.network().unflatten(theta)
    places, shifts = list(where.weights), list(where.biases)
    for layer in range(len(weights) - 1):
        order = list(range(len(weights[layer])))
        random.shuffle(order)
        for pieces in (weights, places):
            pieces[layer], pieces[layer + 1] = pieces[layer][order], pieces[layer + 1][:, order]
        for pieces in (biases, shifts):
            pieces[layer] = None if pieces[layer] is None else pieces[layer][order]
    order = hk.LinearNetwork(places, shifts).flatten().astype(int)
    H, permuted = hessian(p), hessian(dataclasses.replace(p, weights=weights, biases=biases))
    close(permuted.toarray(), H.toarray()[np.ix_(order, order)], norm(H))
    V = vectors(H, 2)
    close(permuted @ V[order], (H @ V)[order], 5 * norm(H))
    close(permuted.eigvalsh(), H.eigvalsh(), norm(H))


@given(problem())
def test_orthogonal_changes_of_the_samples_change_nothing(p):
    """Without biases the Hessian depends on X and Y through X.T X and X.T Y only."""
    p = dataclasses.replace(p, biases=[None] * len(p.weights), kind="half_sum")
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((len(p.X) + 7, len(p.X))))[0]
    H, other = hessian(p), hessian(dataclasses.replace(p, X=Q @ p.X, Y=Q @ p.Y))
    close(other.toarray(), H.toarray(), norm(H))
    close(other @ vectors(H, 1), H @ vectors(H, 1), 5 * norm(H))


@given(problem())
def test_eigenvectors_diagonalise(p):
    H = hessian(p)
    values, vectors_found = H.eigh()
    close((vectors_found * values) @ vectors_found.T, H.toarray(), norm(H))
    close(vectors_found.T @ vectors_found, np.eye(len(values)), 1.0)


@given(problem(), st.floats(0.1, 10))
def test_solving_undoes_multiplying(p, extra):
    H = hessian(p)
    damping = max(0.0, -H.spectrum().min) + extra * norm(H)
    x = vectors(H, 1)[:, 0]
    close(H.solve(H @ x + damping * x, damping=damping), x, np.abs(x).max() * (2 + 2 / extra))


@given(problem())
def test_backends_agree(p):
    net = p.network()
    found = []
    for name in ("cpp", "numba", "numpy"):
        H = hk.SquaredLoss(p.X, p.Y, p.kind, p.weight_decay, backend=name).hessian(net)
        found.append((H.toarray(), H @ vectors(H, 2), H.eigvalsh()))
    size = max(np.abs(found[0][0]).sum(axis=0).max(), 1e-300)
    for ours in found[:-1]:
        for mine, theirs in zip(ours, found[-1], strict=True):
            close(mine, theirs, 5 * size)
