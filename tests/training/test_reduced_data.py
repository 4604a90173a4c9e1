"""Training on fewer inputs and from orthogonal starts: the run of the network as given, in all that is recorded."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracle
import problems
import pytest
import trainings
from looped import few_quick
from reducible import PROBLEMS, few_samples, orthogonal_start
from trainings import with_biases
from witness import relative

import hesskern as hk

METHODS = {
    "plain": {},
    "heavy ball": {"momentum": 0.9},
    "Nesterov": {"momentum": 0.8, "nesterov": True},
    "minibatches": {"batch_size": 2, "seed": 3, "momentum": 0.5},
}
CASES = [
    pytest.param(name, method, decay, id=f"{name}, {method}, decay {decay:g}")
    for name in PROBLEMS
    for method in METHODS
    for decay in (0.0, 0.02)
]
SCALARS = ("loss", "gradient_norm", "distance", "balance", "sharpness")


def sentence(text, method):
    """Return what is said with minibatches, which use the samples as they are."""
    if "batch_size" not in method:
        return text
    return "; ".join(part for part in text.split("; ") if "rows" not in part and part != "X diagonal")


@pytest.mark.parametrize(("name", "method", "decay"), few_quick(CASES, 12))
@pytest.mark.quick_in_cpp
def test_the_run_of_the_network_as_given(backend, name, method, decay):
    make, text = PROBLEMS[name]
    problem, options = make(kind="mean", weight_decay=decay), METHODS[method]
    lr = 0.2 / trainings.sharpness(problem)
    steps = 300
    arguments = {"lr": lr, "max_steps": steps, "record": (*SCALARS, "weights"), "record_every": 20} | options
    auto, none = (hk.fit(problem.network(), problem.loss(), reduce=how, **arguments) for how in ("auto", "none"))
    assert str(auto.reduction) == sentence(text, options)
    assert str(none.reduction) == ""
    expected = oracle.train(problem, lr, steps, **options)
    relative(auto.history["weights"], expected.thetas[:-1:20], 1e-12)
    relative(auto.network.flatten(), expected.thetas[-1], 1e-12)
    relative(auto.history["loss"], expected.losses[:-1:20], 1e-12)
    for quantity in SCALARS:
        relative(auto.history[quantity], none.history[quantity], 1e-11 if quantity == "sharpness" else 1e-12)


@pytest.mark.parametrize(("name", "method", "decay"), few_quick(CASES, 3))
@pytest.mark.parametrize("schedule", ["constant", "falling"])
def test_ten_thousand_steps(name, method, decay, schedule):
    make, _ = PROBLEMS[name]
    problem, options = make(kind="mean", weight_decay=decay), METHODS[method]
    lr = 0.1 / trainings.sharpness(problem)
    rates = lr if schedule == "constant" else lr / (1 + 1e-3 * np.arange(10_000))
    arguments = {"lr": rates, "max_steps": 10_000, "record": ("loss", "weights"), "record_every": 500} | options
    auto, none = (hk.fit(problem.network(), problem.loss(), reduce=how, **arguments) for how in ("auto", "none"))
    assert auto.reduction
    assert auto.status == none.status == "max_steps"
    relative(auto.history["weights"], none.history["weights"], 1e-12)
    relative(auto.network.flatten(), none.network.flatten(), 1e-12)
    relative(auto.history["loss"], none.history["loss"], 1e-12)
    expected = oracle.train(problem, rates, 1000, **options)
    relative(auto.history["weights"][:2], expected.thetas[[0, 500]], 1e-12)


BLOCKS = ("condition", "rank", "smallest", "condition[1.weight]", "rank[1]", "smallest[0]", "rank[0,1]", "sharpness")


@pytest.mark.parametrize("name", [name for name in PROBLEMS if "rotated" not in name])
@pytest.mark.parametrize("decay", [0.0, 0.02])
def test_the_curvature_of_the_network_as_given(name, decay):
    make, _ = PROBLEMS[name]
    problem = make(kind="mean", weight_decay=decay)
    lr = 0.2 / trainings.sharpness(problem)
    record = (*BLOCKS, "rank[1,2]") if len(problem.weights) > 2 else BLOCKS
    arguments = {"lr": lr, "max_steps": 9, "record": record, "record_every": 4}
    auto, none = (hk.fit(problem.network(), problem.loss(), reduce=how, **arguments) for how in ("auto", "none"))
    for quantity in record:
        if quantity.startswith("rank"):
            assert auto.history[quantity].tolist() == none.history[quantity].tolist(), quantity
        else:
            np.testing.assert_allclose(auto.history[quantity], none.history[quantity], rtol=1e-8, err_msg=quantity)


def test_the_sharpness_may_be_that_of_the_directions_outside(backend):
    """With targets of zero the end-to-end map vanishes, and the largest eigenvalue leaves the small network."""
    problem = with_biases(orthogonal_start([3, 9, 9, 9, 2], 8, identity=True, kind="mean"), [])
    problem = dataclasses.replace(problem, Y=0 * problem.Y)
    run = hk.fit(problem.network(), problem.loss(), lr=0.2, max_steps=1501, record=("sharpness",), record_every=500)
    assert run.reduction.start
    weights = hk.fit(problem.network(), problem.loss(), lr=0.2, max_steps=1501, record=("weights",), record_every=500)
    expected = [np.linalg.eigvalsh(oracle.hessian(theta, problem))[-1] for theta in weights.history["weights"]]
    np.testing.assert_allclose(run.history["sharpness"], expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["few samples, wide", "dependent columns", "orthogonal, biases", "rotated"])
@pytest.mark.parametrize("method", METHODS)
def test_ensembles(backend, name, method):
    make, text = PROBLEMS[name]
    options = METHODS[method]
    first = make(kind="mean", weight_decay=0.02)
    lr = 0.2 / trainings.sharpness(first)
    second = dataclasses.replace(first, weights=[first.weights[0][::-1].copy(), *first.weights[1:]])
    nets = [problem.network() for problem in (first, second)]
    runs = hk.fit_ensemble(nets, first.loss(), lr=[lr, 0.7 * lr], max_steps=60, record=("loss", "distance"), **options)
    assert str(runs.reduction) == sentence(text, options)
    for k, (problem, rate) in enumerate(zip((first, second), (lr, 0.7 * lr), strict=True)):
        expected = oracle.train(problem, rate, 60, **options)
        relative(runs.network(k).flatten(), expected.thetas[-1], 1e-12)
        relative(runs.history["loss"][k], expected.losses[:-1], 1e-12)


def test_an_ensemble_reduces_all_starts_or_none():
    problem = with_biases(orthogonal_start([3, 12, 12, 2], 8), [])
    other = with_biases(problems.normal([3, 12, 12, 2], 8, bias=True), [])
    runs = hk.fit_ensemble([problem.network(), other.network()], problem.loss(), lr=1e-3, max_steps=5)
    assert runs.reduction.widths is None
    assert str(runs.reduction).endswith("widths not reduced: square inner layers in general position")


def test_losses_of_different_rank_keep_their_inputs():
    make, _ = PROBLEMS["dependent columns"]
    problem = make()
    other = problems.normal([7, 5, 2], 12)
    losses = [problem.loss(), hk.SquaredLoss(other.X, other.Y)]
    runs = hk.fit_ensemble([problem.network()] * 2, losses, lr=1e-3, max_steps=5)
    assert runs.reduction.inputs is None
    relative(runs.network(0).flatten(), oracle.train(problem, 1e-3, 5).thetas[-1], 1e-12)


@pytest.mark.parametrize("name", ["few samples, wide", "dependent columns, wide", "orthogonal", "rotated"])
@pytest.mark.parametrize("method", ["plain", "minibatches"])
def test_checkpoints_hold_what_decays(backend, tmp_path, name, method):
    make, _ = PROBLEMS[name]
    problem = make(kind="mean", weight_decay=0.05)
    options = {"lr": 0.05, "record": ("loss", "sharpness", "distance"), "record_every": 3} | METHODS[method]
    whole = hk.fit(problem.network(), problem.loss(), max_steps=40, **options)
    path = tmp_path / "state.npz"
    hk.fit(problem.network(), problem.loss(), max_steps=17, checkpoint=path, **options)
    resumed = hk.fit(problem.network(), problem.loss(), max_steps=40, resume=path, **options)
    assert (resumed.network.flatten() == whole.network.flatten()).all()
    assert all((resumed.history[quantity] == whole.history[quantity]).all() for quantity in whole.history)


@pytest.mark.parametrize("name", ["few samples, wide", "orthogonal", "rotated"])
def test_single_precision(backend, close, name):
    make, _ = PROBLEMS[name]
    problem = make(kind="mean", weight_decay=0.02)
    options = {"lr": 0.05, "max_steps": 200, "momentum": 0.5}
    expected = oracle.train(problem, 0.05, 200, momentum=0.5)
    if name == "orthogonal":  # to the precision of the network
        problem = dataclasses.replace(problem, weights=[w.astype(np.float32).astype(float) for w in problem.weights])
    run = hk.fit(problem.network("float32"), problem.loss("float32"), record=("balance", "sharpness"), **options)
    assert run.reduction.widths is not None
    close(run.network.flatten(), expected.thetas[-1], "float32")


def graded(problem, sizes):
    """Return the same predictions with other units of the inputs."""
    return dataclasses.replace(problem, X=problem.X * sizes, weights=[problem.weights[0] / sizes, *problem.weights[1:]])


@pytest.mark.parametrize("exponent", [3, 5])
def test_graded_inputs_are_not_mixed(backend, exponent):
    problem = graded(with_biases(few_samples([8, 6, 2], 3), []), 10.0 ** np.linspace(exponent, -exponent, 8))
    run = hk.fit(problem.network(), problem.loss(), lr=1e-14, max_steps=3)
    assert run.reduction.inputs is None
    assert "differ by orders of magnitude" in str(run.reduction)
    expected = oracle.train(problem, 1e-14, 3)
    relative(run.history["loss"], expected.losses[:-1], 1e-13)


def test_inputs_of_one_unit_are(backend):
    problem = graded(with_biases(few_samples([8, 6, 2], 3), []), 2.0 ** np.linspace(2, -2, 8))
    assert hk.fit(problem.network(), problem.loss(), lr=1e-3, max_steps=3).reduction.inputs == (8, 3)


@pytest.mark.parametrize("name", ["few samples", "orthogonal"])
def test_weights_that_decay_to_almost_nothing(backend, name):
    make, _ = PROBLEMS[name]
    problem = make(kind="mean", weight_decay=1.5)
    problem = dataclasses.replace(problem, Y=0 * problem.Y)
    run = hk.fit(problem.network(), problem.loss(), lr=0.1, max_steps=200)
    expected = oracle.train(problem, 0.1, 200).thetas[-1]
    assert np.abs(expected).max() < 1e-13
    relative(run.network.flatten(), expected, 1e-12)


def test_layers_that_are_not_quite_orthogonal_keep_their_width(backend):
    problem = with_biases(orthogonal_start([3, 12, 12, 2], 8, identity=True), [])
    problem.weights[1][2] *= 1 + 0.65e-12
    run = hk.fit(problem.network(), problem.loss(), lr=1e-3, max_steps=50)
    assert not run.reduction.start
    assert run.reduction.widths is None
    assert str(run.reduction).endswith("widths not reduced: inner layers are orthogonal only to 1.2e-12")
    relative(run.network.flatten(), oracle.train(problem, 1e-3, 50).thetas[-1], 1e-13)


def test_a_run_that_diverges_goes_back(backend):
    make, _ = PROBLEMS["few samples, wide"]
    problem = make(weight_decay=0.3)
    auto, none = (
        hk.fit(problem.network(), problem.loss(), lr=8.0, max_steps=500, reduce=how) for how in ("auto", "none")
    )
    assert (auto.status, auto.steps) == (none.status, none.steps)
    assert auto.status == "diverged"
    assert np.isfinite(auto.network.flatten()).all()


def test_almost_dependent_inputs_are_kept(backend):
    """Inputs that differ by 1e-11 for many samples, with weights that make up for it."""
    rng = np.random.default_rng(0)
    x, z, n = rng.standard_normal((3, 30_000))
    X = np.stack([x, x + 1e-11 * z, n], axis=1)
    net = hk.LinearNetwork([np.array([[-1e11, 1e11, 0.5]])])
    loss = hk.SquaredLoss(X, n[:, None], kind="mean")
    run = hk.fit(net, loss, lr=1e-30, max_steps=1)
    assert run.history["loss"][0] == pytest.approx(loss(net), rel=1e-4)
    assert "inputs 3 to 2" not in str(run.reduction)


def test_data_of_zeros(backend):
    net = hk.LinearNetwork.random([20, 5, 2], seed=0)
    run = hk.fit(net, hk.SquaredLoss(np.zeros((30, 20)), np.ones((30, 2))), lr=0.1, max_steps=3)
    np.testing.assert_array_equal(run.network.flatten(), net.flatten())


@pytest.mark.parametrize("widths", [(5, 40, 5), (30, 20, 5)])
def test_weights_that_decay_to_nothing(backend, widths):
    """What is transformed back has errors relative to the weights there are, not to those at the start."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((10, widths[0])), np.zeros((10, widths[-1]))
    net, loss = hk.LinearNetwork.random(list(widths), seed=0), hk.SquaredLoss(X, Y, weight_decay=2.0)
    auto, none = (hk.fit(net, loss, lr=0.01, max_steps=2500, reduce=reduce).network for reduce in ("auto", "none"))
    for reduced, plain in zip(auto.weights, none.weights, strict=True):
        assert np.abs(plain).max() < 1e-20
        np.testing.assert_allclose(reduced, plain, rtol=0, atol=1e-9 * np.abs(plain).max())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_recorded_rank_is_one_that_the_hessian_may_have(dtype):
    """One eigenvalue near the limit is not counted once for each unit that is left out."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        inner = np.linalg.qr(rng.standard_normal((14, 14)))[0]
        weights = [rng.standard_normal((14, 3)) / 2, inner, rng.standard_normal((2, 14)) / 4]
        net = hk.LinearNetwork([weight.astype(dtype) for weight in weights])
        X, Y = rng.standard_normal((9, 3)).astype(dtype), rng.standard_normal((9, 2)).astype(dtype)
        run = hk.fit(net, hk.SquaredLoss(X, Y), lr=0.01, max_steps=900, record=("rank",), record_every=100)
        assert all(0 < rank <= net.num_parameters for rank in run.history["rank"])
        condition = hk.SquaredLoss(X, Y).hessian(net).condition()
        assert condition.rank - 2 <= run.history["rank"][0] <= condition.rank + condition.undecided


@pytest.mark.parametrize("size", [1e-170, 1e160])
def test_unseen_weights_whose_squares_leave_the_range(backend, size):
    """They decay as they do without reductions; a run that diverges at once returns the start."""
    net = hk.LinearNetwork([np.array([[1.0, size, size]]), np.ones((1, 1))])
    loss = hk.SquaredLoss(np.array([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]), np.zeros((2, 1)), weight_decay=1.0)
    auto, none = (hk.fit(net, loss, lr=1e-3, max_steps=200, reduce=reduce) for reduce in ("auto", "none"))
    assert (auto.status, auto.steps) == (none.status, none.steps)
    np.testing.assert_allclose(auto.network.weights[0], none.network.weights[0], rtol=1e-12)
