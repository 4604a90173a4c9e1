"""The dense matrix: where it is written, in which order, symmetric to the bit, and refused where it does not fit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import oracle
import problems
import pytest
from looped import each, few_quick
from witness import relative

import hesskern as hk
from hesskern._base import memory


@each("seed", problems.GENERAL, quick=15)
def test_symmetric_to_the_bit(backend, dtype, seed):
    problem = problems.general(seed)
    H = problem.loss(dtype).hessian(problem.network(dtype))
    for operator in (H, H.gauss_newton(), H.functional()):
        for vec in ("row", "column"):
            dense = operator.toarray(vec=vec)
            np.testing.assert_array_equal(dense, dense.T)
    for row in range(len(problem.weights)):
        for column in range(row):
            np.testing.assert_array_equal(H.block(row, column).toarray(), H.block(column, row).toarray().T)


#: Large enough for several threads (16 MiB in float64) and for writes that pass the cache.
LARGE = ([20, 40, 30, 9], 50)


def test_a_large_matrix_is_symmetric_to_the_bit_and_right(backend, dtype, close):
    problem = problems.normal(*LARGE, bias=True, kind="mean", weight_decay=0.5)
    H = problem.loss(dtype).hessian(problem.network(dtype))
    assert H.shape[0] ** 2 * 8 > 32_000_000
    dense = H.toarray()
    np.testing.assert_array_equal(dense, dense.T)
    unit = np.zeros((H.shape[0], 40))
    columns = np.linspace(0, len(unit) - 1, 40).astype(int)
    unit[columns, np.arange(40)] = 1.0
    with hk.use_backend("numpy"):
        truth = problem.loss().hessian(problem.network()) @ unit
    close(dense[:, columns], truth, dtype)


SYMMETRY = """
import sys
import numpy as np, hesskern as hk
assert hk._core.isa == sys.argv[1], hk._core.isa
for dtype in ("float64", "float32"):
    for seed, widths in enumerate([[3, 5, 2], [7, 33, 9, 5], [4, 1, 6, 2, 3], [20, 30, 30, 9]]):
        net = hk.LinearNetwork.random(widths, seed=seed, bias=seed % 2 == 1, dtype=np.dtype(dtype).type)
        rng = np.random.default_rng(seed)
        X, Y = (rng.standard_normal((50, width)).astype(dtype) for width in (widths[0], widths[-1]))
        H = hk.SquaredLoss(X, Y, "mean", weight_decay=0.1).hessian(net)
        dense = H.toarray()
        assert np.array_equal(dense, dense.T), (dtype, widths)
        v = rng.standard_normal(len(dense)).astype(dtype)
        with hk.use_backend("numpy"):
            other = hk.SquaredLoss(X, Y, "mean", weight_decay=0.1).hessian(net)
            tolerance = {"float64": 1e-12, "float32": 2e-4}[dtype]
            size = np.abs(dense).max()
            assert np.abs(other.toarray() - dense).max() <= tolerance * size, (dtype, widths)
            assert np.abs(other @ v - H @ v).max() <= tolerance * size * len(v) ** 0.5, (dtype, widths)
            if dtype == "float64":
                ours = np.linalg.eigvalsh(dense)
                assert np.abs(H.eigvalsh() - ours).max() <= 1e-11 * size * len(v) ** 0.5
    print("done", dtype)
