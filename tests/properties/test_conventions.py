"""What users of NumPy, SciPy, pickle and joblib expect of every object they hold."""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import problems
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg, eigsh

import hesskern as hk
from hesskern.validation.report import Row

problem = problems.normal([4, 6, 3], 12, bias=True, kind="mean", weight_decay=0.25)
H = problem.loss().hessian(problem.network())
MATRICES = {
    "Hessian": H,
    "Kronecker": H.block(1, 1),
    "Gauss-Newton": H.gauss_newton(),
    "block": H.block(0, 1),
    "eigenvectors": H.eigh(3, dense=False)[1],
}
GIGANTIC = hk.SquaredLoss(np.ones((2, 300)), np.ones((2, 300))).hessian(
    hk.LinearNetwork([np.ones((3000, 300)), np.ones((300, 3000))])
)


def held():
    """One object of each public class, by name."""
    net, loss = problem.network(), hk.SquaredLoss(problem.X, problem.Y, problem.kind, problem.weight_decay)
    K = loss.hessian(net, params=[1])
    run = hk.fit(net, loss, lr=1e-3, max_steps=3)
    row = Row("", "cpp", "loss", "loss", error=1e-16, tolerance=1e-14)
    report = hk.ValidationReport((row,), {"": "two"}, version="1", torch="2", seconds=0.5, interrupted=False)
    return {
        "network": net,
        "loss": loss,
        "numpy loss": hk.SquaredLoss(problem.X, problem.Y, backend="numpy"),
        **MATRICES,
        "spectrum": H.spectrum(),
        "condition": H.condition(),
        "run": run,
        "ensemble": hk.fit_ensemble([net, net], loss, lr=1e-3, max_steps=3),
        "reduction": run.reduction,
        "predicted rank": hk.predicted_rank([4, 6, 3], 12),
        "match": hk.explain(K.toarray(), net, loss, params=[1]),
        "explained": hk.explain(2 * K.toarray(), net, loss, params=[1]),
        "unexplained": hk.explain(np.diag(np.arange(21.0)), net, loss, params=[1]),
        "stored with decimals": hk.explain(np.round(K.toarray(), 3), net, loss, params=[1]),
        "stored in float32": hk.explain(K.toarray().astype("f4"), net, loss, params=[1]),
        "of a number": hk.explain("17.25", net, loss, params=[1]),
        "of a spectrum": hk.explain(K.eigvalsh(), net, loss, params=[1]),
        "invalid": hk.explain(np.eye(5), net, loss, params=[1]),
        "report": report,
        "case": hk.datasets.two_layer_case(),
    }


HELD = held()
COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {level}": lambda x, level=level: pickle.loads(pickle.dumps(x, level)) for level in range(2, 6)},
}


CONTENT = {
    hk.LinearNetwork: lambda net: net.flatten(),
    hk.SquaredLoss: lambda loss: np.append(loss.gradient(problem.network()), loss.data(bias=True, reduced=True).Y),
    hk.Run: lambda run: np.append(run.network.flatten(), run.history["loss"]),
    hk.Ensemble: lambda runs: np.append(runs.weights[1], runs.history["loss"]),
    hk.Explanation: lambda why: why.corrected,
    hk.datasets.Case: lambda case: case.X,
    hk.Spectrum: np.asarray,
    LinearOperator: np.asarray,
}


def content(thing):
    """What must survive, as an array or as text."""
    return next((of(thing) for kind, of in CONTENT.items() if isinstance(thing, kind)), str(thing))


@pytest.mark.parametrize("name", HELD)
def test_everything_travels(name):
    thing = HELD[name]
    for how, send in COPIES.items():
        other = send(thing)
        assert type(other) is type(thing), how
        assert repr(other) == repr(thing), how
        np.testing.assert_array_equal(content(other), content(thing), err_msg=how)
        if name == "numpy loss":
            assert other.backend == "numpy", how


