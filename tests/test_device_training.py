"""`fit` and `fit_ensemble` on a GPU against the same calls in main memory; without one the kernels' host twins run."""

from __future__ import annotations

import dataclasses

import cuda_host
import numpy as np
import problems
import pytest
import trainings

import hesskern as hk

pytest.importorskip("torch")

import torch
from device_place import moved

from hesskern._base import devices
from hesskern.backends.cuda import batched_curvature, shared_memory_kernel
from hesskern.training import recorder

pytestmark = pytest.mark.usefixtures("place")

TOLERANCE = {"float64": 1e-9, "float32": 2e-3}
RECORDS = ("loss", "gradient_norm", "distance", "balance", "weights")


@pytest.fixture(params=["persistent", "stepwise"])
def execution(request, monkeypatch):
    """Both ways to take steps; a network of any size fits, or none does."""
    if request.param == "stepwise":
        monkeypatch.setattr("hesskern.backends.cuda.descents.plan", lambda *_: None)
    return request.param


def host(array):
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def close(found, wanted, dtype="float64"):
    found, wanted = host(found), host(wanted)
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=1e-30)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype] * scale)


def agree(found, wanted, dtype="float64"):
    assert (found.steps == wanted.steps) if isinstance(found, hk.Run) else (found.steps == wanted.steps).all()
    assert found.status == wanted.status if isinstance(found, hk.Run) else (found.status == wanted.status).all()
    assert set(found.history) == set(wanted.history)
    for name, column in wanted.history.items():
        assert isinstance(found.history[name], np.ndarray)
        close(found.history[name], column, dtype)
    assert (found.reduction.samples, found.reduction.widths) == (wanted.reduction.samples, wanted.reduction.widths)


def both(net, loss, **options):
    """The run there and here, compared."""
    there, lost = moved(net, loss)
    found, wanted = hk.fit(there, lost, **options), hk.fit(net, loss, **options)
    dtype = str(net.dtype)
    agree(found, wanted, dtype)
    assert found.network.device == "cuda:0"
    close(found.network.flatten(), wanted.network.flatten(), dtype)
    return found


def rate(net, loss):
    """A rate that is stable for all methods."""
    return 0.2 / max(
        hk.SquaredLoss(loss.X.astype(float), loss.Y.astype(float), loss.kind, loss.weight_decay)
        .hessian(
            hk.LinearNetwork(
                [w.astype(float) for w in net.weights], [None if b is None else b.astype(float) for b in net.biases]
            )
        )
        .spectrum()
        .max,
        1e-3,
    )


# The same runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", trainings.METHODS, ids=str)
@pytest.mark.parametrize("number", [0, 2, 4])
def test_every_method(method, number, execution):
    shape = list(trainings.SHAPES)[(number + list(trainings.METHODS).index(method)) % len(trainings.SHAPES)]
    problem = trainings.training(shape, number)
    net, loss = problem.network(), problem.loss()
    options = dict(
        lr=rate(net, loss), max_steps=23, record=RECORDS, record_every=1 + number, **trainings.METHODS[method]
    )
    if "batch_size" in options:
        options["record"] = (*RECORDS, "batch_loss")
    run = both(net, loss, **options)
    assert run.execution.startswith("several launches" if execution == "stepwise" else "many steps in one launch")


@pytest.mark.parametrize("shape", trainings.SHAPES)
def test_every_shape(shape, execution):
    problem = trainings.training(shape, 1)
    net, loss = problem.network(), problem.loss()
    both(net, loss, lr=rate(net, loss), max_steps=12, reduce="none")
    both(net, loss, lr=rate(net, loss), max_steps=12, momentum=0.5)


def test_float32(execution):
    problem = trainings.training("deep", 3)
    net, loss = problem.network("float32"), problem.loss("float32")
    run = both(net, loss, lr=rate(net, loss), max_steps=12, momentum=0.5, record=("loss", "sharpness"))
    assert run.network.weights[0].dtype == torch.float32