"""


@pytest.mark.parametrize("isa", few_quick(hk._core.available_isas, 1))
def test_every_instruction_set_is_symmetric_and_right(python, isa):
    done = python(SYMMETRY, isa, HESSKERN_ISA=isa, OPENBLAS_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["done", "float64", "done", "float32"]


@each("seed", range(0, 300, 11), quick=9)
def test_out_is_filled_and_returned(backend, dtype, seed):
    problem = problems.general(seed)
    H = problem.loss(dtype).hessian(problem.network(dtype))
    last = len(problem.weights) - 1
    for operator in (H, H.gauss_newton(), H.functional(), H.block(0, 0), H.block(last, 0)):
        out = np.full(operator.shape, np.nan, dtype)
        assert operator.toarray(out=out) is out
        np.testing.assert_array_equal(out, operator.toarray())
        assert operator.toarray() is not out


def test_out_that_does_not_fit_is_refused(backend):
    problem = problems.normal([4, 5, 3], 9)
    H = problem.loss().hessian(problem.network())
    for operator in (H, H.block(0, 1)):
        rows, columns = operator.shape
        for out, error in [
            (np.empty((rows, columns + 1)), ValueError),
            (np.empty((rows, columns), np.float32), TypeError),
            (np.empty((columns, rows)).T if rows != columns else np.empty((rows, rows), order="F"), ValueError),
            ([[0.0] * columns] * rows, TypeError),
        ]:
            with pytest.raises(error, match=r"^out "):
                operator.toarray(out=out)


def test_a_memmap_takes_the_full_matrix(backend, dtype, tmp_path):
    problem = problems.normal([4, 9, 3, 6], 9, bias=True)
    H = problem.loss(dtype).hessian(problem.network(dtype))
    out = np.memmap(tmp_path / "H.bin", dtype=dtype, mode="w+", shape=H.shape)
    assert H.toarray(out=out) is out
    out.flush()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "H.bin", dtype).reshape(H.shape), H.toarray())


def column_order(problem):
    """For every parameter in the order of columns, its place in `named_parameters()` order, one by one."""
    order = []
    at = 0
    for weight, bias in zip(problem.weights, problem.biases, strict=True):
        outputs, inputs = weight.shape
        order.append([at + r * inputs + q for q in range(inputs) for r in range(outputs)])
        at += weight.size
        if bias is not None:
            order[-1] += list(range(at, at + bias.size))
            at += bias.size
    return order


@each("seed", range(0, 300, 9), quick=9)
def test_columns_first_is_a_permutation(backend, seed):
    problem = problems.general(seed)
    H = problem.loss().hessian(problem.network())
    layers = column_order(problem)
    whole = np.concatenate(layers).astype(int)
    for operator in (H, H.gauss_newton(), H.functional()):
        relative(operator.toarray(vec="column"), operator.toarray()[np.ix_(whole, whole)], 1e-15)
    dense = H.toarray()
    for row, rows in enumerate(layers):
        for column, columns in enumerate(layers):
            relative(H.block(row, column).toarray(vec="column"), dense[np.ix_(rows, columns)], 1e-13)


def test_columns_first_turns_the_kronecker_product_round():
    problem = problems.normal([4, 5, 3], 9)
    block = problem.loss().hessian(problem.network()).block(0, 0)
    U, V = problem.weights[1].T @ problem.weights[1], problem.X.T @ problem.X
    relative(block.toarray(), np.kron(U, V))
    relative(block.toarray(vec="column"), np.kron(V, U))


@pytest.mark.parametrize("vec", ["rows", "C", None, 0])
def test_unknown_order(vec):
    problem = problems.normal([4, 5, 3], 9)
    H = problem.loss().hessian(problem.network())
    for operator in (H, H.block(0, 0), H.block(0, 1)):
        with pytest.raises(ValueError, match=r"^vec is .*expected one of 'row', 'column'"):
            operator.toarray(vec=vec)


def free(monkeypatch, count):
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=count))


def test_what_does_not_fit_is_refused_with_the_number_and_the_way_out(backend, monkeypatch):
    problem = problems.normal([6, 7, 8, 6], 9)  # nothing to reduce
    H = problem.loss().hessian(problem.network())
    size = H.shape[0]
    assert size == 146
    for operator in (H, H.gauss_newton(), H.functional(), H.block(0, 0), H.block(0, 2)):
        rows, columns = operator.shape
        needed = 8 * rows * columns
        free(monkeypatch, needed - 1)
        with pytest.raises(MemoryError) as caught:
            operator.toarray()
        for part in (f"{rows} x {columns}", memory.human(needed), memory.human(needed - 1), "H @ v", "memmap"):
            assert part in str(caught.value)
        free(monkeypatch, needed)
        assert operator.toarray().shape == (rows, columns)
        free(monkeypatch, 0)
        operator.toarray(out=np.empty(operator.shape))  # what is there already takes nothing
        assert np.isfinite(operator @ np.ones(columns)).all()
        if rows == columns:
            assert np.isfinite(operator.diagonal()).all()


@pytest.mark.parametrize("part", ["full", "gauss_newton", "functional"])
def test_an_eigenproblem_that_does_not_fit_is_refused(backend, monkeypatch, part):
    problem = problems.normal([6, 7, 8, 6], 9)
    H = problem.loss().hessian(problem.network())
    operator = H if part == "full" else getattr(H, part)()
    free(monkeypatch, 8 * 146)
    calls = {
        "spectrum": operator.spectrum,
        "rank": operator.rank,
        "condition": operator.condition,
        "eigh": operator.eigh,
        "solve": lambda: operator.solve(np.ones(146), damping=1e3),
        "logdet": lambda: operator.logdet(damping=1e3),
    }
    for name, call in calls.items():
        with pytest.raises(MemoryError, match=r"takes .*only 1\.1 KiB of memory is free; use H\.eigsh\(k\)"):
            call()
        assert name
    free(monkeypatch, 1 << 40)
    for call in calls.values():
        call()


def test_eigenvectors_and_lists_that_do_not_fit_are_refused(monkeypatch):
    problem = problems.normal([3, 200, 2], 9)
    H = problem.loss().hessian(problem.network())
    H.spectrum(), H.eigh(1)
    free(monkeypatch, 3000)
    with pytest.raises(MemoryError, match=r"the list of all 1000 eigenvalues takes 7\.8 KiB.*multiplicities"):
        H.eigvalsh()
    assert H.spectrum().size == 1000
    with pytest.raises(MemoryError, match=r"200 eigenvectors of length 1000 takes.*dense=False"):
        H.eigh(200)
    assert H.eigh(200, dense=False)[1].shape == (1000, 200)


def test_the_named_parameters_order_is_pytorchs():
    """Where a parameter stands: the only nonzero direction of a network in which nothing else does anything."""
    weights = [np.zeros((2, 3)), np.zeros((2, 2))]
    weights[0][1, 2] = 5.0
    X = np.array([[0.0, 0.0, 1.0]])
    H = hk.SquaredLoss(X, np.zeros((1, 2))).hessian(hk.LinearNetwork(weights))
    where = oracle.layer_slices(weights, [None, None])[1]
    expected = np.zeros(4)
    expected[[1, 3]] = 25.0  # W_2[c, 1] for both outputs c
    np.testing.assert_array_equal(H.diagonal()[where], expected)
