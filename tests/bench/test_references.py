"""The right results that the benchmarks compare with, and the least that an operation can take."""

import benches  # noqa: F401 - finds bench/, or skips
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from bench import closed_form, floors, loops, problems, reduced_by_hand, timing
from bench.tasks import curvature_along, spectrum


def test_relative_error_sees_what_is_wrong():
    reference = np.arange(12.0).reshape(4, 3)
    assert problems.relative_error(reference, reference) == 0.0
    assert problems.relative_error(reference.T, reference) == float("inf")
    assert problems.relative_error(np.full_like(reference, np.nan), reference) == float("inf")
    moved = reference.copy()
    moved[0, 0] = np.nan
    assert problems.relative_error(moved, reference) == float("inf")
    moved = reference.copy()
    moved[3, 2] += 11e-6
    assert problems.relative_error(moved, reference) == pytest.approx(1e-6)


def test_the_reference_gradient_is_the_derivative():
    X, Y, weights = problems.Size(4, (3, 5, 2)).draw()
    value, gradients = problems.loss_and_gradients(X, Y, weights)
    assert value == pytest.approx(0.5 * np.sum((X @ weights[0].T @ weights[1].T - Y) ** 2))
    step = 1e-6
    for layer, index in ((0, (2, 1)), (1, (1, 3))):
        moved = [weight.copy() for weight in weights]
        moved[layer][index] += step
        above, _ = problems.loss_and_gradients(X, Y, moved)
        moved[layer][index] -= 2 * step
        below, _ = problems.loss_and_gradients(X, Y, moved)
        assert (above - below) / (2 * step) == pytest.approx(gradients[layer][index], rel=1e-6)


def test_the_reference_by_the_product_is_the_one_by_layers():
    X, Y, weights = problems.Size(7, (3, 5, 2)).draw()
    value, gradients = problems.loss_and_gradients(X, Y, weights)
    by_product, others = problems.product_loss_and_gradients(X, Y, weights)
    assert by_product == pytest.approx(value, rel=1e-14)
    for gradient, other in zip(gradients, others, strict=True):
        assert problems.relative_error(other, gradient) < 1e-14


def test_references_along_a_run():
    X, Y, weights = problems.Size(7, (3, 5, 2)).draw()
    rate = loops.stable_rate(X, weights)
    after = loops.trajectory(X, Y, weights, rate, [2, 5])
    moved = weights
    for _ in range(5):
        gradients = problems.loss_and_gradients(X, Y, moved)[1]
        moved = [weight - rate * gradient for weight, gradient in zip(moved, gradients, strict=True)]
    assert problems.relative_error(after[5], problems.flat(moved)) < 1e-14
    error = loops.error_of_change(weights, lambda: after)
    assert error(loops.Trained(5, problems.flat(moved))) < 1e-12
    assert error(loops.Trained(2, problems.flat(moved))) > 0.1

    form = closed_form.ClosedForm(X, Y, weights)
    near = np.random.default_rng(0).standard_normal(form.size)
    value, vector = curvature_along.largest(form.product, near, 0.0)
    assert value == pytest.approx(np.linalg.eigvalsh(form.matrix())[-1], rel=1e-13)
    assert problems.relative_error(form.product(vector), value * vector) < 1e-7


@pytest.mark.parametrize(
    ("size", "reduced"),
    [
        (problems.Size(1000, (5, 100, 5)), problems.Size(5, (5, 10, 5))),
        (problems.Size(3, (5, 10, 5)), problems.Size(3, (5, 10, 5))),
        (problems.Size(9, (4, 50, 40, 3, 2), "float32"), problems.Size(4, (4, 44, 40, 3, 2), "float32")),
    ],
)
def test_the_reduced_size_is_the_one_where_nothing_is_wider_than_its_neighbours(size, reduced):
    assert size.reduced == reduced


@pytest.mark.parametrize("widths", [(3, 2), (3, 5, 2), (2, 3, 4, 2)])
def test_the_reference_hessian_is_the_derivative_of_the_gradient(widths):
    X, Y, weights = problems.Size(4, widths).draw()
    form = closed_form.ClosedForm(X, Y, weights)
    found = form.matrix()
    step, columns = 1e-6, []
    for layer, weight in enumerate(weights):
        for index in np.ndindex(weight.shape):
            sides = []
            for sign in (1, -1):
                moved = [array.copy() for array in weights]
                moved[layer][index] += sign * step
                sides.append(problems.flat(problems.loss_and_gradients(X, Y, moved)[1]))
            columns.append((sides[0] - sides[1]) / (2 * step))
    assert problems.relative_error(found, np.stack(columns, axis=1)) < 1e-8
    V = np.random.default_rng(0).standard_normal((form.size, 3))
    assert problems.relative_error(form.product(V), found @ V) < 1e-14
    assert problems.relative_error(form.product(V[:, 0]), found @ V[:, 0]) < 1e-14
    few = closed_form.ClosedForm(*closed_form.qr_reduced(X, Y), weights)
    assert problems.relative_error(few.matrix(), found) < 1e-13