def test_the_case(execution):
    case = hk.datasets.two_layer_case()
    record = ("loss", "sharpness", "condition[1.weight]")
    run = both(case.network, hk.SquaredLoss(case.X, case.Y), lr=case.lr, max_steps=700, rtol=case.rtol, record=record,
               record_every=100)  # fmt: skip
    assert (run.status, run.steps) == ("converged", 608)
    assert "widths 5-100-5 to 5-10-5" in str(run.reduction)
    assert np.isnan(run.reduction.leak)  # not followed there


@pytest.mark.parametrize("options", [{}, {"batch_size": 4}], ids=["all samples", "minibatches"])
def test_convergence_and_divergence(options, execution):
    problem = problems.normal([3, 4, 2], 9, 3)
    net, loss = problem.network(), problem.loss()
    safe = rate(net, loss)
    run = both(net, loss, lr=safe, max_steps=400, rtol=0.5, **options)
    assert run.status == "converged"
    run = both(net, loss, lr=200 * safe, max_steps=400, record=("loss",), **options)
    assert run.status == "diverged"
    assert run.network.flatten().isfinite().all()
    # The loss overflows in the step after the last one taken: nobody has looked at it.
    both(net, loss, lr=200 * safe, max_steps=run.steps + 1, record=("loss",), **options)
    run = both(net, loss, lr=1e300, max_steps=1)
    assert run.steps in (0, 1)


def test_rates_of_each_step(execution):
    problem = problems.normal([3, 4, 2], 6, 3)
    net, loss = problem.network(), problem.loss()
    safe = rate(net, loss)
    both(net, loss, lr=safe * np.linspace(0.5, 1, 10), max_steps=10)
    both(net, loss, lr=lambda step: safe / (1 + step), max_steps=10, record=("sharpness",))


# Ensembles ------------------------------------------------------------------------------------------------------------


def ensemble(count, widths=(4, 12, 3), samples=10, **options):
    problem = problems.normal(list(widths), samples, 5, bias=True, **options)
    nets = [hk.LinearNetwork.random(widths, seed=seed, bias=True) for seed in range(count)]
    return nets, problem.loss()


def there(nets, loss):
    losses = loss if isinstance(loss, list) else [loss]
    lost = [moved(nets[0], each)[1] for each in losses]
    return [moved(net, losses[0])[0] for net in nets], lost if isinstance(loss, list) else lost[0]


def both_ensembles(nets, loss, **options):
    found, wanted = hk.fit_ensemble(*there(nets, loss), **options), hk.fit_ensemble(nets, loss, **options)
    agree(found, wanted)
    for f, w in zip((*found.weights, *found.biases), (*wanted.weights, *wanted.biases), strict=True):
        assert (w is None) == (f is None)
        assert f is None or isinstance(f, torch.Tensor)
        close(0.0 if f is None else f, 0.0 if w is None else w)
    return found


def test_an_ensemble(execution):
    nets, loss = ensemble(5)
    record = ("loss", "sharpness", "condition[0.weight]", "rank", "smallest[1]", "2/lr")
    runs = both_ensembles(nets, loss, lr=[0.001, 0.002, 0.003, 30.0, 0.004], max_steps=30, rtol=0.6, record=record,
                          record_every=4)  # fmt: skip
    assert set(runs.status) == {"converged", "diverged", "max_steps"} - ({"max_steps"} - set(runs.status))
    assert runs.network(1).device == "cuda:0"


def test_minibatches_of_each(execution):
    nets, loss = ensemble(3, weight_decay=0.1, kind="mean")
    both_ensembles(nets, loss, lr=0.02, max_steps=9, batch_size=4, seed=[1, 2, 1], record=("loss", "batch_loss"))
    both_ensembles(nets, loss, lr=0.02, max_steps=9, batch_size=4, seed=3, rtol=0.9, record=())


def test_losses_of_each(execution):
    nets, _ = ensemble(3)
    losses = [dataclasses.replace(problems.normal([4, 12, 3], 10, seed), kind="sum").loss() for seed in (1, 2, 3)]
    both_ensembles(nets, losses, lr=np.full((3, 8), 0.002), max_steps=8, record=("loss", "sharpness", "condition[1]"))
    both_ensembles(nets, losses, lr=lambda step: [0.001, 0.002, 0.003], max_steps=8, batch_size=3, seed=[1, 2, 3])


