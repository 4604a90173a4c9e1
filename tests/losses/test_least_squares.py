"""A loss in ten lines has gradients, Hessians, K-FAC, training and checkpoints."""

from __future__ import annotations

import pickle

import numpy as np
import oracle
import problems
import pytest
from looped import each
from witness import relative

import hesskern as hk
from hesskern._base import checks, devices
from hesskern.backends.data import Data
from hesskern.losses.least_squares import LeastSquaresLoss


class WeightedLoss(LeastSquaresLoss):
    """``½ Σ_n s_n ‖e_n‖²``: rows times the roots of their weights, the biases' column of ones too."""

    scale = 1.0

    def __init__(self, X, Y, sample_weight, weight_decay=0.0):
        super().__init__(X, Y, weight_decay)
        self.sample_weight = checks.as_data(sample_weight, "sample_weight", 1)

    def rows(self):
        root = self.sample_weight**0.5
        return Data(self.X * root[:, None], root, self.Y * root[:, None], 0.0)

    def cpu(self):
        return (
            self
            if self.device == "cpu"
            else WeightedLoss(*map(devices.to_host, self.arrays.values()), self.weight_decay)
        )


def weighted(problem, seed=0):
    """The weighted loss of a problem with whole numbers as weights, and the plain loss with copies of its samples."""
    weights = np.random.default_rng(seed).integers(1, 6, len(problem.X))
    X, Y = (np.repeat(array, weights, axis=0) for array in (problem.X, problem.Y))
    loss = WeightedLoss(*(array.astype(float) for array in (problem.X, problem.Y, weights)), problem.weight_decay)
    return loss, hk.SquaredLoss(X.astype(float), Y.astype(float), weight_decay=problem.weight_decay)


@each("seed", problems.SMALL)
def test_gradients_and_hessians_are_exact(backend, close, seed):
    problem = problems.small(seed)
    loss, copies = weighted(problem, seed)
    X, Y = copies.X.astype(int), copies.Y.astype(int)
    truth = oracle.exact(problem.weights, problem.biases, X, Y, "half_sum", problem.weight_decay)
    value, gradient = loss.value_and_gradient(problem.network())
    close(value, truth.loss)
    close(gradient, truth.gradient)
    H = loss.hessian(problem.network())
    close(H.toarray(), truth.hessian)
    close(H @ np.eye(len(truth.hessian)), truth.hessian)
    close(np.asarray(H.spectrum()), np.linalg.eigvalsh(truth.hessian), factor=10)


@each("seed", range(12))
def test_many_samples_are_reduced_with_their_weights(backend, seed):
    problem = problems.normal([3, 4, 2], 40, seed, bias=bool(seed % 2))
    loss, copies = weighted(problem, seed)
    net = problem.network()
    assert len(loss.reduction(bias=net.has_bias).X) == 3 + net.has_bias
    for params in (None, [1]):
        H, expected = loss.hessian(net, params), copies.hessian(net, params)
        relative(H.toarray(), expected.toarray())
        assert H.condition().value == pytest.approx(expected.condition().value, rel=1e-9)
    relative(hk.KFAC(net, loss).toarray(), hk.KFAC(net, copies).toarray())


@each("bias", [False, True])
def test_training(backend, bias):
    problem = problems.normal([3, 9, 2], 20, bias=bias)
    loss, copies = weighted(problem)
    net, quantities = problem.network(), ("loss", "sharpness", "gradient_norm", "condition[0]")
    options = {"lr": 1e-3, "max_steps": 200, "momentum": 0.5, "record": quantities}
    run, expected = hk.fit(net, loss, **options), hk.fit(net, copies, **options)
    np.testing.assert_allclose(run.network.flatten(), expected.network.flatten(), rtol=1e-10, atol=1e-12)
    for name in quantities:
        relative(run.history[name], expected.history[name], 1e-10)
    runs = hk.fit_ensemble([net, net], [loss, loss], **options)
    np.testing.assert_allclose(runs.weights[0][1], run.network.weights[0], rtol=1e-10, atol=1e-12)