@pytest.mark.parametrize("name", HELD)
def test_a_repr_is_one_informative_line(name):
    text = repr(HELD[name])
    assert "\n" not in text
    assert len(text) < 300
    assert " object at 0x" not in text


def test_the_repr_of_an_operator_says_of_what():
    assert repr(H) == (
        "<51x51 Hessian of layers 0, 1 in 4-6-3, kind='mean', weight_decay=0.25, dtype=float64>"
    )  # fmt: skip
    assert "<21x21 Kronecker Hessian of layer 1 in 4-6-3" in repr(H.block(1, 1))
    assert "<30x21 functional part block of layers 0 and 1" in repr(H.block(0, 1).functional())
    loss = hk.SquaredLoss(problem.X, problem.Y, backend="numpy")
    assert "of 0.weight, 1.bias in 4-6-3, kind='half_sum', backend='numpy'" in repr(
        loss.hessian(problem.network(), params=["0.weight", "1.bias"])
    )
    deep = hk.LinearNetwork.random([2] * 201, seed=0)
    assert repr(deep) == "LinearNetwork(2-2-2-...-2 (200 layers), no bias, float64, 800 parameters)"
    of_deep = hk.SquaredLoss(np.ones((3, 2)), np.ones((3, 2))).hessian(deep)
    assert "of layers 0, 1, 2, ..., 199 in 2-2-2-...-2 (200 layers)" in repr(of_deep)


@pytest.mark.parametrize("name", ["network", "loss", "Hessian", "spectrum", "run", "ensemble", "case"])
def test_what_holds_arrays_is_equal_to_itself_only(name):
    thing = HELD[name]
    assert thing == thing  # noqa: PLR0124
    assert thing != copy.copy(thing)
    assert len({thing, thing}) == 1


@pytest.mark.parametrize("name", [*MATRICES, "spectrum"])
def test_numpy_reads_the_dense_array(name):
    thing = HELD[name]
    dense = thing.expand() if name == "spectrum" else thing.toarray()
    for found in (np.asarray(thing), np.array(thing), np.array(thing, copy=True), np.asarray(thing, dtype="float64")):
        np.testing.assert_array_equal(found, dense)
        assert found.dtype == dense.dtype
        assert found.flags.writeable
    single = np.asarray(thing, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, dense.astype(np.float32))
    with pytest.raises(ValueError, match=r"copy is False, but .* has to be computed into new memory"):
        np.asarray(thing, copy=False)
    np.testing.assert_allclose(np.linalg.norm(thing), np.linalg.norm(dense), rtol=1e-14)


@pytest.mark.parametrize(
    "densify",
    [np.asarray, np.array, np.linalg.norm, lambda x: np.asarray(x, dtype=np.float32), lambda x: np.stack([x])],
)
def test_a_gigantic_hessian_is_refused_in_words(densify):
    with pytest.raises(MemoryError, match=r"the dense 1800000 x 1800000 .* takes 23\.6 TiB.*use the operator itself"):
        densify(GIGANTIC)
    with pytest.raises(MemoryError, match=r"takes 23\.6 TiB"):  # where one is not expected
        hk.LinearNetwork([GIGANTIC])
    with pytest.raises(MemoryError, match="the list of all 200000000000000 eigenvalues takes"):
        np.asarray(hk.Spectrum([1.0, 0.0], [10**14, 10**14]))


def forbid(*_args, **_options):
    raise AssertionError("the dense matrix was made")


