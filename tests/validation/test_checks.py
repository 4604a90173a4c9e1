"""Deliberately broken backends: each mistake is found, in the rows that it touches, and blamed on hesskern."""

from __future__ import annotations

import dataclasses

import numpy as np
import problems
import pytest

import hesskern as hk
from hesskern.backends import numpy_backend
from hesskern.backends.protocol import Block

pytest.importorskip("torch")

from broken_backends import Reference, broken, failed, given

from hesskern.curvature.hessian import Hessian
from hesskern.validation import autograd
from hesskern.validation.case import ValidationCase
from hesskern.validation.checks import checks_of
from hesskern.validation.comparison import Comparison, row_of
from hesskern.validation.evidence import Evidence, Subject
from hesskern.validation.report import AUTOGRAD_WRONG, HESSKERN_WRONG, RAISED, UNCHECKED


def groups(report):
    return {row.group for row in report.failures}


def test_unbroken():
    report = hk.validate(*given(), backends=["numpy"])
    assert report.ok and report.failures == ()


def test_a_transposed_cross_block(monkeypatch):
    def assemble(original, rows, columns, blocks, out):
        turned = [
            Block(block.U.T.copy(), *block[1:]) if k // len(columns) < k % len(columns) else block
            for k, block in enumerate(blocks)
        ]
        original(rows, columns, turned, out)

    found = failed(broken(monkeypatch, "assemble", assemble))
    assert {"H, dense", "Gauss-Newton, dense"} <= found
    assert not {name for name in found if "@" in name or "gradient" in name or "training" in name or "(1, 1)" in name}


def test_a_transposed_rectangle(monkeypatch):
    """``H.block(0, 1)`` returning ``H.block(1, 0)``, which has the same shape here."""
    original = Hessian.block
    monkeypatch.setattr(Hessian, "block", lambda self, row, column: original(self, column, row))
    found = failed(hk.validate(*given(), backends=["numpy"]))
    assert {"block (0, 1)", "block (1, 0)"} <= found
    assert not {"H, dense", "block (0, 0)", "block (1, 1)", "H @ v"} & found


def test_a_factor_of_two_in_the_gradient(monkeypatch):
    def gradient(original, net, data, scale):
        squared, found = original(net, data, scale)
        return squared, 2 * found

    report = broken(monkeypatch, "gradient", gradient)
    assert groups(report) == {"gradient", "other losses"}
    assert {"gradient of 0.weight", "gradient of 0.bias", "gradient, mean"} <= failed(report)
    (row,) = [row for row in report.rows if row.quantity == "gradient of 0.weight"]
    assert row.error == pytest.approx(1, rel=1) and "0.weight[" in row.note


def test_a_factor_of_two_in_products(monkeypatch):
    def apply(original, v, out):
        original(v, out)
        out *= 2

    report = broken(monkeypatch, "apply", apply, numpy_backend.ReferenceProduct)
    assert {"H @ v", "H @ V", "Gauss-Newton @ v", "functional part @ v"} <= failed(report)
    assert not {"H, dense", "gradient of 0.weight", "prediction"} & failed(report)


def test_the_sign_of_the_functional_part(monkeypatch):
    def assemble(original, rows, columns, blocks, out):
        turned = [block if block.W is None else block._replace(W=-block.W) for block in blocks]
        original(rows, columns, turned, out)

    report = broken(monkeypatch, "assemble", assemble)
    found = failed(report)
    assert {"functional part, dense", "functional part, block (0, 1)", "block (1, 0)", "H, dense"} <= found
    assert not {row for row in report.failures if row.group in ("Gauss-Newton part", "diagonal blocks", "training")}


def test_the_sign_of_the_functional_part_in_products(monkeypatch):
    def product(original, net, data, **options):
        made = original(net, data, **options)
        made._deltas = [-delta for delta in made._deltas]
        return made

    found = failed(broken(monkeypatch, "hessian_product", product))
    assert {"H @ v", "functional part @ v"} <= found
    assert not {"Gauss-Newton @ v", "H, dense"} & found


def test_a_wrong_bias_gradient(monkeypatch):
    def gradient(original, net, data, scale):
        squared, found = original(net, data, scale)
        found[9:12] *= 1 + 1e-9  # 0.bias
        return squared, found

    report = broken(monkeypatch, "gradient", gradient)
    assert failed(report) == {
        "gradient of 0.bias", "gradient, sum", "gradient, mean", "gradient, half_sum, weight decay 0"
    }  # fmt: skip


def test_a_wrong_prediction_and_a_wrong_loss(monkeypatch):
    found = failed(broken(monkeypatch, "forward", lambda original, net, X: original(net, X) + 1e-8))
    assert found == {"prediction"}
    monkeypatch.undo()
    report = broken(monkeypatch, "squared_residual", lambda original, net, data: original(net, data) * (1 + 1e-8))
    assert failed(report) == {"loss, half_sum", "loss, sum", "loss, mean", "loss, half_sum, weight decay 0"}