def test_minibatches(backend):
    plain, biased = problems.normal([3, 9, 2], 20), problems.normal([3, 9, 2], 20, bias=True)
    loss, copies = weighted(plain)
    options = {"lr": 1e-3, "max_steps": 50}
    run = hk.fit(plain.network(), loss, batch_size=20, **options)
    expected = hk.fit(plain.network(), copies, **options)
    np.testing.assert_allclose(run.network.flatten(), expected.network.flatten(), rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match=r"^batch_size is 20, but this WeightedLoss multiplies biases.*expected None"):
        hk.fit(biased.network(), weighted(biased)[0], batch_size=20, **options)


def test_a_checkpoint_compares_the_arrays_of_the_loss(backend, tmp_path):
    problem, path = problems.normal([3, 4, 2], 20), tmp_path / "state.npz"
    loss, net = weighted(problem)[0], problem.network()
    whole = hk.fit(net, loss, lr=1e-3, max_steps=40)
    hk.fit(net, loss, lr=1e-3, max_steps=20, checkpoint=path)
    resumed = hk.fit(net, loss, lr=1e-3, max_steps=40, resume=path)
    np.testing.assert_array_equal(resumed.network.flatten(), whole.network.flatten())
    for other in (weighted(problem, 7)[0], hk.SquaredLoss(problem.X, problem.Y)):
        with pytest.raises(ValueError, match="resume is"):
            hk.fit(net, other, lr=1e-3, max_steps=40, resume=path)


class MeanLoss(WeightedLoss):
    """The weighted mean."""

    @property
    def scale(self):
        return 1.0 / float(self.sample_weight.sum())


class TenTimes(WeightedLoss):
    scale = 10.0


def test_a_checkpoint_compares_class_scale_and_options(tmp_path):
    problem, path = problems.normal([3, 4, 2], 20), tmp_path / "state.npz"
    loss, net = weighted(problem)[0], problem.network()
    hk.fit(net, loss, lr=1e-3, max_steps=20, checkpoint=path)
    other = TenTimes(*loss.arrays.values())
    with pytest.raises(ValueError, match=r"resume is .*its loss was .*'WeightedLoss'.*here it is .*'TenTimes'"):
        hk.fit(net, other, lr=1e-3, max_steps=40, resume=path)
    loss.reduce = "sum"  # an option with the name of an argument of fit
    hk.fit(net, loss, lr=1e-3, max_steps=20, checkpoint=path)
    hk.fit(net, loss, lr=1e-3, max_steps=40, resume=path)
    loss.reduce = ("mean", np.float32(2))
    with pytest.raises(ValueError, match=r"resume is .*its loss was .*'sum'"):
        hk.fit(net, loss, lr=1e-3, max_steps=40, resume=path)


def test_losses_of_an_ensemble_have_the_same_scale():
    """Minibatches use one scale for all."""
    problem = problems.normal([3, 4, 2], 20)
    losses = [MeanLoss(*weighted(problem, seed)[0].arrays.values()) for seed in (0, 1)]
    with pytest.raises(ValueError, match=r"^loss\[1\] is MeanLoss.*expected the same class, shapes, options, scale"):
        hk.fit_ensemble([problem.network()] * 2, losses, lr=1e-3, max_steps=2, batch_size=4)


@each(
    ("change", "message"),
    [
        (
            lambda data: data._replace(X=np.vstack([data.X, data.X])),
            "returns X (40, 3) and Y (20, 2); expected one row",
        ),
        (lambda data: data._replace(X=data.X[:5], Y=data.Y[:5], ones=data.ones[:5]), "returns X (5, 3)"),
        (lambda data: data._replace(ones=data.ones[:5]), "and a column of 20 numbers or None"),
        (lambda data: data._replace(constant=3.0), "WrongLoss.rows() returns the constant 3; expected 0."),
        (lambda data: data._replace(Y=data.Y.astype(np.float32)), "Y of WrongLoss.rows()"),
        (lambda data: data._replace(ones=np.full(20, np.nan)), "the column of WrongLoss.rows() holds"),
    ],
)
def test_rows_that_kernels_would_take_in_a_wrong_way_are_refused(change, message):
    class WrongLoss(WeightedLoss):
        def rows(self):
            return change(super().rows())

    problem = problems.normal([3, 4, 2], 20)
    loss, net = WrongLoss(*weighted(problem)[0].arrays.values()), problem.network()
    calls = (
        loss,
        loss.gradient,
        lambda net: loss.hessian(net).toarray(),
        lambda net: hk.fit(net, loss, lr=1.0, max_steps=1),
    )
    for call in calls:
        with pytest.raises((TypeError, ValueError)) as refused:
            call(net)
        assert message in str(refused.value)


