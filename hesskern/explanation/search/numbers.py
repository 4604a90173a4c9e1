"""The search for what a bare number is: a condition number, rank or largest eigenvalue of something."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern.explanation.given.candidate import Candidate
from hesskern.explanation.given.candidate_model import Curvature
from hesskern.explanation.given.causes import Cause, total
from hesskern.explanation.given.scales import Scales
from hesskern.explanation.given.selections import Selection
from hesskern.explanation.given.variants import DataVariant, WeightVariant
from hesskern.explanation.search.matrices import PART_CAUSES, Base
from hesskern.explanation.search.one_triangle import misread
from hesskern.explanation.search.solvers import Solvers
from hesskern.linalg.condition import Condition
from hesskern.losses.squared import SquaredLoss

Quantity = Literal["condition", "rank", "largest"]
QUANTITIES = ("condition", "rank", "largest")
NAMES = {"condition": "condition number", "rank": "rank", "largest": "largest eigenvalue"}

#: Relative uncertainty of a condition number above which its digits prove nothing.
_SHARP = 1e-4

#: Largest relative error of a condition number from a dense matrix that counts as rounding.
_DIGITS = 1e-7

#: Probability of a chance match up to which a bare number counts as explained.
CHANCE = 0.05

#: Parameters up to which norms that need a dense pseudo-inverse are tried, and two causes where spectra are dense.
_DENSE = 600


class NumberMatch(NamedTuple):
    """A number that equals the candidate, to the candidate's digits."""

    causes: tuple[Cause, ...]
    quantity: str
    value: float
    evidence: str = ""  # that it is rounding; such digits mean nothing, so they have no probability