@pytest.mark.parametrize("name", MATRICES)
def test_algebra_makes_no_dense_matrix(name, monkeypatch):
    """SciPy's sums, multiples and products of operators, and arrays on either side."""
    thing = MATRICES[name]
    dense = thing.toarray()
    rng = np.random.default_rng(0)
    v, V, A = (rng.standard_normal(shape) for shape in (dense.shape[1], (dense.shape[1], 2), (5, dense.shape[0])))
    monkeypatch.setattr(type(thing), "toarray", forbid)
    np.testing.assert_allclose(A @ thing, A @ dense, atol=1e-12)
    np.testing.assert_allclose(A[0] @ thing, A[0] @ dense, atol=1e-12)
    for found, expected in [
        (2 * thing, 2 * dense),
        (np.float64(2) * thing, 2 * dense),
        (thing * np.float32(2), 2 * dense),
        (thing / 4, dense / 4),
        (-thing, -dense),
        (thing + thing, 2 * dense),
        (thing - 3 * thing, -2 * dense),
        (thing.T @ thing, dense.T @ dense),
    ]:
        assert isinstance(found, LinearOperator)
        np.testing.assert_allclose(found @ v, expected @ v, atol=1e-12)
        np.testing.assert_allclose(found @ V, expected @ V, atol=1e-12)
    for turned in (thing.T, thing.H, thing.adjoint(), thing.transpose()):
        np.testing.assert_allclose(turned @ A.T, dense.T @ A.T, atol=1e-12)
    assert aslinearoperator(thing) is thing
    for wrong in (lambda: np.sin(thing), lambda: np.matmul(A, thing), lambda: thing + A):
        with pytest.raises(TypeError, match="does not support ufuncs"):
            wrong()


