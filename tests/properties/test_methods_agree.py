"""Every method of every operator, in both compiled backends against the plain definition."""

from __future__ import annotations

import numpy as np
import problems
import pytest
from looped import each, few_quick
from scipy.sparse.linalg import LinearOperator
from witness import relative

import hesskern as hk
from hesskern.curvature.hessian import Hessian, KroneckerHessian


def operators(problem, name, dtype="float64"):
    """All kinds of operators there are, by what they are called."""
    net = problem.network(dtype)
    X, Y = problem.X.astype(dtype), problem.Y.astype(dtype)
    H = hk.SquaredLoss(X, Y, problem.kind, problem.weight_decay, backend=name).hessian(net)
    last = len(problem.weights) - 1
    rng = np.random.default_rng(0)
    names = [parameter for parameter in net.parameter_names if rng.random() < 0.6] or ["0.weight"]
    part = hk.SquaredLoss(X, Y, problem.kind, problem.weight_decay, backend=name).hessian(net, names)
    found = {"full": H, "gauss_newton": H.gauss_newton(), "functional": H.functional()}
    found |= {"first": H.block(0, 0), "last": H.block(last, last), "selection": part}
    found |= {"selected gauss_newton": part.gauss_newton(), "selected functional": part.functional()}
    return found


COMPILED = pytest.mark.parametrize("compiled", ["cpp", "numba"])


def both(problem, compiled, dtype="float64"):
    ours, theirs = operators(problem, compiled, dtype), operators(problem, "numpy", dtype)
    size = float(np.abs(theirs["full"].toarray()).sum(axis=0).max())
    return [(name, ours[name], theirs[name], size) for name in ours]


def close(found, expected, size, tolerance=1e-12):
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize("compiled", few_quick(["cpp", "numba"], 1))
@each("seed", problems.GENERAL, quick=16)
def test_numbers(seed, compiled):
    problem = problems.general(seed)
    rng = np.random.default_rng(seed)
    for name, ours, theirs, size in both(problem, compiled):
        assert type(ours) is type(theirs)
        P = ours.shape[0]
        V = rng.standard_normal((P, 3))
        close(ours.toarray(), theirs.toarray(), size)
        close(ours.toarray(vec="column"), theirs.toarray(vec="column"), size)
        close(ours @ V, theirs @ V, 5 * size)
        close(ours @ V[:, 0], theirs @ V[:, 0], 5 * size)
        close(ours.diagonal(), theirs.diagonal(), size)
        close(ours.trace(), theirs.trace(), size * P)
        close(ours.eigvalsh(), theirs.eigvalsh(), size)
        spectra = ours.spectrum(), theirs.spectrum()
        assert spectra[0].size == spectra[1].size == P
        assert ours.rank() == theirs.rank(), name
        damping = 2 * size
        close(ours.solve(V, damping=damping), theirs.solve(V, damping=damping), 1 / size)
        close(ours.logdet(damping), theirs.logdet(damping), P)
        for k in (1, min(P, 3)):
            for which in ("LA", "SM"):
                values = [operator.eigh(k, which)[0] for operator in (ours, theirs)]
                close(*(np.sort(np.abs(value)) for value in values), size)


@COMPILED
@each("seed", problems.GENERAL, quick=16)
def test_conditions(seed, compiled):
    for name, ours, theirs, _ in both(problems.general(seed), compiled):
        one, other = ours.condition(), theirs.condition()
        assert (one.rank, one.size, one.negative) == (other.rank, other.size, other.negative), name
        assert one.largest == pytest.approx(other.largest, rel=1e-12)
        if one.rank:
            allowed = one.uncertainty + other.uncertainty + 1e-14
            assert abs(one.value / other.value - 1) <= allowed
            assert abs(one.smallest / other.smallest - 1) <= allowed