class Numbers:
    """The numbers that were tried, which give the probability that one fits by chance."""

    def __init__(
        self,
        candidate: Candidate,
        loss: SquaredLoss,
        data: list[DataVariant],
        weights: list[WeightVariant],
        selections: list[Selection],
        scales: Scales,
        epsilon: float,
        quantity: Quantity | None,
    ) -> None:
        self.value, self._half_unit = float(candidate.array), candidate.half_unit
        self._loss, self._scales, self._epsilon = loss, scales, epsilon
        self._data, self._weights, self._selections = data, weights, selections
        self._quantities = (quantity,) if quantity else QUANTITIES
        self._candidates: list[float] = []
        self._ranks: list[float] = []
        self._solvers = Solvers(candidate, lambda: self._dense)

    def truth(self) -> dict[str, float]:
        """Return the true numbers."""
        condition = self._truth
        return {"condition": condition.value, "rank": float(condition.rank), "largest": condition.largest}

    @cached_property
    def _truth(self) -> Condition:
        return self._condition(self._true(), "full")

    @cached_property
    def _dense(self) -> NDArray[np.float64] | None:
        """The Hessian, where it is small."""
        true = self._true()
        if true.selection.size > _DENSE:
            return None
        matrix = Curvature(true.data, true.weights, true.selection.tensors, self._epsilon).dense("full").copy()
        matrix[np.diag_indices_from(matrix)] += self._scales.decay
        return matrix

    def matches(self) -> list[NumberMatch]:
        """Return what gives the number with the fewest causes, or rounding if nothing gives its digits."""
        matches: list[NumberMatch] = []
        for level in (
            self._exactly, self._one_cause, self._prepared, self._norms, self._two_causes, self._one_triangle,
        ):  # fmt: skip
            matches = [match for match in level() if self._fits(match)]
            if matches:
                least = min(total(match.causes) for match in matches)
                matches = [match for match in matches if total(match.causes) == least]
                break
        if matches and (not matches[0].causes or self.chance(matches[0]) <= CHANCE):
            return matches
        rounded = self._solvers.rounded_numbers(self._truth, self._quantities)
        return [
            NumberMatch((number.cause,), number.quantity, number.value, number.evidence) for number in rounded
        ] or matches

    def doubt(self) -> str:
        """Return a sentence if the number may be rounding although its digits do not show it, else an empty one."""
        return self._solvers.doubt(self._truth) if "condition" in self._quantities else ""

    def chance(self, match: NumberMatch) -> float:
        """Return the probability that something that was tried gives this number by chance.

        For digits, numbers count as log-uniform over their range; for ranks, all sizes count as equally likely.
        """
        if match.evidence:
            return 0.0
        if match.quantity == "rank":
            size = max(selection.size for selection in self._selections)
            return float(1.0 - (1.0 - 1.0 / size) ** len(set(self._ranks)))
        sizes = np.log([abs(value) for value in self._candidates if value and math.isfinite(value)] or [1.0])
        spread = max(float(np.ptp(sizes)), math.log(100.0))
        width = 3 * self._half_unit + 2 * self._slack(match)
        single = min(1.0, width / abs(self.value) / spread)
        distinct = len(np.unique(np.round(sizes, 9)))
        return float(-np.expm1(distinct * np.log1p(-min(single, 1 - 1e-16))))

    def _fits(self, match: NumberMatch) -> bool:
        if match.quantity == "rank":
            self._ranks.append(match.value)
            return match.value == self.value
        self._candidates.append(match.value)
        if self.value == 0:  # it has no digits to compare
            return False
        if math.isinf(self.value):  # only a division by zero gives it
            return math.isinf(match.value)
        slack = self._slack(match) + 1e-9 * self._half_unit
        excess = math.copysign(1.0, self.value) * (match.value - self.value)  # digits may be rounded, or cut off
        return -self._half_unit - slack <= excess < 2 * self._half_unit + slack

    def _slack(self, match: NumberMatch) -> float:
        """Return how far rounding in a dense eigenvalue solver, P units of an eigenvalue, may move a number."""
        size = max(selection.size for selection in self._selections)
        moved = size * self._epsilon * (abs(match.value) if match.quantity == "condition" else 1.0)
        return min(moved, _DIGITS) * abs(match.value)

    # Hypotheses -------------------------------------------------------------------------------------------------------

    def _condition(self, base: Base, part: str) -> Condition:
        _, loss = base.data.terms[0]
        names = [tensor.full_name for tensor in base.selection.tensors]
        decayed = SquaredLoss(loss.X, loss.Y, loss.kind, self._scales.decay, backend=loss.backend)
        H = decayed.hessian(base.weights.net, names)
        return (H if part == "full" else H.gauss_newton()).condition()

    def _direct(self, base: Base, part: str) -> Iterator[NumberMatch]:
        if len(base.data.terms) > 1:  # averages of batches differ from the truth by a few per cent
            return
        condition = self._truth if base.causes == () and part == "full" else self._condition(base, part)
        causes = (*base.causes, *((PART_CAUSES[part],) if part != "full" else ()))
        values = {"condition": condition.value, "rank": float(condition.rank), "largest": condition.largest}
        for quantity in self._quantities:
            if quantity != "condition" or condition.uncertainty < _SHARP:
                yield NumberMatch(causes, quantity, values[quantity])

    def _true(self) -> Base:
        return Base(self._data[0], self._weights[0], self._selections[0])

    def _exactly(self) -> Iterator[NumberMatch]:
        yield from self._direct(self._true(), "full")

    def _one_triangle(self) -> Iterator[NumberMatch]:
        true = self._true()
        truth = Curvature(true.data, true.weights, true.selection.tensors, self._epsilon)
        for cause, values in misread(truth, self._scales.decay, true.weights.net, self._loss):
            sizes = np.abs(values)
            if "largest" in self._quantities:
                yield NumberMatch((cause,), "largest", float(sizes.max()))
            if "condition" in self._quantities and sizes.min() > 1e-10 * sizes.max():
                yield NumberMatch((cause,), "condition", float(sizes.max() / sizes.min()))

    def _one_cause(self) -> Iterator[NumberMatch]:
        true = self._true()
        yield from self._derived(true)
        for data in self._data[1:]:
            if not data.prepared:
                yield from self._direct(true._replace(data=data), "full")
        for weights in self._weights[1:]:
            yield from self._direct(true._replace(weights=weights), "full")
        for selection in self._selections[1:]:
            yield from self._direct(true._replace(selection=selection), "full")
        if len({tensor.layer for tensor in true.selection.tensors}) > 1:
            yield from self._direct(true, "gauss_newton")

    def _prepared(self) -> Iterator[NumberMatch]:
        for data in self._data[1:]:
            if data.prepared:
                yield from self._direct(self._true()._replace(data=data), "full")

    def _two_causes(self) -> Iterator[NumberMatch]:
        true = self._true()
        if true.selection.size > _DENSE and len(true.selection.tensors) > 2:
            return
        for data in self._data[1:]:
            for weights in self._weights[1:]:
                yield from self._direct(Base(data, weights, true.selection), "full")
            for selection in self._selections[1:]:
                yield from self._direct(Base(data, true.weights, selection), "full")
            if len({tensor.layer for tensor in true.selection.tensors}) > 1:
                yield from self._direct(true._replace(data=data), "gauss_newton")
        for weights in self._weights[1:]:
            for selection in self._selections[1:]:
                yield from self._direct(Base(true.data, weights, selection), "full")

    def _derived(self, base: Base) -> Iterator[NumberMatch]:
        condition = self._truth
        if "largest" in self._quantities:
            yield from self._scaled(condition.largest)
        if "condition" not in self._quantities or condition.rank == 0:
            return
        yield NumberMatch((_ROOT,), "condition", math.sqrt(condition.value))
        yield NumberMatch((_SQUARE,), "condition", condition.value * condition.value)
        yield from self._wrong_rank(base, condition)

    def _scaled(self, largest: float) -> Iterator[NumberMatch]:
        scales = self._scales
        sizes = {1.0, float(scales.samples), float(scales.outputs), float(scales.samples * scales.outputs)}
        factors = {sign * two / size for two in (0.5, 1.0, 2.0) for size in sizes for sign in (1.0, -1.0)}
        for factor in sorted(factors - {1.0}, reverse=True):
            cause = scales.cause(factor, 1e-14, scales.samples)
            yield NumberMatch((cause,), "largest", factor * largest)

    def _wrong_rank(self, base: Base, condition: Condition) -> Iterator[NumberMatch]:
        curvature = Curvature(base.data, base.weights, base.selection.tensors, self._epsilon)
        values = curvature.eigenvalues("full") + self._scales.decay
        sizes = np.sort(np.abs(values))[::-1]
        kept = sizes[: condition.rank]
        for rank in np.flatnonzero(np.diff(kept) < -1e-9 * kept[1:]) + 1:
            yield NumberMatch((_loose(int(rank), condition.rank),), "condition", float(kept[0] / kept[rank - 1]))
        if condition.negative:
            positive = values[values > condition.smallest / 2]
            if len(positive):
                yield NumberMatch((_POSITIVE,), "condition", float(positive.max() / positive.min()))
            yield NumberMatch((_SIGNED,), "condition", float(values.max() / values.min()))
        yield NumberMatch((_norm("Frobenius", '"fro"'),), "condition", _product(kept, 2))
        yield NumberMatch((_norm("nuclear", '"nuc"'),), "condition", _product(kept, 1))

    def _norms(self) -> Iterator[NumberMatch]:
        matrix = self._dense if "condition" in self._quantities else None
        if matrix is None:
            return
        inverse = decompositions.pseudo_inverse(matrix, len(matrix) * self._epsilon)
        value = float(np.abs(matrix).sum(axis=0).max() * np.abs(inverse).sum(axis=0).max())
        yield NumberMatch((_norm("1- (or infinity-)", "1"),), "condition", value)


