"""K-FAC of linear networks: the Gauss-Newton blocks themselves, and curvlinops factor by factor."""

from __future__ import annotations

import pickle

import mpmath
import numpy as np
import problems
import pytest

import hesskern as hk


def kfac_and_gauss_newton(seed, **how):
    problem = problems.general(seed)
    net, loss = problem.network(), problem.loss()
    return hk.KFAC(net, loss, **how), loss.hessian(net).gauss_newton()


@pytest.mark.parametrize("separate_bias", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_blocks_are_those_of_the_gauss_newton_matrix(seed, separate_bias):
    kfac, H = kfac_and_gauss_newton(seed, separate_bias=separate_bias)
    dense, ends = H.toarray(), np.cumsum([block.shape[0] for block in kfac.blocks])
    size = np.abs(dense).max()
    starts = [0, *ends[:-1]]
    expected = np.zeros_like(dense)
    for start, end in zip(starts, ends, strict=True):
        expected[start:end, start:end] = dense[start:end, start:end]
    np.testing.assert_allclose(kfac.toarray(), expected, rtol=0, atol=1e-13 * size)
    V = np.random.default_rng(0).standard_normal((len(dense), 3))
    np.testing.assert_allclose(kfac @ V, expected @ V, rtol=0, atol=1e-12 * size)
    np.testing.assert_allclose(kfac @ V[:, 0], expected @ V[:, 0], rtol=0, atol=1e-12 * size)
    np.testing.assert_allclose(kfac.diagonal(), np.diag(expected), rtol=0, atol=1e-13 * size)
    assert kfac.trace() == pytest.approx(np.trace(expected), rel=1e-12)
    # Every block of the Gauss-Newton matrix is a Kronecker product of these factors, also between layers.
    for m, row in enumerate(kfac.parts):
        for k, column in enumerate(kfac.parts):
            output, inner = kfac.factors(m, k)
            entries = np.einsum("rp,sq->rspq", output, inner)
            if row.weight and row.bias:
                entries = np.concatenate([entries[:, :-1].reshape(-1, *entries.shape[2:]), entries[:, -1]])
            entries = entries.reshape(-1, *entries.shape[-2:])
            if column.weight and column.bias:
                entries = np.concatenate([entries[:, :, :-1].reshape(len(entries), -1), entries[:, :, -1]], axis=1)
            found = entries.reshape(len(entries), -1)
            wanted = dense[starts[m] : ends[m], starts[k] : ends[k]]
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13 * size)


@pytest.mark.parametrize("separate_bias", [False, True])
def test_spectrum_condition_and_solutions(separate_bias):
    problem = problems.normal([4, 6, 3], 40, bias=True, kind="mean")
    net, loss = problem.network(), problem.loss()
    kfac = hk.KFAC(net, loss, separate_bias=separate_bias)
    dense, gradient = kfac.toarray(), loss.gradient(net)
    np.testing.assert_allclose(kfac.eigvalsh(), np.linalg.eigvalsh(dense), atol=1e-14)
    values, vectors = kfac.eigh()
    np.testing.assert_allclose(dense @ vectors, vectors * values, atol=1e-13)
    # The first layer's units reach 3 outputs; what the second sees has 5 dimensions, the constant among them.
    assert kfac.rank() == (3 * 4 + 3 + 3 * 5 + 3 if separate_bias else 3 * 5 + 3 * 5)
    nonzero = np.linalg.svd(dense, compute_uv=False)[: kfac.rank()]
    assert kfac.cond() == pytest.approx(nonzero[0] / nonzero[-1], rel=1e-10)
    damped = dense + 0.125 * np.eye(len(dense))
    for b in (gradient, np.random.default_rng(0).standard_normal((len(dense), 2))):
        np.testing.assert_allclose(kfac.solve(b, 0.125), np.linalg.solve(damped, b), atol=1e-12)
    assert kfac.logdet(0.125) == pytest.approx(np.linalg.slogdet(damped)[1], rel=1e-12)
    with pytest.raises(np.linalg.LinAlgError, match="singular: rank"):
        kfac.solve(gradient)


def test_the_natural_gradient_of_one_layer_is_newtons_step():
    """A quadratic: one step of length 1 ends in the minimum."""
    problem = problems.normal([4, 3], 30, bias=True)
    net, loss = problem.network(), problem.loss()
    step = hk.KFAC(net, loss).solve(loss.gradient(net))
    np.testing.assert_allclose(step, loss.hessian(net).gauss_newton().solve(loss.gradient(net)), atol=1e-12)
    theta, outputs = net.flatten() - step, net.widths[-1]
    there = hk.LinearNetwork([theta[:-outputs].reshape(outputs, -1)], [theta[-outputs:]])
    assert np.abs(loss.gradient(there)).max() < 1e-12


def test_nothing_grows_with_the_samples_and_the_factors_are_averages():
    problem = problems.normal([3, 4, 2], 7, kind="mean")
    net = problem.network()
    twice = hk.SquaredLoss(np.tile(problem.X, (2, 1)), np.tile(problem.Y, (2, 1)), "mean")
    for one, other in zip(hk.KFAC(net, problem.loss()).input_factors, hk.KFAC(net, twice).input_factors, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)
    for one, other in zip(hk.KFAC(net, problem.loss()).output_factors, hk.KFAC(net, twice).output_factors, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)


