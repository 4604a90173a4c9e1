"""`hk.validate`: what it accepts, what it says, and that good networks pass."""

from __future__ import annotations

import signal
import sys

import numpy as np
import problems
import pytest

import hesskern as hk
from hesskern import backends

pytest.importorskip("torch")

from hesskern.backends.numpy_backend import ReferenceBackend
from hesskern.validation import autograd, catalogue, validator
from hesskern.validation.report import (
    ABSENT,
    AGREES,
    OVERFLOWED,
)


def small():
    problem = problems.normal([3, 4, 2], 6, bias=True)
    return problem.network(), problem.loss()


@pytest.fixture(scope="module")
def built_in():
    return hk.validate()


@pytest.mark.long
def test_the_built_in_networks(built_in):
    assert built_in.ok and built_in.failures == ()
    assert set(built_in.problems) == set(catalogue.names())
    available = {row.backend for row in built_in.rows if row.verdict != ABSENT}
    assert {"cpp", "numpy"} <= available
    for backend in available:
        for problem in built_in.problems:
            compared = [row for row in built_in.rows if (row.backend, row.problem) == (backend, problem)]
            assert sum(row.compared for row in compared) > 40
    text = str(built_in)
    assert "everything agrees" in text and "the case: 5-100-5" in text and text.isascii()


@pytest.mark.long
def test_every_row_has_a_tolerance_that_came_from_somewhere(built_in):
    for row in built_in.rows:
        if row.compared:
            assert row.tolerance > 0 and np.isfinite(row.error), row
            if row.verdict == AGREES:
                assert row.used <= 1 or (row.third == "exact" and row.third_error <= row.third_tolerance), row


@pytest.mark.long
def test_most_rows_have_a_third_witness(built_in):
    small_ones = [row for row in built_in.rows if row.problem == "depth 3" and row.compared]
    assert sum(bool(row.third) for row in small_ones) > 0.9 * len(small_ones)


@pytest.mark.long
def test_every_kind_of_quantity_is_there(built_in):
    groups = {row.group for row in built_in.rows}
    assert groups >= {
        "prediction", "loss", "gradient", "other losses", "products", "Hessian", "diagonal blocks", "cross blocks",
        "Gauss-Newton part", "functional part", "diagonal and trace", "spectrum", "condition and rank", "eigenvectors",
        "solve and logdet", "training",
    }  # fmt: skip
    steps = {row.quantity for row in built_in.rows if row.group == "training"}
    assert {f"training, {name}" for name in ("plain", "momentum", "Nesterov", "weight decay", "minibatches")} <= steps


@pytest.mark.long
def test_what_is_sampled_says_so(built_in):
    large = [row for row in built_in.rows if row.problem == "large"]
    assert {row.method for row in large if row.group == "cross blocks"} == {"3 directions"}
    assert {row.method for row in large if "largest eigenvalue" in row.quantity} == {"Lanczos"}
    assert {row.method for row in built_in.rows if row.problem == "depth 3" and row.group == "cross blocks"} == {
        "whole"
    }
    assert "block (0, 1) @ v (3 directions)" in built_in.text(every=True)


@pytest.mark.long
def test_the_case_has_its_number(built_in):
    (row,) = [
        row for row in built_in.rows
        if (row.problem, row.backend, row.quantity) == ("the case", "cpp", "condition and rank of block (1, 1)")
    ]  # fmt: skip
    assert row.third == "exact" and row.third_error < 1e-13


@pytest.mark.parametrize("seed", [pytest.param(k, marks=[pytest.mark.long] if k % 4 else []) for k in range(20)])
def test_networks_of_all_shapes(seed):
    problem = problems.general(seed)
    report = hk.validate(problem.network(), problem.loss(), backends=["cpp"])
    assert report.ok, str(report)