def test_a_stack():
    nets, loss = ensemble(4)
    moved_nets, lost = there(nets, loss)
    stack = hk.NetworkStack.of(moved_nets)
    assert stack.device == "cuda:0"
    assert "4 networks, 4-12-3, bias, float64 on cuda:0" in repr(stack)
    wanted = hk.fit_ensemble(moved_nets, lost, lr=0.002, max_steps=5)
    for given in (stack, stack[:]):
        found = hk.fit_ensemble(given, lost, lr=0.002, max_steps=5)
        assert all((a == b).all() for a, b in zip(found.weights, wanted.weights, strict=True))
    here = hk.NetworkStack([host(w) for w in stack.weights], [host(b) for b in stack.biases])
    assert hk.fit_ensemble(here, loss, lr=0.002, max_steps=5).history["loss"] == pytest.approx(wanted.history["loss"])


def test_a_stack_of_lower_rank():
    """Rounding in directions that a network does not have is not trained: its basis comes from the CPU."""
    nets, loss = ensemble(3, widths=(3, 9, 2))
    odd = [w.copy() for w in nets[1].weights]
    odd[0][:, 2] = odd[0][:, 1]
    nets[1] = hk.LinearNetwork(odd, nets[1].biases)
    runs = both_ensembles(nets, loss, lr=0.004, max_steps=50)
    moved_weight = host(runs.weights[0][1])
    assert np.linalg.matrix_rank(np.concatenate([moved_weight, host(runs.weights[1][1]).T], axis=1)) <= 5


# The same numbers, whatever the launch --------------------------------------------------------------------------------


def test_pieces_change_no_bit(execution, monkeypatch):
    if execution == "stepwise" and torch.cuda.is_available():
        pytest.skip("cuBLAS")
    nets, loss = ensemble(3)
    options = dict(lr=0.003, max_steps=40, momentum=0.5, record=("loss", "gradient_norm"), record_every=3)
    moved_nets, lost = there(nets, loss)
    whole = hk.fit_ensemble(moved_nets, lost, **options)
    monkeypatch.setattr("hesskern.training.gpu_group._FIRST_PIECE", 1)
    pieces = hk.fit_ensemble(moved_nets, lost, **options)
    alone = hk.fit_ensemble(moved_nets[1:2], lost, **options)
    for name, column in whole.history.items():
        np.testing.assert_array_equal(pieces.history[name], column)
        if name != "step":
            np.testing.assert_array_equal(alone.history[name][0], column[1])
    for a, b, c in zip(whole.weights, pieces.weights, alone.weights, strict=True):
        assert (a == b).all()
        assert execution == "stepwise" or (a[1] == c[0]).all()


@pytest.mark.parametrize("kernel", ["train_warp_float64", "train_block_float64"])
def test_threads_change_no_bit(kernel, monkeypatch, place):
    """The barriers are real ones here, between the system's threads."""
    if place != "cpu":
        pytest.skip("for the host's twin of the kernel")
    nets, loss = ensemble(2, widths=(5, 9, 6))
    monkeypatch.setattr(
        "hesskern.backends.cuda.descents.plan", lambda *_: shared_memory_kernel.Plan(kernel, 2, 32, 1 << 20)
    )
    options = dict(lr=0.002, max_steps=20, momentum=0.5, batch_size=4, record=("loss", "gradient_norm"))
    runs = []
    for threads in (1, 3, 8):

        def launch(*arguments, count=threads, **options):
            cuda_host.launch(*arguments, **options, only=count)

        monkeypatch.setattr("hesskern.backends.cuda.operations.Descents", _with(launch))
        runs.append(hk.fit_ensemble(*there(nets, loss), **options))
    for run in runs[1:]:
        np.testing.assert_array_equal(run.history["gradient_norm"], runs[0].history["gradient_norm"])
        assert all((a == b).all() for a, b in zip(run.weights, runs[0].weights, strict=True))


def _with(launch):
    from hesskern.backends.cuda.descents import Descents

    return lambda _, *rest: Descents(launch, *rest)


