"""Numbers near the ends of what float64 holds, and quantities that are exactly zero: nothing right is called wrong."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from looped import each

import hesskern as hk

pytest.importorskip("torch")

from hesskern.validation import comparison
from hesskern.validation.case import ValidationCase
from hesskern.validation.checks import checks_of
from hesskern.validation.evidence import Evidence, Subject
from hesskern.validation.report import AGREES, HESSKERN_WRONG, OVERFLOWED, RAISED, THIRD_DIFFERS, decide


def failures(net, loss):
    return [
        (row.quantity, row.verdict, row.error, row.tolerance)
        for row in hk.validate(net, loss, backends=["numpy"]).failures
    ]


def two_layers(scale, data, seed=1):
    rng = np.random.default_rng(seed)
    net = hk.LinearNetwork([rng.standard_normal((3, 2)) * scale, rng.standard_normal((2, 3)) * scale])
    return net, hk.SquaredLoss(rng.standard_normal((4, 2)) * data, rng.standard_normal((4, 2)))


@each(("scale", "decay"), [(scale, decay) for scale in (3e-3, 1.0, 1e4) for decay in (0.0, 0.1)], quick=2)
def test_a_functional_part_that_is_zero(scale, decay):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        net = hk.LinearNetwork([rng.standard_normal((1, 3)) * scale], [rng.standard_normal(1)])
        data = rng.standard_normal((1 + seed, 3)), rng.standard_normal((1 + seed, 1))
        assert failures(net, hk.SquaredLoss(*data, weight_decay=decay)) == []
        net = hk.LinearNetwork([rng.standard_normal((1, 3))])
        data = data[0] * scale, data[1]
        assert failures(net, hk.SquaredLoss(*data, weight_decay=decay)) == []


# Numbers whose squares overflow though they do not: a loss of about 1e222, and one of about 1e282.
@pytest.mark.parametrize(("scale", "data"), [(1e38, 1e35), (1e45, 1e51)])
def test_large_numbers_are_compared(scale, data):
    net, loss = two_layers(scale, data)
    report = hk.validate(net, loss, backends=["numpy"])
    assert {row.quantity for row in report.failures} <= {"sharpness recorded"}  # which is a matter of `fit`
    rows = {row.quantity: row for row in report.rows}
    for quantity in ("loss, half_sum", "gradient of 0.weight", "H @ v", "H, dense", "spectrum of H"):
        row = rows[quantity]
        assert row.verdict == AGREES
        assert row.compared and row.tolerance < 1e-11, quantity


@pytest.mark.parametrize(("scale", "data"), [(1e55, 1e45), (1e100, 1e100), (1e150, 1e150)])
def test_what_overflows_is_no_disagreement(scale, data):
    report = hk.validate(*two_layers(scale, data), backends=["numpy"])
    assert {row.quantity for row in report.failures} == set()
    assert OVERFLOWED in {row.verdict for row in report.rows}


def test_an_error_where_the_computation_overflows(monkeypatch):
    net, loss = two_layers(1e100, 1e100)
    problem = ValidationCase("", net, loss)
    evidence, subject = Evidence(problem, 1, 100, 0), Subject(problem, "numpy")

    def raising(*_):
        raise OverflowError(34, "Numerical result out of range")

    check = next(check for check in checks_of(evidence) if isinstance(check, comparison.Comparison))
    row = comparison.row_of("", dataclasses.replace(check, computed=raising), subject, evidence)
    assert row.verdict == OVERFLOWED and "overflowed" in row.note
    small = ValidationCase("", *two_layers(1.0, 1.0))
    evidence, subject = Evidence(small, 1, 100, 0), Subject(small, "numpy")
    row = comparison.row_of("", dataclasses.replace(check, computed=raising), subject, evidence)
    assert row.verdict == RAISED


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("scale", "data"), [(1.0, 1.0), (1e38, 1e35), (1e-20, 1e-20)])
def test_what_is_not_finite_though_nothing_overflows_is_wrong(scale, data, wrong):
    problem = ValidationCase("", *two_layers(scale, data))
    evidence, subject = Evidence(problem, 1, 100, 0), Subject(problem, "numpy")
    for check in checks_of(evidence):
        if isinstance(check, comparison.Comparison) and check.group in ("prediction", "loss", "gradient", "Hessian"):
            computed = check.computed
            spoiled = dataclasses.replace(
                check, computed=lambda s, e, computed=computed: np.asarray(computed(s, e)) * wrong
            )
            with np.errstate(all="ignore"):
                assert not comparison.row_of("", spoiled, subject, evidence).ok, check.quantity


@pytest.mark.parametrize(
    ("weight", "x"), [(1.3, 1e-60), (1.3e-34, 1e-56), (1.3e-59, 1e-30), (1.3e38, 1e47), (1.3, 1e40)]
)
def test_a_third_witness_that_cannot_compute_does_not_disagree(weight, x):
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork([np.array([[weight]])])
    loss = hk.SquaredLoss(rng.standard_normal((3, 1)) * x, rng.standard_normal((3, 1)))
    assert failures(net, loss) == []


def test_a_third_witness_without_a_finite_number_is_said_to_be_missing(monkeypatch):
    problem = ValidationCase("", *two_layers(1.0, 1.0))
    evidence, subject = Evidence(problem, 1, 100, 0), Subject(problem, "numpy")
    monkeypatch.setattr(type(evidence.differences), "prediction", lambda self: np.full((4, 2), np.nan))
    check = checks_of(evidence)[0]
    row = comparison.row_of("", check, subject, evidence)
    assert row.verdict == AGREES and row.third == "" and "not checked by the third witness" in row.note
    spoiled = dataclasses.replace(check, computed=lambda s, e: 1.001 * check.computed(s, e))
    assert not comparison.row_of("", spoiled, subject, evidence).ok


def test_a_third_witness_whose_rounding_leaves_all_open_decides_nothing():
    assert decide(1e-15, 1e-13, (math.nan, 1e41), (math.nan, 1e41)) == AGREES
    assert decide(1e-15, 1e-13, (1e-3, 1e-13), (1e-3, 1e-13)) == THIRD_DIFFERS
    assert decide(math.nan, 1e-13, (math.nan, 1e-13), (1e-16, 1e-13)) == HESSKERN_WRONG


@pytest.mark.parametrize("scales", [(1e-100, 1e-90, 1e100), (1e110, 1e-100, 1e-20), (1e-60, 1e90, 1e-110)])
def test_layers_of_far_apart_scales(scales):
    rng = np.random.default_rng(7)
    widths = [2, 3, 3, 2]
    weights = [rng.standard_normal((b, a)) * s for a, b, s in zip(widths, widths[1:], scales, strict=False)]
    report = hk.validate(
        hk.LinearNetwork(weights),
        hk.SquaredLoss(rng.standard_normal((4, 2)) * 1e-50, rng.standard_normal((4, 2))),
        backends=["numpy"],
    )
    assert [(r.quantity, r.verdict, r.note) for r in report.failures if r.group != "training"] == []