def test_not_a_number(monkeypatch):
    def gradient(original, net, data, scale):
        squared, found = original(net, data, scale)
        found[2] = np.nan
        return squared, found

    report = broken(monkeypatch, "gradient", gradient)
    assert "gradient of 0.weight" in failed(report) and "gradient of 0.bias" not in failed(report)
    assert "0.weight[0,2]" in next(row for row in report.failures).note


def test_the_wrong_shape_and_an_error(monkeypatch):
    def raising(original, net, X):
        raise ZeroDivisionError("by zero\nin two lines")

    report = broken(monkeypatch, "forward", raising)
    (row,) = report.failures
    assert (row.quantity, row.verdict, row.note) == ("prediction", RAISED, "ZeroDivisionError: by zero in two lines")
    assert not report.ok and RAISED in str(report)
    monkeypatch.undo()
    report = broken(monkeypatch, "forward", lambda original, net, X: original(net, X)[:-1])
    (row,) = report.failures
    assert row.verdict == HESSKERN_WRONG and "(6, 3), autograd's (7, 3)" in row.note


def test_what_a_backend_does_not_offer_is_no_disagreement(monkeypatch):
    def absent(original, *arguments, **options):
        raise NotImplementedError("descents are not offered")

    report = broken(monkeypatch, "descent", absent)
    assert report.ok
    assert {row.group for row in report.rows if row.verdict == UNCHECKED} == {"training"}
    assert f"{len([row for row in report.rows if row.verdict == UNCHECKED])} not checked" in str(report)


def test_a_broken_backend_beside_a_good_one(monkeypatch):
    original = Reference.forward
    monkeypatch.setattr(Reference, "forward", lambda self, net, X: original(self, net, X) * 1.001)
    report = hk.validate(*given())
    assert {row.backend for row in report.failures} == {"numpy"}


def test_autograd_may_be_the_one_that_is_wrong(monkeypatch):
    original = autograd.AutogradWitness.gradient
    monkeypatch.setattr(autograd.AutogradWitness, "gradient", lambda self: original(self) * 1.001)
    report = hk.validate(*given(), backends=["numpy"])
    assert not report.ok
    assert {row.verdict for row in report.failures if row.group == "gradient"} == {AUTOGRAD_WRONG}


def test_sampled_products_find_mistakes_too(monkeypatch):
    problem = problems.normal([4, 30, 6, 3], 50, bias=True, kind="mean")
    net, loss = problem.network(), problem.loss()
    assert hk.validate(net, loss, backends=["numpy"], dense_size=10).ok

    original = Reference.assemble

    def assemble(self, rows, columns, blocks, out):
        original(self, rows, columns, [b if b.W is None else b._replace(W=-b.W) for b in blocks], out)

    monkeypatch.setattr(Reference, "assemble", assemble)
    report = hk.validate(net, loss, backends=["numpy"], dense_size=10)
    found = failed(report)
    assert {"block (0, 1), dense, times v", "functional part, block (2, 1), dense, times v"} <= found
    assert not {"block (0, 1) @ v", "block (1, 1), dense, times v", "H @ v"} & found


# How small a mistake may be -------------------------------------------------------------------------------------------


def slightly(array):
    """The same with an error of 1e-9, relative to its norm."""
    found = np.asarray(array, dtype=np.float64).copy()
    at = np.unravel_index(int(np.abs(found).argmax()), found.shape)
    found[at] += 1e-9 * np.linalg.norm(found)
    return found


@pytest.mark.parametrize("name", ["two layers", "wide", "one sample", "few samples", "sampled"])
def test_a_relative_error_of_1e_9_is_seen_in_any_quantity(name):
    given = {
        "two layers": problems.normal([3, 5, 2], 7),
        "wide": problems.normal([3, 20, 2], 9, bias=True, kind="mean", weight_decay=0.05),
        "one sample": problems.normal([2, 3, 2], 1, kind="sum"),
        "few samples": problems.normal([5, 4, 3, 2], 3, seed=1),
        "sampled": problems.normal([3, 5, 2], 7),
    }[name]
    problem = ValidationCase("", given.network(), given.loss())
    evidence = Evidence(problem, 3, 5 if name == "sampled" else 1000, 0)
    subject = Subject(problem, "cpp")
    seen = 0
    for check in checks_of(evidence):
        inner = getattr(check, "_check", check)
        if not isinstance(inner, Comparison):
            continue  # condition numbers have a test of their own below
        assert row_of("", check, subject, evidence).ok, check.quantity
        computed = inner.computed
        spoiled = dataclasses.replace(inner, computed=lambda s, e, computed=computed: slightly(computed(s, e)))
        other = getattr(check, "_evidence", evidence)
        row = row_of("", spoiled, Subject(other.problem, "cpp"), other)
        if float(np.linalg.norm(np.asarray(computed(Subject(other.problem, "cpp"), other)))) > 0:
            assert not row.ok, (check.quantity, row.tolerance)
            seen += 1
    assert seen > 30