def test_plans():
    limits = cuda_host.limits(None)
    need = shared_memory_kernel.network_bytes
    small = need((5, 10, 5), 5, 0, velocity=False, itemsize=8)
    many = shared_memory_kernel.plan(16384, (5, 10, 5), 5, small, 8, limits)
    assert many.kernel == "train_warp_float64"
    assert many.blocks * many.threads // 32 >= 16384
    assert many.shared <= limits.block_bytes
    one = shared_memory_kernel.plan(1, (5, 10, 5), 5, small, 8, limits)
    assert (one.kernel, one.blocks, one.threads) == ("train_block_float64", 1, 64)
    large = need((50, 60, 10), 50, 0, velocity=False, itemsize=8)
    assert shared_memory_kernel.plan(1, (50, 60, 10), 50, large, 8, limits).threads == 512
    assert (
        shared_memory_kernel.plan(
            1, (500, 60, 10), 500, need((500, 60, 10), 500, 0, velocity=True, itemsize=8), 8, limits
        )
        is None
    )
    assert shared_memory_kernel.plan(3, (5, 10, 5), 5, limits.block_bytes, 8, limits).threads > 32


def test_what_does_not_fit_says_so():
    net, loss = problems.normal([40, 90, 80], 60, 1).network(), problems.normal([40, 90, 80], 60, 1).loss()
    run = both(net, loss, lr=1e-6, max_steps=2)
    assert "several launches a step: the training of one network takes" in run.execution
    assert "a block has 232448" in run.execution or torch.cuda.is_available()


# Curvature along the way ----------------------------------------------------------------------------------------------


def test_sharpness_by_lanczos(monkeypatch):
    nets, loss = ensemble(4, widths=(6, 9, 5))
    options = {"lr": 0.002, "max_steps": 9, "record": ("sharpness",), "record_every": 4}
    both_ensembles(nets, loss, **options)
    monkeypatch.setattr(batched_curvature, "_CHUNK_BYTES", 1)  # one network after another
    both_ensembles(nets, loss, **options)
    monkeypatch.setattr(batched_curvature, "_SMALL", 8)  # several starts
    both_ensembles(nets, loss, **options)
    monkeypatch.setattr(batched_curvature, "_STARTS", 1)  # one is not enough
    both_ensembles(nets, loss, **options)
    moved_nets, lost = there(nets, loss)
    monkeypatch.setattr(batched_curvature, "_DENSE", 8)
    assert np.isnan(hk.fit_ensemble(moved_nets, lost, **options).history["sharpness"]).all()


def test_conditions_that_only_the_cpu_can_tell():
    """Graded inputs: the singular values of a product that is formed are wrong in the first digits."""
    nets, loss = ensemble(2, widths=(4, 6, 3))
    X = loss.X * np.array([1e12, 1e4, 1.0, 1e-6])
    graded = hk.SquaredLoss(X, loss.Y)
    options = dict(lr=1e-30, max_steps=1, record=("condition[1.weight]", "condition[0]", "condition", "rank[0.bias]"))
    both_ensembles(nets, graded, **options)
    both_ensembles(nets, hk.SquaredLoss(loss.X, loss.Y, weight_decay=0.1), **options)
    bottleneck = [hk.LinearNetwork.random([4, 2, 5, 3], seed=seed) for seed in (1, 2)]
    options["record"] = ("condition[0]", "condition[1]", "condition[2]", "rank[2]", "smallest[1]")
    both_ensembles(bottleneck, hk.SquaredLoss(loss.X, loss.Y), **options)


def test_a_new_quantity_is_one_entry_of_the_table(monkeypatch):
    entry = recorder.Quantity(
        "first weight", "a norm", between=lambda networks: devices.matrix_norm(networks.layers().weights[0])
    )
    monkeypatch.setitem(recorder.QUANTITIES, entry.name, entry)
    nets, loss = ensemble(3)
    runs = both_ensembles(nets, loss, lr=0.002, max_steps=5, record=("first weight", "loss"), record_every=2)
    assert runs.history["first weight"].shape == (3, 3)