@pytest.mark.parametrize("compiled", few_quick(["cpp", "numba"], 1))
@each("seed", problems.GENERAL, quick=16)
def test_float32(seed, compiled):
    problem = problems.general(seed)
    for name, ours, theirs, size in both(problem, compiled, "float32"):
        V = np.random.default_rng(seed).standard_normal((ours.shape[0], 2)).astype(np.float32)
        close(ours.toarray(), theirs.toarray(), size, 1e-5)
        close(ours @ V, theirs @ V, 5 * size, 1e-5)
        close(ours @ V.astype(float), theirs @ V.astype(float), 5 * size, 1e-5)
        close(ours.diagonal(), theirs.diagonal(), size, 1e-5)
        close(ours.eigvalsh(), theirs.eigvalsh(), size, 1e-5)
        close(ours.solve(V, damping=2 * size), theirs.solve(V, damping=2 * size), 1 / size, 1e-5)
        assert ours.condition().size == theirs.condition().size, name


@COMPILED
@each("seed", [seed for seed in range(300) if seed % 5][::5], quick=14)
def test_cross_blocks(seed, compiled):
    problem = problems.general(seed)
    last = len(problem.weights) - 1
    made = [
        hk.SquaredLoss(problem.X, problem.Y, problem.kind, backend=name).hessian(problem.network())
        for name in (compiled, "numpy")
    ]
    for parts in (lambda H: H, lambda H: H.gauss_newton(), lambda H: H.functional()):
        ours, theirs = (parts(H).block(last, 0) for H in made)
        size = float(np.abs(made[1].toarray()).sum(axis=0).max())
        v, u = np.ones(ours.shape[1]), np.ones(ours.shape[0])
        close(ours.toarray(), theirs.toarray(), size)
        close(ours.toarray(vec="column"), theirs.toarray(vec="column"), size)
        close(ours @ v, theirs @ v, size)
        close(ours.T @ u, theirs.T @ u, size)
        close(ours.svdvals(), theirs.svdvals(), size)
        close(ours.diagonal(), theirs.diagonal(), size)


def test_nothing_is_left_out():
    """A public method of the operators that no test here calls would go unnoticed."""
    names = {name for kind in (Hessian, KroneckerHessian) for name in dir(kind) if not name.startswith("_")}
    tested = {
        "toarray", "diagonal", "trace", "spectrum", "eigvalsh", "eigh", "rank", "cond", "condition", "solve", "logdet",
        "gauss_newton", "functional", "block", "parts", "layer", "output_factor", "input_factor", "reduction",
        "predicted_rank", "extremes", "eigsh", "residual_is_noise", "decay",
    }  # fmt: skip
    assert names - set(dir(LinearOperator)) - {"shape", "dtype"} <= tested


def activations(problem):
    """The inputs of each layer, one sample at a time, with the constant input last where the network has biases."""
    constant = any(bias is not None for bias in problem.biases)
    rows = []
    for sample in problem.X:
        inputs, vector = [], list(sample)
        for weight, bias in zip(problem.weights, problem.biases, strict=True):
            inputs.append([*vector, 1.0] if constant else vector)
            shift = np.zeros(len(weight)) if bias is None else bias
            vector = [
                sum(w * v for w, v in zip(row, vector, strict=True)) + b for row, b in zip(weight, shift, strict=True)
            ]
        rows.append(inputs)
    return [np.array([inputs[layer] for inputs in rows]) for layer in range(len(problem.weights))]


@each("seed", range(0, 300, 9), quick=10)
def test_factors(backend, seed):
    """Both factors of a layer's block, by the definition, and the block as their Kronecker product."""
    problem = problems.general(seed)
    inputs = activations(problem)
    scale = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[problem.kind]
    H = problem.loss().hessian(problem.network())
    for layer, weight in enumerate(problem.weights):
        above = np.eye(len(weight))
        for upper in problem.weights[layer + 1 :]:
            above = upper @ above
        block = H.block(layer, layer)
        seen = inputs[layer] if problem.biases[layer] is not None else inputs[layer][:, : weight.shape[1]]
        relative(block.output_factor, scale * above.T @ above)
        relative(block.input_factor, seen.T @ seen)
        assert block.layer == layer
        assert block.cond() == block.condition().value
