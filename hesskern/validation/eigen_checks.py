"""Spectra, condition numbers and ranks, eigenvectors, solutions and determinants.

The eigenvalues of two symmetric matrices differ, in norm, by no more than the matrices (Hoffman and Wielandt). So a
bound on the rounding of a matrix also bounds the rounding of its spectrum. Condition numbers are different: the
smallest eigenvalue has a relative error of ``error / smallest``. If that is not small, autograd's dense matrix decides
nothing. Then exact arithmetic decides if the block is small enough for it; otherwise the row says that it is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hesskern._base import decompositions
from hesskern.linalg.condition import Condition
from hesskern.validation import exact
from hesskern.validation.case import Matrix
from hesskern.validation.comparison import NOT_CHECKED_BY_THIRD, Check, CheckResult, Comparison
from hesskern.validation.evidence import Evidence, Subject, Witness
from hesskern.validation.report import HESSKERN_WRONG, UNDECIDED, USELESS, decide
from hesskern.validation.rounding import Bounds, ErrorBound, norm, spread_error, square

_SPECTRA = {"block": "H", "gauss_newton": "Gauss-Newton", "functional": "functional part"}


def eigen_checks(evidence: Evidence) -> list[Check]:
    """Return the comparisons for a problem."""
    checks: list[Check] = []
    if evidence.dense:
        checks += _dense(evidence)
    elif evidence.eigenproblem_affordable and evidence.lanczos_affordable:
        checks += _sampled()
    if evidence.eigenproblem_affordable:
        checks += _solving(evidence)
    for layer in range(evidence.problem.net.depth):
        if evidence.dense:
            checks.append(_spectrum("block", layer))
        checks.append(ConditionCheck("block", layer))
    return checks


def _over(number: float, size: float) -> float:
    """Return the quotient; infinite if the size underflowed to zero."""
    return number / size if size else math.inf


def _solver(evidence: Evidence, unit: float, part: ErrorBound, largest: float) -> float:
    """Return the bound for all eigenvalues of a computed matrix: its own error and the eigenvalue solver's."""
    size = evidence.problem.size
    return part.error + math.sqrt(size) * spread_error(size, unit) * largest


# Spectra --------------------------------------------------------------------------------------------------------------


def _part(evidence: Evidence, bounds: Bounds, mode: str, layer: int | None) -> ErrorBound:
    part = evidence.part(bounds, mode, layer, layer)
    unit = evidence.problem.unit if bounds is evidence.hesskern_bounds else evidence.autograd.unit
    largest = float(np.abs(evidence.eigenvalues(evidence.autograd, mode, layer)).max())
    return ErrorBound(part.size, _solver(evidence, unit, part, largest))


def _third(evidence: Evidence) -> float | None:
    return evidence.differences.curvature_error if evidence.dense_differences else None


def _spectrum(mode: str, layer: int | None = None) -> Comparison:
    def computed(subject: Subject, _: Evidence) -> Any:
        operator = subject.mode(mode)
        return (operator if layer is None else operator.block(layer, layer)).spectrum().expand()

    return Comparison(
        "spectrum",
        f"spectrum of {_SPECTRA[mode]}" if layer is None else f"spectrum of block ({layer}, {layer})",
        computed,
        lambda e, w: e.eigenvalues(w, mode, layer),
        lambda e, b: _part(e, b, mode, layer),
        _third,
        label=lambda e, at: f"eigenvalue {at[0]}, ascending",
    )


def _singular_values(row: int, column: int) -> Comparison:
    def singular_values(evidence: Evidence, witness: Witness) -> Matrix:
        layers = evidence.problem.layers
        block = evidence.matrix(witness, "block")[layers[row], layers[column]]
        return decompositions.svdvals(block.astype(np.float64, copy=False))

    def kept(evidence: Evidence, witness: Witness) -> Matrix:
        return evidence.kept((witness.name, "svd", row, column), lambda: singular_values(evidence, witness))

    def part(evidence: Evidence, bounds: Bounds) -> ErrorBound:
        block = evidence.part(bounds, "block", row, column)
        unit = evidence.problem.unit if bounds is evidence.hesskern_bounds else evidence.autograd.unit
        return ErrorBound(block.size, _solver(evidence, unit, block, float(kept(evidence, evidence.autograd).max())))

    return Comparison(
        "spectrum",
        f"singular values of block ({row}, {column})",
        lambda s, e: s.hessian.block(row, column).svdvals(),
        kept,
        part,
        _third,
    )