@pytest.mark.parametrize("seed", range(0, 30, 5))
def test_networks_of_all_shapes_in_float32(seed):
    problem = problems.general(seed)
    report = hk.validate(problem.network("float32"), problem.loss("float32"))
    assert report.ok, str(report)
    gradient = next(row for row in report.rows if row.group == "gradient")
    assert 1e-9 < gradient.tolerance < 1e-3


def test_a_minimum_with_zero_residual():
    case = hk.datasets.two_layer_case()
    loss = hk.SquaredLoss(case.X, case.Y)
    run = hk.fit(case.network, loss, lr=case.lr, max_steps=10_000, rtol=case.rtol)
    report = hk.validate(run.network, loss, backends=["cpp"])
    assert report.ok, str(report)
    assert "relative to its terms, which cancel" in {row.note for row in report.rows if row.group == "gradient"}
    (row,) = [row for row in report.rows if row.quantity == "condition and rank of block (1, 1)"]
    assert row.third == "exact" and row.third_error < 1e-13


def test_a_condition_number_that_a_dense_matrix_does_not_have():
    problem = problems.normal([3, 4, 2], 6)
    loss = hk.SquaredLoss(problem.X * np.array([1e-12, 1.0, 1e9]), problem.Y)
    report = hk.validate(problem.network(), loss, backends=["cpp"])
    assert report.ok, str(report)
    rows = {row.quantity: row for row in report.rows}
    block = rows["condition and rank of block (0, 0)"]
    assert block.tolerance > 1e3 and block.third_error < 1e-10 and block.verdict == AGREES
    assert "leaves" in block.note


def test_zero_weights_and_zero_data():
    net = hk.LinearNetwork([np.zeros((3, 2)), np.zeros((1, 3))])
    report = hk.validate(net, hk.SquaredLoss(np.zeros((4, 2)), np.ones((4, 1))), backends=["cpp"])
    assert report.ok, str(report)


# The report -----------------------------------------------------------------------------------------------------------


# Backends -------------------------------------------------------------------------------------------------------------


def test_a_backend_that_is_not_installed_is_absent(monkeypatch):
    known, get = backends.host_names(), backends.get

    def missing(name=None):
        if name == "gpu":
            raise ImportError('backend "gpu" needs a package; install it with pip install "hesskern[gpu]".')
        return get(name)

    monkeypatch.setattr(backends, "host_names", lambda: (*known, "gpu"))
    monkeypatch.setattr(backends, "get", missing)
    report = hk.validate(*small())
    assert report.ok
    (row,) = [row for row in report.rows if row.verdict == ABSENT]
    assert row.quantity == "gpu" and "pip install" in row.note and not row.compared
    assert "The backend gpu is absent" in str(report)
    with pytest.raises(ImportError, match="hesskern\\[gpu\\]"):
        hk.validate(*small(), backends=["gpu"])


def test_the_backend_asked_for_is_the_one_that_computes(monkeypatch):
    monkeypatch.setattr(ReferenceBackend, "forward", lambda *_: pytest.fail("another backend was used"))
    assert {row.backend for row in hk.validate(*small(), backends=["cpp"]).rows} == {"cpp"}


@pytest.mark.parametrize(
    ("samples", "weights", "targets", "overflows"),
    [(1e20, 1.0, 1.0, True), (1e20, 1e-20, 1.0, True), (1e-20, 1e20, 1.0, True), (1e-20, 1.0, 1e-20, False)],
)
def test_float32_that_overflows_is_no_error_of_hesskern(samples, weights, targets, overflows):
    """What is squared on the way overflows; a Hessian of ordinary size is judged all the same."""
    rng = np.random.default_rng(0)
    X, Y = samples * rng.standard_normal((6, 3)), targets * rng.standard_normal((6, 2))
    first, second = weights * rng.standard_normal((4, 3)), rng.standard_normal((2, 4))
    net = hk.LinearNetwork([first.astype(np.float32), second.astype(np.float32)])
    report = hk.validate(net, hk.SquaredLoss(X.astype(np.float32), Y.astype(np.float32)), backends=["cpp"])
    assert report.failures == () and report.ok
    found = [row.verdict for row in report.rows]
    assert (OVERFLOWED in found) == overflows
    assert found.count(AGREES) >= (15 if samples * weights > 1e10 else 30)
    notes = {row.note for row in report.rows if row.verdict == OVERFLOWED}
    assert all("the float32 computation overflowed" in note and "use float64" in note for note in notes)


