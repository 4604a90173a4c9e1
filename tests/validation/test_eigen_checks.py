"""Broken eigenvalues, eigenvectors and singular values: each mistake is found."""

from __future__ import annotations

import dataclasses

import problems
import pytest

import hesskern as hk

pytest.importorskip("torch")
from broken_backends import Reference, failed, given

from hesskern.curvature.hessian import Hessian, KroneckerHessian
from hesskern.validation.case import ValidationCase
from hesskern.validation.checks import checks_of
from hesskern.validation.comparison import row_of
from hesskern.validation.eigen_checks import ConditionCheck
from hesskern.validation.evidence import Evidence, Subject


def test_a_wrong_singular_value(monkeypatch):
    net, loss = given("no decay")
    original = Reference.product_svd

    def product_svd(self, *arguments, **options):
        found = original(self, *arguments, **options)
        values = found.values.copy()
        values[found.rank - 1] *= 1 + 1e-9
        return found._replace(values=values)

    monkeypatch.setattr(Reference, "product_svd", product_svd)
    assert failed(hk.validate(net, loss, backends=["numpy"])) == {
        "condition and rank of block (0, 0)", "condition and rank of block (1, 1)"
    }  # fmt: skip
    monkeypatch.setattr(Reference, "product_svd", lambda *a, **k: original(*a, **k)._replace(rank=2))
    report = hk.validate(net, loss, backends=["numpy"])
    assert "rank" in next(row for row in report.failures if "block (0, 0)" in row.quantity).note


def test_eigenvectors_of_another_matrix(monkeypatch):
    original = Hessian.eigh

    def eigh(self, *arguments, **options):
        values, vectors = original(self, *arguments, **options)
        turned = vectors.copy()
        turned[:, 0] += 1e-8 * vectors[:, -1]
        return values, turned

    monkeypatch.setattr(Hessian, "eigh", eigh)
    assert failed(hk.validate(*given(), backends=["numpy"])) == {"V diag(values) V.T", "V.T V"}


def test_a_relative_error_of_1e_9_is_seen_in_condition_numbers(monkeypatch):
    given = problems.normal([3, 5, 2], 7)
    problem = ValidationCase("", given.network(), given.loss())
    evidence, subject = Evidence(problem, 3, 1000, 0), Subject(problem, "cpp")
    checks = [check for check in checks_of(evidence) if isinstance(check, ConditionCheck)]
    assert len(checks) == 4
    assert all(row_of("", check, subject, evidence).ok for check in checks)
    for owner in (KroneckerHessian, Hessian):
        original = owner.condition

        def condition(self, original=original):
            found = original(self)
            return dataclasses.replace(found, value=found.value * (1 + 1e-9))

        monkeypatch.setattr(owner, "condition", condition)
    rows = [row_of("", check, subject, evidence) for check in checks]
    assert [row.ok for row in rows] == [False] * 4