def _dense(evidence: Evidence) -> Iterator[Check]:
    depth = evidence.problem.net.depth
    modes = ("block", "gauss_newton", "functional") if evidence.dense_jacobian else ("block",)
    for mode in modes:
        yield _spectrum(mode)
    for row in range(depth):
        for column in range(row):
            yield _singular_values(row, column)
    yield ConditionCheck("block", None)
    if evidence.dense_jacobian:
        yield ConditionCheck("gauss_newton", None)
    yield _eigenvectors()
    yield _orthonormal()


def _eigenvectors() -> Comparison:
    def rebuilt(subject: Subject, _: Evidence) -> Matrix:
        values, vectors = subject.eigenpairs
        matrix: Matrix = (vectors * values) @ vectors.T
        return matrix

    def part(evidence: Evidence, bounds: Bounds) -> ErrorBound:
        whole = _part(evidence, bounds, "block", None)
        size = evidence.norm() * math.sqrt(evidence.problem.size)
        return ErrorBound(size, whole.error + spread_error(evidence.problem.size, evidence.problem.unit) * size)

    return Comparison(
        "eigenvectors", "V diag(values) V.T", rebuilt, lambda e, w: e.matrix(w, "block"), part, _third,
        label=lambda e, at: f"({e.problem.parameter(at[0])}, {e.problem.parameter(at[1])})",
    )  # fmt: skip


def _orthonormal() -> Comparison:
    def gram(subject: Subject, _: Evidence) -> Matrix:
        vectors = subject.eigenpairs[1]
        return vectors.T @ vectors

    def part(evidence: Evidence, bounds: Bounds) -> ErrorBound:
        size = evidence.problem.size
        unit = evidence.problem.unit if bounds is evidence.hesskern_bounds else evidence.autograd.unit
        return ErrorBound(math.sqrt(size), math.sqrt(size) * spread_error(size, unit))

    return Comparison(
        "eigenvectors", "V.T V", gram, lambda e, w: np.eye(e.problem.size), part, lambda e: None
    )  # fmt: skip


def _sampled() -> Iterator[Check]:
    def part(evidence: Evidence, bounds: Bounds) -> ErrorBound:
        value, residual = evidence.largest()
        whole = bounds.whole("block")
        solver = spread_error(evidence.reduced_size, evidence.problem.unit) * abs(value)
        return ErrorBound(whole.size, whole.error + solver + residual)

    yield Comparison(
        "spectrum", "largest eigenvalue of H", lambda s, e: s.hessian.spectrum().max,
        lambda e, w: e.largest()[0], part, lambda e: None, method="Lanczos",
    )  # fmt: skip


# Solving --------------------------------------------------------------------------------------------------------------


def _damping(evidence: Evidence) -> float:
    """Return a damping that makes the Hessian safely positive definite."""
    return 2.0 * evidence.norm() or 1.0