# Arguments ------------------------------------------------------------------------------------------------------------


def test_bad_arguments():
    net, loss = small()
    with pytest.raises(TypeError, match=r"^net is a NoneType; expected a hesskern\.LinearNetwork"):
        hk.validate(None, loss)
    with pytest.raises(TypeError, match=r"^loss is a NoneType; expected a hesskern\.SquaredLoss"):
        hk.validate(net)
    with pytest.raises(ValueError, match=r"^X has shape \(6, 3\); expected \(N, 4\)"):
        hk.validate(hk.LinearNetwork.random([4, 2], seed=0), loss)
    with pytest.raises(ValueError, match=r"^problems names built-in networks; expected it without net and loss"):
        hk.validate(net, loss, problems=["square"])
    with pytest.raises(ValueError, match=r"^problems is 'round'.*expected one of 'depth 1'"):
        hk.validate(problems=["round"])
    with pytest.raises(TypeError, match=r"^problems is 'square' \(of type str\); expected a list of names"):
        hk.validate(problems="square")
    with pytest.raises(ValueError, match=r"backend is 'fortran'; expected one of 'cpp'"):
        hk.validate(net, loss, backends=["fortran"])
    with pytest.raises(TypeError, match=r"^backends is 'cpp' \(of type str\); expected a list of names"):
        hk.validate(net, loss, backends="cpp")
    for name in ("directions", "dense_size"):
        with pytest.raises(ValueError, match=rf"^{name} is 0; expected at least 1"):
            hk.validate(net, loss, **{name: 0})
    with pytest.raises(TypeError, match=r"^progress is 1"):
        hk.validate(net, loss, progress=1)


def test_without_torch_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r'^validate compares with PyTorch, .*pip install "hesskern\[torch\]"\.$'):
        hk.validate(*small())


def test_a_torch_that_does_not_load(monkeypatch):
    def broken():
        raise autograd.TorchUnavailableError("PyTorch is installed but does not load: libfoo is missing")

    monkeypatch.setattr(autograd, "load_torch", broken)
    with pytest.raises(ImportError, match=r"does not load: libfoo is missing$"):
        hk.validate(*small())


# Along the way --------------------------------------------------------------------------------------------------------


def test_progress(capsys):
    pytest.importorskip("tqdm")
    hk.validate(*small(), backends=["cpp"])
    assert capsys.readouterr().err == ""
    hk.validate(*small(), backends=["cpp"], progress=True)
    assert "100%" in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_checked(monkeypatch):
    original, count = validator.row_of, []

    def interrupted(*arguments):
        count.append(1)
        if len(count) == 7:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(validator, "row_of", interrupted)
    before = signal.getsignal(signal.SIGINT)
    report = hk.validate(*small(), backends=["cpp"])
    assert report.interrupted and not report.ok and len(report.rows) == 7 and report.failures == ()
    assert str(report).splitlines()[-1].startswith("Interrupted: 7 comparisons")
    assert "interrupted" in repr(report)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_of_a_handler_that_is_the_users_own(monkeypatch):
    original, count = validator.row_of, []

    def interrupted(*arguments):
        count.append(1)
        if len(count) == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(validator, "row_of", interrupted)
    report = hk.validate(*small(), backends=["cpp"])
    assert report.interrupted and len(report.rows) == 3


def test_the_same_twice():
    first, second = (hk.validate(*small(), backends=["cpp"]) for _ in range(2))
    assert first.rows == second.rows or [r.error for r in first.rows] == [r.error for r in second.rows]
    other = hk.validate(*small(), backends=["cpp"], seed=1)
    assert [row.error for row in other.rows] != [row.error for row in first.rows]