def test_a_diverging_network_leaves_the_others_their_conditions():
    """On its way its factors overflow before its parameters do."""
    nets = [hk.LinearNetwork.random([4, 3, 3, 3], seed=seed) for seed in range(3)]
    _, loss = ensemble(1, widths=(4, 3, 3, 3))
    moved_nets, lost = there(nets, loss)
    options = {"max_steps": 12, "record": ("loss", "condition[0]", "condition[2]", "rank[1]")}
    wanted = hk.fit_ensemble(nets[:2], loss, lr=0.001, **options)
    for rate in (5.0, 1e4, 1e80):
        runs = hk.fit_ensemble(moved_nets, lost, lr=[0.001, 0.001, rate], **options)
        assert runs.status.tolist() == ["max_steps", "max_steps", "diverged"]
        assert hk.fit(nets[2], loss, lr=rate, **options).status == "diverged"
        for name in options["record"]:
            close(runs.history[name][:2], wanted.history[name])


def test_whatever_the_default_device_is():
    nets, loss = ensemble(2, widths=(6, 9, 5))
    moved_nets, lost = there(nets, loss)
    with torch.device("meta"):
        found = hk.fit_ensemble(moved_nets, lost, lr=0.002, max_steps=3, record=("sharpness", "condition[0]"))
    close(
        found.history["sharpness"],
        hk.fit_ensemble(nets, loss, lr=0.002, max_steps=3, record=("sharpness",)).history["sharpness"],
    )


def test_the_largest_eigenvalue_of_a_cluster():
    """One layer's Hessian is that of its inputs: here eigenvalues as close as wanted to the largest."""
    count = 40
    for values in (
        1 - np.linspace(0, 1, count) ** 4,
        1 - 10.0 ** -np.arange(count),
        1 - 1e-6 * np.linspace(0, 1, count),
    ):
        X = np.diag(np.sqrt(values))
        net, loss = hk.LinearNetwork([np.ones((8, count))]), hk.SquaredLoss(X, np.ones((count, 8)))
        moved_net, lost = moved(net, loss)
        found = hk.fit(moved_net, lost, lr=1e-9, max_steps=1, record=("sharpness",)).history["sharpness"]
        assert found[0] == pytest.approx(values.max(), abs=1e-10)


# The loop around it ---------------------------------------------------------------------------------------------------


def test_resumed_from_a_checkpoint(tmp_path):
    nets, loss = ensemble(3)
    moved_nets, lost = there(nets, loss)
    options = dict(lr=0.003, momentum=0.8, record=("loss", "sharpness", "balance"), record_every=4)
    whole = hk.fit_ensemble(moved_nets, lost, max_steps=30, **options)
    path = tmp_path / "run.npz"
    hk.fit_ensemble(moved_nets, lost, max_steps=13, checkpoint=path, checkpoint_every=5, **options)
    again = hk.fit_ensemble(moved_nets, lost, max_steps=30, resume=path, **options)
    for name, column in whole.history.items():
        np.testing.assert_array_equal(again.history[name], column)
    assert all((a == b).all() for a, b in zip(whole.weights, again.weights, strict=True))
    with pytest.raises(ValueError, match=r"its momentum was 0\.8, here it is 0\.7"):
        hk.fit_ensemble(moved_nets, lost, max_steps=30, resume=path, **options | {"momentum": 0.7})