def _product(values: NDArray[np.float64], order: int) -> float:
    return float(np.linalg.norm(values, order) * np.linalg.norm(1 / values, order))


_ROOT = Cause(
    "square-root",
    "it is the square root: the condition number of a factor (of the Jacobian, of X W1.T), not of the Hessian",
    "square it: the Hessian's eigenvalues are the squares of its factor's singular values",
)
_SQUARE = Cause(
    "square",
    "it is the square: the condition number of H.T @ H, not of H",
    "take the singular values of H itself, not the eigenvalues of H.T @ H",
)
_POSITIVE = Cause(
    "positive-only",
    "only the positive eigenvalues are used, but the Hessian is indefinite",
    "use the smallest nonzero absolute eigenvalue, or say that the Hessian is indefinite",
)
_SIGNED = Cause(
    "signed",
    "it is lambda_max/lambda_min with their signs, but the Hessian is indefinite",
    "use absolute values: max(abs(values)) / min(abs(values[nonzero]))",
)


def _norm(name: str, code: str) -> Cause:
    return Cause(
        f"norm[{code.strip(chr(34))}]",
        f"it is the condition number in the {name} norm (of the pseudo-inverse, where singular)",
        f"use the 2-norm: numpy.linalg.cond(H, 2), not {code}, and leave out the zero eigenvalues",
    )


def _loose(rank: int, true: int) -> Cause:
    return Cause(
        f"rank[{rank}]",
        f"it is lambda_max divided by eigenvalue number {rank}, but the rank is {true}: the tolerance for zero is "
        "too loose",
        f"use s[0] / s[{true} - 1]; H.condition() says which eigenvalues are zero, and why",
    )