def _solving(evidence: Evidence) -> Iterator[Check]:
    vector = evidence.vectors[0]
    length = norm(vector)

    def solution(subject: Subject, e: Evidence) -> Matrix:
        x = subject.hessian.solve(vector.astype(subject.net.dtype), damping=_damping(e))
        return x.astype(np.float64)

    def multiplied(subject: Subject, e: Evidence) -> Matrix:
        x = solution(subject, e)
        return e.product(e.autograd, "block", x) + _damping(e) * x

    def relative(e: Evidence, bounds: Bounds) -> float:
        # The matrix has a condition number of at most 3, and x the length of b / damping.
        unit = e.problem.unit if bounds is e.hesskern_bounds else e.autograd.unit
        return bounds.product(bounds.whole("block")) / _damping(e) + 3.0 * spread_error(e.problem.size, unit)

    def solved(e: Evidence, witness: Witness) -> Matrix:
        matrix = e.matrix(witness, "block") + _damping(e) * np.eye(e.problem.size)
        return decompositions.solve(matrix, vector).astype(np.float64)

    def solution_third(e: Evidence) -> float | None:
        error = _third(e)
        return None if error is None else 2.0 * error * length / _damping(e) / _damping(e)

    if evidence.dense:
        yield Comparison(
            "solve and logdet", "solve(b, damping)", solution, solved,
            lambda e, b: ErrorBound(length / _damping(e), 2.0 * relative(e, b) * length / _damping(e)), solution_third,
            label=lambda e, at: e.problem.parameter(at[0]),
        )  # fmt: skip
    else:
        yield Comparison(
            "solve and logdet", "(H + damping I) solve(b)", multiplied, lambda e, w: vector,
            lambda e, b: ErrorBound(length, relative(e, b) * length), lambda e: None,
            label=lambda e, at: e.problem.parameter(at[0]),
        )  # fmt: skip
    if not evidence.dense:
        return

    def determinant(e: Evidence, witness: Witness) -> float:
        return float(np.sum(np.log(e.eigenvalues(witness, "block") + _damping(e))))

    def determinant_part(e: Evidence, bounds: Bounds) -> ErrorBound:
        size, damping = e.problem.size, _damping(e)
        unit = e.problem.unit if bounds is e.hesskern_bounds else e.autograd.unit
        moved = math.sqrt(size) * _part(e, bounds, "block", None).error / (damping / 2)
        terms = size * (abs(math.log(damping)) + 1.0)
        return ErrorBound(terms, moved + (spread_error(size, unit) + 4 * unit) * terms)

    def determinant_third(e: Evidence) -> float | None:
        error = _third(e)
        return None if error is None else math.sqrt(e.problem.size) * error / (_damping(e) / 2)

    yield Comparison(
        "solve and logdet", "logdet(damping)", lambda s, e: s.hessian.logdet(damping=_damping(e)),
        determinant, determinant_part,
        determinant_third,
    )  # fmt: skip


