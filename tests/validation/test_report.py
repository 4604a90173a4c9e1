"""The report of hk.validate: as data, as text, and its verdicts."""

from __future__ import annotations

import json

import numpy as np
import problems
import pytest

import hesskern as hk

pytest.importorskip("torch")
from hesskern.validation.report import (
    AGREES,
    AUTOGRAD_WRONG,
    DIFFERS,
    HESSKERN_WRONG,
    THIRD_DIFFERS,
    UNDECIDED,
    Row,
    ValidationReport,
    decide,
)


def small():
    problem = problems.normal([3, 4, 2], 6, bias=True)
    return problem.network(), problem.loss()


def test_the_report_as_data():
    report = hk.validate(*small(), backends=["cpp"])
    found = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert found["ok"] is True and found["interrupted"] is False and len(found["rows"]) == len(report.rows)
    assert found["rows"][0]["problem"] == "" and found["rows"][0]["verdict"] == AGREES
    assert {"error", "tolerance", "third_error", "witnesses", "note"} <= set(found["rows"][0])
    assert repr(report).startswith("<ValidationReport: ") and "0 disagree" in repr(report)
    assert isinstance(report, hk.ValidationReport)
    assert "gradient of 1.bias" in str(report) and "3-4-2, biases, N = 6, half_sum, float64" in str(report)


GOOD, BAD, NONE = (1e-15, 1e-13), (1e-3, 1e-13), None


@pytest.mark.parametrize(
    ("ours", "third", "witnesses", "verdict"),
    [
        (GOOD, NONE, NONE, AGREES),
        (GOOD, GOOD, GOOD, AGREES),
        (BAD, NONE, NONE, DIFFERS),
        (BAD, BAD, GOOD, HESSKERN_WRONG),
        (BAD, GOOD, BAD, AUTOGRAD_WRONG),
        (BAD, BAD, BAD, DIFFERS),
        (GOOD, BAD, BAD, THIRD_DIFFERS),
        ((np.nan, 1e-13), (np.nan, 1e-13), GOOD, HESSKERN_WRONG),
        ((1e-9, np.nan), NONE, NONE, UNDECIDED),
        ((0.3, 5.0), NONE, NONE, UNDECIDED),
        ((0.3, 5.0), GOOD, NONE, AGREES),
        ((0.3, 5.0), BAD, NONE, HESSKERN_WRONG),
        ((9.0, 5.0), NONE, NONE, UNDECIDED),
    ],
)
def test_verdicts(ours, third, witnesses, verdict):
    assert decide(*ours, third, witnesses) == verdict


def test_nothing_compared_is_not_well():
    report = ValidationReport([], {}, version="0", torch="0", seconds=0.0, interrupted=False)
    assert not report.ok and "nothing was compared" in str(report)
    assert Row("", "cpp", "loss", "loss", error=np.nan, tolerance=1.0).used == np.inf