def test_parameters_float32_and_pickles():
    problem = problems.normal([3, 4, 2], 7, bias=True)
    net, loss = problem.network("float32"), problem.loss("float32")
    kfac = hk.KFAC(net, loss, ["1.bias", 0])
    assert kfac.shape == (18, 18)
    assert (kfac.dtype, kfac.toarray().dtype, kfac.solve(np.ones(18, np.float32), 1.0).dtype) == ("float32",) * 3
    again = pickle.loads(pickle.dumps(kfac))
    assert (again.toarray() == kfac.toarray()).all()
    assert repr(again) == "<18x18 K-FAC of 2 blocks with dtype=float32>"


def test_bad_input():
    problem = problems.normal([3, 4, 2], 7)
    net, loss = problem.network(), problem.loss()
    kfac = hk.KFAC(net, loss)
    with pytest.raises(ValueError, match="how is 'soft'"):
        kfac.solve(loss.gradient(net), 1.0, how="soft")
    with pytest.raises(ValueError, match=r"rcond is 0\.0 with how='factored'"):
        kfac.solve(loss.gradient(net), 1.0, how="factored", rcond=0.0)
    with pytest.raises(np.linalg.LinAlgError, match="a factor of layer 0 is singular with damping 0"):
        kfac.solve(loss.gradient(net), how="factored")
    with pytest.raises(ValueError, match="column is 2; blocks are counted from 0 to 1"):
        kfac.factors(0, 2)
    with pytest.raises(ValueError, match=r"b has shape \(3,\); expected \(20,\)"):
        kfac.solve(np.ones(3), 1.0, how="factored")
    with pytest.raises(TypeError, match="separate_bias is None"):
        hk.KFAC(net, loss, separate_bias=None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("separate_bias", [False, True])
@pytest.mark.parametrize("kind", ["mean", "sum"])
def test_curvlinops(kind, separate_bias):
    """Its factors, products and all three of its dampings, from batches of two sizes."""
    curvlinops, torch = pytest.importorskip("curvlinops"), pytest.importorskip("torch")
    torch.manual_seed(0)
    linear = torch.nn.Linear
    model = torch.nn.Sequential(linear(4, 6), linear(6, 5, bias=False), linear(5, 3)).double()
    X, Y = torch.randn(17, 4).double(), torch.randn(17, 3).double()
    theirs = curvlinops.KFACLinearOperator(
        model, torch.nn.MSELoss(reduction=kind), list(model.parameters()), [(X[:9], Y[:9]), (X[9:], Y[9:])],
        fisher_type="type-2", kfac_approx="expand", separate_weight_and_bias=separate_bias,
    )  # fmt: skip
    net, loss = hk.LinearNetwork.from_torch(model), hk.SquaredLoss(X.numpy(), Y.numpy(), kind)
    ours = hk.KFAC(net, loss, separate_bias=separate_bias)
    v = torch.randn(ours.shape[0], dtype=torch.float64)
    np.testing.assert_allclose(ours @ v.numpy(), (theirs @ v).numpy(), atol=1e-12)
    with_weights = [k for k, part in enumerate(ours.parts) if part.weight]
    for layer, k in enumerate(with_weights):
        np.testing.assert_allclose(ours.input_factors[k], theirs._input_covariances[str(layer)], atol=1e-13)
        np.testing.assert_allclose(ours.output_factors[k], theirs._gradient_covariances[str(layer)], atol=1e-12)
    gradient = loss.gradient(net)
    for how, arguments in {
        "exact": {"use_exact_damping": True},
        "factored": {},
        "heuristic": {"use_heuristic_damping": True},
    }.items():
        inverse = curvlinops.KFACInverseLinearOperator(theirs, damping=0.125, **arguments)
        expected = (inverse @ torch.from_numpy(gradient)).numpy()
        np.testing.assert_allclose(ours.solve(gradient, 0.125, how=how), expected, atol=1e-12, err_msg=how)


def test_digits_that_cancel_in_a_product_are_part_of_the_uncertainty(backend):
    """Nearly equal features with large opposite weights: what goes into the second layer has lost nine digits."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((8, 2))
    X = np.column_stack([base[:, 0], base[:, 0] + 1e-9 * base[:, 1]])
    weights = [np.array([[1e9, -1e9], [1.0, 1.0]]), rng.standard_normal((2, 2))]
    loss = hk.SquaredLoss(X, rng.standard_normal((8, 2)))
    found = hk.KFAC(hk.LinearNetwork(weights), loss, params=[1]).condition()
    with mpmath.workdps(60):
        below = mpmath.matrix(X.tolist()) * mpmath.matrix(weights[0].tolist()).T
        values = sorted(mpmath.eigsy(below.T * below, eigvals_only=True))
        error = abs(found.value / (values[1] / values[0]) - 1)
    assert found.rank == 4
    assert error <= found.uncertainty
    assert 1e-12 < found.uncertainty < 1e-3