@pytest.mark.parametrize(
    ("size", "least"),
    [
        (problems.Size(5, (5, 100, 5)), 6 * 5 * 100 * 5 + 5 * 5 * 5),
        (problems.Size(2, (20, 200, 20)), 2 * (2 * 20 * 200 + 6 * 200 * 20)),
        (problems.Size(1000, (10, 30, 40, 10)), 10 * (2 * 10 * 30 + 6 * 30 * 40 + 6 * 40 * 10)),
    ],
)
def test_multiply_adds_of_a_product(size, least):
    assert closed_form.product_multiply_adds(size) == least


def test_distance_of_spectra_is_that_of_the_sorted_eigenvalues():
    exact = np.array([0.0, 4.0, -1.0]), np.array([5, 2, 1])
    expanded = np.repeat(*exact)
    assert spectrum.distance(spectrum.as_values(np.random.default_rng(0).permutation(expanded)), exact) == 0.0
    moved = np.array([0.0, 4.0, 4.5, -1.0]), np.array([5, 1, 1, 1])
    assert spectrum.distance(moved, exact) == pytest.approx(0.5 / 4)
    other_counts = exact[0], np.array([4, 3, 1])
    assert spectrum.distance(other_counts, exact) == 1.0
    assert spectrum.distance((exact[0], np.array([5, 2, 2])), exact) == float("inf")
    assert spectrum.distance((np.array([np.nan, 4.0, -1.0]), exact[1]), exact) == float("inf")


@pytest.mark.parametrize(
    ("size", "least"),
    [
        (problems.Size(1000, (20, 200, 20)), 20 * 200 * 20 + 1000 * 20 * 20),
        (problems.Size(2, (20, 200, 20)), 2 * (20 * 200 + 200 * 20)),
        (problems.Size(1000, (64, 256, 256, 10)), 10 * 256 * 256 + 10 * 256 * 64 + 1000 * 64 * 10),
    ],
)
def test_multiply_adds_are_of_the_best_order(size, least):
    assert problems.forward_multiply_adds(size) == least


def test_the_peak_is_above_every_product():
    size = 192
    floor = floors.products(size**3)[0]
    if floor.run is None:
        pytest.skip(floor.note)
    a, out = np.ones((size, size)), np.empty((size, size))
    fma, product = (
        min(t.seconds)
        for t in timing.interleaved(
            [timing.Entry(floor.run, floor.context), timing.Entry(lambda: np.matmul(a, a, out=out), floor.context)],
            rounds=5,
            least=0.001,
            budget=1.0,
        ).times
    )
    threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    assert fma / floor.units < 1.5 * threads * product  # half as much again: the cores of a test machine are shared


def test_floors_of_memory_write_every_byte():
    out = np.full(1001, np.nan)
    fill, stream = floors.stores(out)
    assert fill.run() is None
    assert not out.any()
    if stream.run is None:
        pytest.skip(stream.note)
    memory = stream.run()
    memory[:] = 1
    stream.run()
    start = -memory.ctypes.data % 64
    assert not memory[start : start + out.nbytes].any()
    assert memory[:start].all()


def test_the_rate_of_gemm_is_scaled_to_the_work():
    one, two = (floors.products(adds)[1] for adds in (1e6, 2e6))
    assert one.units == 2 * two.units == pytest.approx(384**3 / 1e6)


@pytest.mark.parametrize(
    ("samples", "widths"), [(4, (9, 5, 2)), (3, (9, 30, 2)), (7, (3, 6, 8, 5, 2)), (4, (5, 9, 9, 5))]
)
def test_the_reductions_by_hand_have_the_spectrum_of_the_dense_matrix(samples, widths):
    X, Y, weights = problems.Size(samples, widths).draw()
    dense = np.linalg.eigvalsh(closed_form.ClosedForm(X, Y, weights).matrix())
    reduce = reduced_by_hand.two_layers if len(widths) == 3 else reduced_by_hand.deep
    found = reduce(X, Y, weights)
    assert found[1].sum() == len(dense)
    assert len(found[0]) < len(dense)  # it is smaller
    assert spectrum.distance(found, (dense, np.ones(len(dense), np.int64))) < 1e-13
    sizes = np.abs(dense)
    assert reduced_by_hand.condition(found) == pytest.approx(sizes.max() / sizes[sizes > 1e-11].min(), rel=1e-9)


def test_the_gram_matrix_of_a_last_layer_has_its_eigenvalues():
    rng = np.random.default_rng(0)
    F, logits = rng.standard_normal((3, 7)), rng.standard_normal((3, 4))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    dense = sum(np.kron(np.diag(q) - np.outer(q, q), np.outer(f, f)) for q, f in zip(p, F, strict=True)) / 3
    found = reduced_by_hand.softmax_gram(F, logits, 1 / 3)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(dense)[-9:], rtol=1e-11)