# Condition numbers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConditionCheck:
    """Condition number and rank of the whole matrix or of one layer's block."""

    mode: str
    layer: int | None
    group: str = "condition and rank"

    @property
    def quantity(self) -> str:
        """Name of the quantity."""
        where = _SPECTRA[self.mode] if self.layer is None else f"block ({self.layer}, {self.layer})"
        return f"condition and rank of {where}"

    @property
    def method(self) -> str:
        """Nothing is sampled."""
        return "whole"

    def find(self, subject: Subject, evidence: Evidence) -> CheckResult:
        """Compare with autograd's dense matrix, as far as its error allows, and with exact arithmetic if affordable."""
        operator = subject.mode(self.mode)
        condition = (operator if self.layer is None else operator.block(self.layer, self.layer)).condition()
        dense = evidence.dense if self.mode == "block" else evidence.dense_jacobian
        truth = self._exact(evidence)
        if truth is not None and condition.rank != truth[1] and condition.gap < math.inf:
            truth = None  # singular up to rounding of the data, which exact arithmetic takes as they are
        if not dense and truth is None:
            return CheckResult(verdict=UNDECIDED, note="too large for a dense matrix, and for exact arithmetic")
        third = None if truth is None else self._against_exact(condition, truth, evidence)
        if not dense:
            assert third is not None
            return CheckResult(*third, "exact", third, None, decide(*third), "by exact arithmetic only")
        error, tolerance, possible, autograd_value = self._against_dense(condition, evidence)
        witnesses, note, name = None, "", "" if third is None else "exact"
        if truth is not None:
            witnesses = abs(autograd_value - truth[0]) / truth[0] if truth[1] else 0.0, tolerance
        elif self.mode == "block" and evidence.dense_differences and possible and condition.rank:
            if compared := self._against_differences(condition, autograd_value, evidence):
                third, witnesses = compared
                name = evidence.differences.name
            else:
                note = NOT_CHECKED_BY_THIRD
        verdict = decide(error, tolerance, third, witnesses)
        if truth is not None and condition.rank != truth[1]:
            verdict, note = HESSKERN_WRONG, f"rank {condition.rank} of hesskern, {truth[1]} in exact arithmetic"
        if not possible:
            count = self._count(evidence)
            verdict, note = (
                HESSKERN_WRONG,
                f"rank {condition.rank} of hesskern; {count} of autograd's eigenvalues are not rounding errors",
            )
        elif tolerance >= USELESS:
            note = note or f"rounding in a dense matrix leaves it uncertain by {tolerance:.0e}"
        return CheckResult(error, tolerance, name, third, witnesses, verdict, note)

    def _exact(self, evidence: Evidence) -> tuple[float, int] | None:
        if self.layer is None or self.mode != "block" or evidence.problem.decay:
            return None
        layer, problem = self.layer, evidence.problem
        return evidence.kept(("exact", layer), lambda: exact.block_condition(problem, layer))

    def _against_exact(self, condition: Condition, truth: tuple[float, int], evidence: Evidence) -> tuple[float, float]:
        """Return the difference of condition numbers, and how large it may be.

        Rounding of the factors allows twice the error of their singular values. For graded data hesskern claims to be
        more precise: if four times its stated uncertainty is less, that is the limit.
        """
        assert self.layer is not None
        if truth[1] == 0:
            return (0.0 if condition.rank == 0 else math.inf), evidence.problem.unit
        bounds = evidence.hesskern_bounds
        inputs, above = bounds.inputs(self.layer), bounds.above(self.layer)
        relative = sum(factor.units * square(factor.ratio) for factor in (inputs, above)) + 8 * evidence.problem.unit
        root = math.sqrt(truth[0]) if truth[0] > 0 else 1.0
        # Norms of products may be smaller than products of norms: the largest singular value says by how much.
        product = bounds.scale * square(inputs.norm * above.norm)
        largest = condition.largest
        if evidence.dense:
            largest = float(evidence.eigenvalues(evidence.autograd, self.mode, self.layer)[-1])
        stretch = math.sqrt(max(1.0, product / largest)) if largest > 0 else 1.0
        allowed = min(2 * relative * root * stretch, 4 * condition.uncertainty)
        return abs(condition.value - truth[0]) / truth[0], allowed

    def _against_differences(
        self, condition: Condition, autograd_value: float, evidence: Evidence
    ) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """Return how far hesskern's and autograd's condition numbers are from the third witness's.

        None if the third witness has none: its spectrum is negligible next to the gradient, or is not finite.
        """
        values = np.sort(np.abs(evidence.eigenvalues(evidence.differences, self.mode, self.layer)))[::-1]
        smallest = float(values[condition.rank - 1])
        value = float(values[0]) / smallest if smallest else math.inf
        if not math.isfinite(value):
            return None
        solver = math.sqrt(len(values)) * spread_error(len(values), evidence.autograd.unit) * float(values[0])
        third = evidence.differences.curvature_error + solver
        own_error, autograd_error = self._errors(evidence)
        per = _over(1.0, condition.smallest) + _over(1.0, condition.largest)
        return (
            (abs(condition.value - value) / value, (own_error + third) * per),
            (abs(autograd_value - value) / value, (autograd_error + third) * per),
        )

    def _errors(self, evidence: Evidence) -> tuple[float, float]:
        """Return the errors of hesskern's and autograd's eigenvalues."""
        return tuple(  # type: ignore[return-value]
            _part(evidence, bounds, self.mode, self.layer).error
            for bounds in (evidence.hesskern_bounds, evidence.autograd_bounds)
        )

    def _count(self, evidence: Evidence) -> int:
        values = np.abs(evidence.eigenvalues(evidence.autograd, self.mode, self.layer))
        return int(np.sum(values > sum(self._errors(evidence))))

    def _against_dense(self, condition: Condition, evidence: Evidence) -> tuple[float, float, bool, float]:
        """Return error, tolerance, whether the rank is possible, and autograd's condition number at that rank."""
        values = np.sort(np.abs(evidence.eigenvalues(evidence.autograd, self.mode, self.layer)))[::-1]
        error, certain = sum(self._errors(evidence)), self._count(evidence)
        if condition.rank == 0:
            return (0.0 if certain == 0 else math.inf), 0.0, certain == 0, math.nan
        smallest = float(values[condition.rank - 1])
        autograd_value = float(values[0]) / smallest if smallest else math.inf
        tolerance = _over(error, condition.smallest) + _over(error, condition.largest)
        # No eigenvalue above autograd's error may be left out; autograd cannot judge those below.
        possible = condition.rank >= certain and (condition.rank == certain or condition.smallest <= 2 * error)
        return abs(condition.value - autograd_value) / autograd_value, tolerance, possible, autograd_value