def test_rows_in_any_layout(backend):
    class TurnedLoss(WeightedLoss):
        def rows(self):
            X, ones, Y, constant = super().rows()
            return Data(np.asfortranarray(X)[::-1], ones[::-1], np.asfortranarray(Y)[::-1], constant)

    problem = problems.normal([3, 4, 2], 20, bias=True)
    loss = weighted(problem)[0]
    turned, net = TurnedLoss(*loss.arrays.values()), problem.network()
    relative(turned.gradient(net), loss.gradient(net))
    relative(turned.hessian(net).toarray(), loss.hessian(net).toarray())


@each("scale", [2, -1.0, 0.0, np.nan, np.inf, np.array([2.0]), None])
def test_a_scale_that_is_no_positive_float_is_refused(scale):
    problem = problems.normal([3, 4, 2], 20)
    loss = weighted(problem)[0]
    ScaledLoss = type("ScaledLoss", (WeightedLoss,), {"scale": scale})
    for call in ("__call__", "gradient", "hessian"):
        with pytest.raises(ValueError, match=r"^scale of ScaledLoss is .*; expected a float above 0\.$"):
            getattr(ScaledLoss(*loss.arrays.values()), call)(problem.network())


def test_explain_and_validate_take_no_derived_class():
    class OtherLoss(hk.SquaredLoss):
        def rows(self):
            return Data(2 * self.X, None, self.Y, 0.0)

    problem = problems.normal([3, 4, 2], 20)
    loss, net = OtherLoss(problem.X, problem.Y), problem.network()
    for call in (lambda: hk.explain(3.0, net, loss), lambda: hk.validate(net, loss)):
        with pytest.raises(TypeError, match=r"loss is a OtherLoss; expected a hesskern\.SquaredLoss"):
            call()


def test_losses_of_an_ensemble_have_the_same_class():
    problem = problems.normal([3, 4, 2], 20)
    nets = [problem.network()] * 2
    with pytest.raises(ValueError, match=r"^loss\[1\] is SquaredLoss.*expected the same"):
        hk.fit_ensemble(nets, [weighted(problem)[0], problem.loss()], lr=1e-3, max_steps=2)


def test_pickles_and_words():
    problem = problems.normal([3, 4, 2], 20, weight_decay=0.5)
    loss = weighted(problem)[0]
    again = pickle.loads(pickle.dumps(loss))
    assert again(problem.network()) == loss(problem.network())
    assert repr(loss) == "WeightedLoss(X (20, 3), Y (20, 2), sample_weight (20,), weight_decay=0.5, float64)"
    assert loss.description == "weight_decay=0.5"
    assert "in 3-4-2, weight_decay=0.5" in str(loss.hessian(problem.network()))


@each("bias", [False, True])
def test_tensors(place, bias):
    torch = pytest.importorskip("torch")
    problem = problems.normal([3, 9, 2], 20, bias=bias)
    net, loss = problem.network(), weighted(problem)[0]
    tensors = [[None if part is None else torch.tensor(part) for part in parts] for parts in (net.weights, net.biases)]
    there = hk.LinearNetwork(*tensors), WeightedLoss(*map(torch.tensor, loss.arrays.values()))
    relative(there[1].gradient(there[0]).cpu(), loss.gradient(net))
    relative(there[1].hessian(there[0]).toarray().cpu(), loss.hessian(net).toarray())
    options = {"lr": 1e-3, "max_steps": 100, "record": ("loss", "sharpness", "condition[0]")}
    run, expected = hk.fit(*there, **options), hk.fit(net, loss, **options)
    relative(run.network.flatten().cpu(), expected.network.flatten(), 1e-10)
    for name in options["record"]:
        relative(run.history[name], expected.history[name], 1e-8)