@pytest.mark.parametrize("bias", [False, True])
def test_unbalanced_units_are_not_mixed(bias):
    """Rows of W_1 times d, columns of W_2 over d: the widths stay, of all networks."""
    rng = np.random.default_rng(0)
    nets = []
    for e in (0, 9):
        d = 10.0 ** rng.uniform(-e, e, 20)
        biases = [rng.standard_normal(20) * d, rng.standard_normal(3)] if bias else None
        nets.append(
            hk.LinearNetwork([rng.standard_normal((20, 3)) * d[:, None], rng.standard_normal((3, 20)) / d], biases)
        )
    loss = hk.SquaredLoss(rng.standard_normal((30, 3)), rng.standard_normal((30, 3)))
    run = both(nets[1], loss, lr=1e-24, max_steps=4)
    assert run.history["loss"][0] == pytest.approx(loss(nets[1]), rel=1e-13)
    moved_nets, lost = there(nets, loss)
    options = {"lr": [1e-4, 1e-24], "max_steps": 4}
    found, wanted = hk.fit_ensemble(moved_nets, lost, **options), hk.fit_ensemble(nets, loss, **options)
    agree(found, wanted)
    for runs in (run, found, wanted):
        assert (runs.reduction.widths, runs.reduction.unbalanced) == (None, 1)
        assert "widths as given, because" in str(runs.reduction)
    assert both(nets[0], loss, lr=1e-4, max_steps=4).reduction.unbalanced == 0


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.6, "nesterov": True, "batch_size": 3}], ids=["plain", "batches"]
)
def test_stopped_after_any_step_and_gone_on_with(tmp_path, execution, options):
    """One network converges, others diverge at different steps, in the last update among them, one goes on."""
    nets, loss = ensemble(5)
    moved_nets, lost = there(nets, loss)
    given = dict(lr=[0.01, 3.0, 1e-6, 1e9, 1e308], rtol=0.8, record=("loss", "distance"), record_every=2) | options
    whole = hk.fit_ensemble(moved_nets, lost, max_steps=12, **given)
    assert set(whole.status) >= {"diverged", "max_steps"}
    path = tmp_path / "run.npz"
    for stop in (1, 2, 3, 4, 11, 12):
        hk.fit_ensemble(moved_nets, lost, max_steps=stop, checkpoint=path, **given)
        again = hk.fit_ensemble(moved_nets, lost, max_steps=12, resume=path, **given)
        np.testing.assert_array_equal(again.status, whole.status)
        np.testing.assert_array_equal(again.steps, whole.steps)
        for name, column in whole.history.items():
            np.testing.assert_array_equal(again.history[name], column)
        for found, wanted in zip(again.weights, whole.weights, strict=True):
            np.testing.assert_array_equal(host(found), host(wanted))


def test_interrupted():
    nets, loss = ensemble(2)

    def rates(step):
        if step == 300:
            raise KeyboardInterrupt
        return 0.001

    runs = hk.fit_ensemble(*there(nets, loss), lr=rates, max_steps=10_000)
    assert set(runs.status) == {"interrupted"}
    assert runs.history["loss"].shape == (2, runs.steps[0])


def test_refused():
    nets, loss = ensemble(2)
    moved_nets, lost = there(nets, loss)
    with pytest.raises(TypeError, match="X is on cpu, but the network is on cuda:0"):
        hk.fit(moved_nets[0], loss, lr=0.1, max_steps=1)
    with pytest.raises(TypeError, match=r"nets\[1\] is on cpu, but nets\[0\] is on cuda:0"):
        hk.fit_ensemble([moved_nets[0], nets[1]], lost, lr=0.1, max_steps=1)
    with pytest.raises(TypeError, match="X is on cuda:0, but the network is on cpu"):
        hk.fit_ensemble(nets, [loss, lost], lr=0.1, max_steps=1)
    with pytest.raises(TypeError, match="but the backend 'cpp' takes arrays on the CPU"):
        hk.fit(moved_nets[0], lost, lr=0.1, max_steps=1, backend="cpp")
    run = hk.fit(moved_nets[0], lost, lr=0.001, max_steps=1, backend="cuda")
    assert run.network.device == "cuda:0"


def test_out_of_memory(monkeypatch):
    nets, loss = ensemble(2)

    def full(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    moved_nets, lost = there(nets, loss)
    monkeypatch.setattr("hesskern.backends.cuda.batched_width_reduction._qr", full)
    with pytest.raises(
        MemoryError, match=r"training 2 networks \(about .*\) does not fit into the memory that cuda:0 has free; train"
    ):
        hk.fit_ensemble(moved_nets, lost, lr=0.1, max_steps=1)


@pytest.mark.parametrize("widths", [(3, 4, 2), (6, 8, 5)], ids=str)
def test_sharpness_beyond_what_can_be_squared(widths):
    """Scaled by powers of two the problem has the same sharpness, scaled."""
    problem = problems.normal(list(widths), 9)
    found = []
    for scale in (0, 490, -400):
        loss = hk.SquaredLoss(np.ldexp(problem.X, scale), np.ldexp(problem.Y, scale))
        net, there = moved(problem.network(), loss)
        run = hk.fit(net, there, lr=1e-3 * 2.0 ** (-2 * scale), max_steps=3, record=("sharpness",))
        found.append(np.ldexp(run.history["sharpness"], -2 * scale))
    assert np.isfinite(found[0]).all()
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])
