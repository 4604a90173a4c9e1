"""A backend with one mistake, and what `hk.validate` says of it."""

from __future__ import annotations

import functools

import problems
import pytest

import hesskern as hk
from hesskern.backends import numpy_backend

pytest.importorskip("torch")
from hesskern.validation.report import DIFFERS, HESSKERN_WRONG

Reference = numpy_backend.ReferenceBackend


def given(name="square"):
    """A problem with biases whose layers are square, so that transposing raises nothing."""
    problem = problems.normal([3, 3, 3], 7, bias=True, weight_decay=0.0 if name == "no decay" else 0.2)
    return problem.network(), problem.loss()


def failed(report):
    """The quantities that disagree; each must be blamed on hesskern alone where there is a third witness."""
    for row in report.failures:
        assert row.verdict == (HESSKERN_WRONG if row.third else DIFFERS), row
    assert not report.ok
    return {row.quantity for row in report.failures}


def broken(monkeypatch, method, wrapped, owner=Reference):
    original = getattr(owner, method)
    monkeypatch.setattr(owner, method, lambda self, *a, **k: wrapped(functools.partial(original, self), *a, **k))
    return hk.validate(*given(), backends=["numpy"])
