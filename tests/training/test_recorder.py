"""What a run keeps: each quantity against its definition on the full-width weights of the plain loop."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
from checkout import ROOT
from looped import each, few_quick
from trainings import METHODS, PAIRS, of_oracle, rate, training, with_biases
from witness import relative

import hesskern as hk
from hesskern.training import recorder

STEPS = 25


def run(shape, method, number, record, steps=STEPS, **options):
    problem = training(shape, number)
    keywords = {"lr": rate(shape, number), "max_steps": steps, "record": record} | METHODS[method] | options
    return hk.fit(problem.network(), problem.loss(), **keywords)


@each("reduce", ["auto", "none"])
@pytest.mark.parametrize(("shape", "method", "number"), few_quick(PAIRS, 14))
@pytest.mark.quick_in_cpp
def test_what_needs_no_hessian(backend, shape, method, number, reduce):
    problem, expected = training(shape, number), of_oracle(shape, method, number, STEPS)
    record = ["loss", "gradient_norm", "balance", "distance", "weights"]
    found = run(shape, method, number, record, reduce=reduce)
    history, rows = found.history, expected.before()
    assert set(history) == {"step", *record}
    np.testing.assert_array_equal(history["step"], np.arange(STEPS))
    np.testing.assert_allclose(history["loss"], expected.losses[:-1], rtol=1e-11)
    relative(history["weights"], rows)
    norms = [np.linalg.norm(oracle.loss_and_gradient(theta, problem)[1]) for theta in rows]
    np.testing.assert_allclose(history["gradient_norm"], norms, rtol=1e-11)
    relative(history["distance"], np.linalg.norm(rows - rows[0], axis=1), 1e-12)
    assert history["distance"][0] == 0.0
    balance = np.array([[np.linalg.norm(D) for D in oracle.balance(theta, problem)] for theta in rows])
    assert history["balance"].shape == (STEPS, len(problem.weights) - 1)
    relative(history["balance"], balance.reshape(STEPS, -1), 1e-12)


def decided(values, tolerance=1e-9):
    """Return smallest nonzero absolute value, condition and rank; refuse a spectrum where that is a matter of taste."""
    size = np.sort(np.abs(values))[::-1]
    rank = int(np.sum(size > tolerance * size[0]))
    assert rank == len(size) or size[rank] < 1e-13 * size[0]
    assert size[rank - 1] > 1e-7 * size[0]
    return size[rank - 1], size[0] / size[rank - 1], rank


FULL = [
    # widths, samples, biased, kind, decay: spectra without a doubt about the rank
    ([3, 4, 2], 8, [], "half_sum", 0.0),
    ([3, 4, 2], 8, [0, 1], "mean", 0.3),
    ([3, 12, 2], 8, [0], "sum", 0.0),  # the width is reduced
    ([3, 12, 2], 30, [], "mean", 0.2),
    ([2, 3, 9, 2], 7, [1], "half_sum", 0.0),
    ([4, 3], 9, [0], "half_sum", 0.0),
    ([6, 12, 2], 3, [], "half_sum", 0.0),  # inputs that no sample spans
]


@each("reduce", ["auto", "none"])
@pytest.mark.parametrize(("widths", "samples", "biased", "kind", "decay"), FULL)
@pytest.mark.quick_in_cpp
def test_the_full_hessian(backend, widths, samples, biased, kind, decay, reduce):
    problem = problems.normal(widths, samples, 3, bias=True, kind=kind, weight_decay=decay)
    problem = with_biases(problem, biased)
    scale = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[kind]
    rows = oracle.train(problem, 0.004 / scale, 30).before(10)
    record = ("smallest", "condition", "rank", "sharpness")
    found = hk.fit(
        problem.network(), problem.loss(), lr=0.004 / scale, max_steps=30, record=record, record_every=10,
        reduce=reduce,
    ).history  # fmt: skip
    assert set(found) == {"step", *record, "2/lr"}
    for k, theta in enumerate(rows):
        values = np.linalg.eigvalsh(oracle.hessian(theta, problem))
        smallest, condition, rank = decided(values)
        assert found["rank"][k] == rank
        np.testing.assert_allclose(found["smallest"][k], smallest, rtol=1e-8)
        np.testing.assert_allclose(found["condition"][k], condition, rtol=1e-8)
        np.testing.assert_allclose(found["sharpness"][k], values[-1], rtol=1e-10)


def part(problem, names):
    """Return where these parameters stand in the flat vector, from their names alone."""
    at, chosen = 0, []
    for layer, (weight, bias) in enumerate(zip(problem.weights, problem.biases, strict=True)):
        for name, array in (("weight", weight), ("bias", bias)):
            if array is not None:
                if f"{layer}.{name}" in names:
                    chosen += range(at, at + array.size)
                at += array.size
    return np.array(chosen)


BLOCKS = {
    "0": ["0.weight", "0.bias"],
    "1": ["1.weight", "1.bias"],
    "1.weight": ["1.weight"],
    "0.bias": ["0.bias"],
    "1.weight,1.bias": ["1.weight", "1.bias"],
    "0.weight,1.weight": ["0.weight", "1.weight"],
    "0,1": ["0.weight", "0.bias", "1.weight", "1.bias"],
}


@each("reduce", ["auto", "none"])
@each(("hidden", "decay"), [(hidden, decay) for hidden in (4, 12) for decay in (0.0, 0.3)], quick=2)
@pytest.mark.quick_in_cpp
def test_blocks(backend, hidden, decay, reduce):
    problem = problems.normal([3, hidden, 2], 9, 1, bias=True, weight_decay=decay)
    record = [f"{what}[{block}]" for block in BLOCKS for what in ("condition", "rank", "smallest")]
    found = hk.fit(
        problem.network(), problem.loss(), lr=0.004, max_steps=21, record=record, record_every=10, reduce=reduce
    ).history
    rows = oracle.train(problem, 0.004, 21).before(10)
    assert set(found) == {"step", *record}
    for block, names in BLOCKS.items():
        at = part(problem, names)
        for k, theta in enumerate(rows):
            values = np.linalg.eigvalsh(oracle.hessian(theta, problem)[np.ix_(at, at)])
            smallest, condition, rank = decided(values)
            assert found[f"rank[{block}]"][k] == rank, block
            np.testing.assert_allclose(found[f"smallest[{block}]"][k], smallest, rtol=1e-9, err_msg=block)
            np.testing.assert_allclose(found[f"condition[{block}]"][k], condition, rtol=1e-9, err_msg=block)


@pytest.mark.parametrize("method", METHODS)
def test_the_block_of_the_case(backend, method):
    """The block of W_2, whatever method trains: squares of singular values of X W_1.T, rank o times i."""
    case = hk.datasets.two_layer_case()
    loss = hk.SquaredLoss(case.X, case.Y)
    record = ("condition[1.weight]", "rank[1.weight]", "smallest[1.weight]", "weights")
    history = hk.fit(
        case.network, loss, lr=case.lr / 10, max_steps=40, record=record, record_every=13, **METHODS[method]
    ).history
    for k, row in enumerate(history["weights"]):
        values = np.linalg.svd(case.X @ row[:500].reshape(100, 5).T, compute_uv=False)[:5]
        assert history["rank[1.weight]"][k] == 25
        np.testing.assert_allclose(history["condition[1.weight]"][k], (values[0] / values[4]) ** 2, rtol=1e-11)
        np.testing.assert_allclose(history["smallest[1.weight]"][k], values[4] ** 2, rtol=1e-11)


@each("reduce", ["auto", "none"])
def test_a_condition_number_that_a_dense_matrix_cannot_hold(backend, reduce):
    """Columns of X from 1 to 1e-12: kappa of the block is about 1e24, and comes from factors."""
    problem = problems.normal([4, 20, 2], 8, 7)
    problem.X[:] *= 10.0 ** -np.array([0, 4, 8, 12])
    history = hk.fit(
        problem.network(), problem.loss(), lr=0.001, max_steps=11, record=("condition[1.weight]", "weights"),
        record_every=5, reduce=reduce,
    ).history  # fmt: skip
    for k, row in enumerate(history["weights"]):
        weights, _ = oracle.split(row, problem)
        expected, _ = oracle.condition(weights, problem.X, 1)
        assert oracle.relative_error(history["condition[1.weight]"][k], expected) < 1e-9


def test_the_zero_matrix(backend):
    """No eigenvalue is nonzero: rank 0, and nothing to say about the others."""
    problem = problems.Problem(
        [np.zeros((4, 3)), np.zeros((3, 4)), np.zeros((2, 3))], [None] * 3, np.eye(3), np.ones((3, 2))
    )
    record = ("sharpness", "rank", "condition", "smallest", "rank[1]", "condition[1.weight]", "gradient_norm")
    history = hk.fit(problem.network(), problem.loss(), lr=0.1, max_steps=3, record=record).history
    assert history["rank"].tolist() == history["rank[1]"].tolist() == [0] * 3
    assert history["sharpness"].tolist() == history["gradient_norm"].tolist() == [0.0] * 3
    assert np.isnan(history["condition"]).all()
    assert np.isnan(history["condition[1.weight]"]).all()


@pytest.mark.parametrize("every", few_quick([1, 2, 7, 24, 25, 100], 2))
@pytest.mark.parametrize("method", ["Nesterov", "everything"])
@pytest.mark.quick_in_cpp
def test_every_so_many_steps(backend, method, every):
    record = ("loss", "weights", "gradient_norm", "condition[0]", "balance", "distance", "sharpness", "rank")
    whole = run("wide with biases", method, 1, record).history
    thin = run("wide with biases", method, 1, record, record_every=every).history
    assert set(thin) == set(whole)
    for name, values in whole.items():
        if name == "sharpness":  # iterations may start elsewhere
            np.testing.assert_allclose(thin[name], values[::every], rtol=2e-10)
        else:
            np.testing.assert_array_equal(thin[name], values[::every], err_msg=name)


def test_the_last_record_is_before_the_last_update(backend):
    problem = problems.normal([3, 4, 2], 6)
    history = hk.fit(
        problem.network(), problem.loss(), lr=0.01, max_steps=1, record=("weights", "loss", "distance")
    ).history
    np.testing.assert_array_equal(history["weights"], problem.network().flatten()[None])
    assert history["distance"].tolist() == [0.0]
    assert history["loss"][0] == pytest.approx(problem.loss()(problem.network()), rel=1e-14)


def test_rows_of_weights_are_networks(backend):
    problem = problems.normal([3, 12, 2], 6, bias=True)
    net = problem.network()
    history = hk.fit(net, problem.loss(), lr=0.01, max_steps=9, record=("weights", "loss")).history
    for row, value in zip(history["weights"], history["loss"], strict=True):
        assert problem.loss()(net.unflatten(row)) == pytest.approx(value, rel=1e-12)


def test_names_in_any_order_and_twice(backend):
    problem = problems.normal([3, 4, 2], 6)
    keywords = {"lr": 0.01, "max_steps": 5}
    one = hk.fit(problem.network(), problem.loss(), record=["sharpness", "loss"], **keywords).history
    two = hk.fit(problem.network(), problem.loss(), record=("loss", "sharpness"), **keywords).history
    assert set(one) == set(two) == {"step", "loss", "sharpness", "2/lr"}
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize("rows", [1, 2])
def test_converged_runs_record_their_last_step(backend, rows):
    problem = problems.normal([3, 4, 2], rows)
    record = ("loss", "sharpness", "weights", "condition[1]")
    found = hk.fit(problem.network(), problem.loss(), lr=0.05, max_steps=5000, rtol=1e-6, record=record)
    assert found.status == "converged"
    assert all(len(values) == found.steps for values in found.history.values())
    assert found.history["loss"][-1] <= 1e-6 * found.history["loss"][0] < found.history["loss"][-2]


@each("reduce", ["auto", "none"])
def test_at_an_interpolating_minimum_the_functional_part_is_gone(backend, reduce):
    """Whitened data, two layers: where the residual is zero, eigenvalues are sigma_p(W_1)^2 + sigma_q(W_2)^2."""
    problem = problems.normal([4, 10, 2], 4, 5)
    problem.X[:] = np.eye(4)
    record = ("rank", "smallest", "condition", "sharpness", "weights", "balance")
    found = hk.fit(
        problem.network(), problem.loss(), lr=0.1, max_steps=3000, rtol=1e-30, record=record, record_every=50,
        reduce=reduce,
    )  # fmt: skip
    assert found.status == "converged"
    # The run ends between two records: go on from where it ended.
    last = hk.fit(found.network, problem.loss(), lr=0.1, max_steps=1, record=record, reduce=reduce).history
    W1, W2 = found.network.weights
    first, second = np.linalg.svd(W1, compute_uv=False) ** 2, np.linalg.svd(W2, compute_uv=False) ** 2
    sums = np.sort(np.add.outer(first, second).ravel())
    assert last["rank"].tolist() == [8]
    np.testing.assert_allclose(last["smallest"], sums[:1], rtol=1e-10)
    np.testing.assert_allclose(last["sharpness"], sums[-1:], rtol=1e-10)
    np.testing.assert_allclose(last["condition"], sums[-1:] / sums[0], rtol=1e-10)


def test_a_new_quantity_is_one_entry_of_the_table(monkeypatch):
    def extremes(networks):
        return np.array([networks.layers().weights[-1].min(), networks.layers().weights[-1].max()])

    entry = recorder.Quantity("last weights", "two passes", between=extremes, shape=lambda net: (2,))
    monkeypatch.setitem(recorder.QUANTITIES, entry.name, entry)
    problem = problems.normal([3, 4, 2], 6, 3)
    options = {"lr": 0.01, "max_steps": 7, "record": ("last weights", "weights"), "record_every": 3}
    history = hk.fit(problem.network(), problem.loss(), reduce="none", **options).history
    last = history["weights"][:, -8:]  # (2, 4), without biases
    np.testing.assert_array_equal(history["last weights"], np.stack([last.min(axis=1), last.max(axis=1)], axis=1))


def test_every_quantity_is_in_the_documentation():
    """With its cost, in the table of what can be recorded."""
    page = (ROOT / "docs" / "training.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    for name, quantity in recorder.QUANTITIES.items():
        if name != "2/lr":  # comes with the sharpness
            assert any(f"`{name}`" in row[0] and row[2] == quantity.cost for row in rows), name
    assert "adds the column `2/lr`" in page
    gpu = (ROOT / "docs" / "cuda.md").read_text()
    where = "".join(line for line in gpu.splitlines() if line.startswith("| `"))
    for name in recorder.QUANTITIES:
        assert f'"{name}"' in hk.fit.__doc__, f"{name} is not in the docstring of fit"
        assert name == "2/lr" or f"`{name}`" in where or f"`{name}[...]`" in where, f"{name} is not in docs/cuda.md"