def test_a_symmetric_operator_is_its_own_transpose(monkeypatch):
    for name in ("Hessian", "Kronecker", "Gauss-Newton"):
        thing = MATRICES[name]
        assert thing.T is thing and thing.H is thing and thing.adjoint() is thing
    block = MATRICES["block"]
    assert isinstance(block.T, hk.CrossBlock) and block.T.shape == block.shape[::-1]
    dense = H.gauss_newton().toarray() + np.eye(len(H.toarray()))
    damped = H.gauss_newton() + aslinearoperator(np.eye(len(dense)))
    b = np.arange(1.0, 1.0 + len(dense))
    monkeypatch.setattr(hk.Hessian, "toarray", forbid)
    solution, code = cg(damped, b, rtol=1e-12)
    assert code == 0
    np.testing.assert_allclose(solution, np.linalg.solve(dense, b), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(eigsh(H, 2, which="LA", v0=b)[0], H.eigvalsh()[-2:], rtol=1e-10)


@pytest.mark.parametrize("name", MATRICES)
def test_a_tensor_is_read_or_refused_in_words(name):
    torch = pytest.importorskip("torch")
    thing = MATRICES[name]
    v = np.random.default_rng(0).standard_normal(thing.shape[1])
    np.testing.assert_array_equal(thing @ torch.from_numpy(v), thing @ v)
    np.testing.assert_allclose(torch.ones(thing.shape[0]) @ thing, np.asarray(thing).sum(axis=0), atol=1e-12)
    for wrong, mend in {
        torch.from_numpy(v).requires_grad_(): r"v\.detach\(\)\.cpu\(\)\.numpy\(\)\.",
        torch.empty(len(v), device="meta"): r"v\.detach\(\)\.cpu\(\)\.numpy\(\)\.",
        torch.from_numpy(v).bfloat16(): r"v\.detach\(\)\.cpu\(\)\.double\(\)\.numpy\(\)\.",
    }.items():
        with pytest.raises(
            TypeError, match=rf"v is a Tensor that NumPy cannot read .*; for a torch tensor pass {mend}"
        ):
            thing @ wrong


# joblib ---------------------------------------------------------------------------------------------------------------


def mapped(folder, **arrays):
    """The arrays in files, mapped read-only as joblib maps large ones for its workers."""
    found = []
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        found.append(np.load(folder / f"{name}.npy", mmap_mode="r"))
    return found


def test_read_only_memory_maps_are_not_copied(tmp_path):
    rng = np.random.default_rng(0)
    W, b, X, Y = mapped(tmp_path, W=rng.random((3, 4)), b=rng.random(3), X=rng.random((9, 4)), Y=rng.random((9, 3)))
    net, loss = hk.LinearNetwork([W], [b]), hk.SquaredLoss(X, Y)
    for kept, given in ((net.weights[0], W), (net.biases[0], b), (loss.X, X), (loss.Y, Y)):
        assert np.shares_memory(kept, given)
        assert type(kept) is np.ndarray
    assert not net.weights[0].flags.writeable
    in_memory = hk.SquaredLoss(np.array(X), np.array(Y)).hessian(hk.LinearNetwork([np.array(W)], [np.array(b)]))
    np.testing.assert_array_equal(loss.hessian(net).toarray(), in_memory.toarray())
    changing = np.load(tmp_path / "W.npy", mmap_mode="r+")
    assert not np.shares_memory(hk.LinearNetwork([changing]).weights[0], changing)
    changing.flags.writeable = False  # and still this process can write through another view
    assert not np.shares_memory(hk.LinearNetwork([changing]).weights[0], changing)


def test_a_pickle_out_of_band_is_not_copied():
    """Protocol 5: what Dask, Ray and joblib do with large arrays."""
    net, buffers = problem.network(), []
    data = pickle.dumps(net, 5, buffer_callback=buffers.append)
    again = pickle.loads(data, buffers=buffers)
    assert all(np.shares_memory(one, other) for one, other in zip(net.weights, again.weights, strict=True))
    assert not any(weight.flags.writeable for weight in copy.deepcopy(net).weights)


def test_workers_of_joblib():
    joblib = pytest.importorskip("joblib")
    loss = hk.SquaredLoss(np.random.default_rng(1).random((20, 30)), np.ones((20, 20)), backend="numpy")
    large = loss.hessian(hk.LinearNetwork.random([30, 40, 20], seed=0))
    V = np.random.default_rng(0).standard_normal((2, large.shape[0]))

    def work(A, v):  # an own function, so that it goes by value
        maps = [isinstance(array.base, np.memmap) for array in (*A._net.weights, A._loss.X)]
        return A._backend.name, maps, A @ v

    with joblib.parallel_config("loky", n_jobs=2, max_nbytes=4000):
        found = joblib.Parallel()(joblib.delayed(work)(large, v) for v in V)
        products = joblib.Parallel()(joblib.delayed(operator.matmul)(H, v) for v in np.eye(len(H.toarray()))[:2])
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
    for (backend, maps, product), v in zip(found, V, strict=True):
        assert (backend, maps) == ("numpy", [True, True, True])
        np.testing.assert_allclose(product, large @ v, rtol=1e-13)
    np.testing.assert_allclose(products, H.toarray()[:2], atol=1e-14)


def test_hashes_of_joblib():
    joblib = pytest.importorskip("joblib")
    net = problem.network()
    same = [problem.network(), net.unflatten(net.flatten()), copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    assert {joblib.hash(each) for each in same} == {joblib.hash(net)}
    assert joblib.hash(net.unflatten(net.flatten() + 1)) != joblib.hash(net)
    loss, other = problem.loss(), problem.loss()
    before = joblib.hash(loss)
    operators = [each.hessian(net) for each in (loss, other)]
    operators[0] @ np.ones(51), operators[0].condition(), operators[0].toarray()
    assert joblib.hash(loss) == joblib.hash(other) == before
    assert joblib.hash(operators[0]) == joblib.hash(operators[1])
    assert joblib.hash(operators[0].block(0, 1)) == joblib.hash(operators[1].block(0, 1))
    assert joblib.hash(operators[0]) != joblib.hash(operators[0].gauss_newton())


def test_a_pickle_keeps_the_reduced_samples_once(monkeypatch):
    """A worker does not factor N samples again."""
    loss = problem.loss()
    data = pickle.dumps([loss.hessian(problem.network()), loss.hessian(problem.network()).block(0, 1)])
    monkeypatch.setattr("hesskern.losses.least_squares.reduce_samples", forbid)
    again, block = pickle.loads(data)
    np.testing.assert_array_equal(again.toarray(), H.toarray())
    np.testing.assert_array_equal(block.toarray(), MATRICES["block"].toarray())
