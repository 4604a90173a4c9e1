"""The answer for a dense matrix."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from hesskern.explanation.answer.explanation import Alternative, Explanation, Finding, Matrices, Remainder
from hesskern.explanation.given import candidate as given_as
from hesskern.explanation.given.candidate import Candidate
from hesskern.explanation.given.candidate_model import Curvature, Difference, Model, difference
from hesskern.explanation.given.causes import Cause, keys, sentence
from hesskern.explanation.given.question import Problem
from hesskern.explanation.given.scales import damping
from hesskern.explanation.given.selections import shown, symbol
from hesskern.explanation.given.variants import WeightVariant
from hesskern.explanation.search import precision
from hesskern.explanation.search.learning_rates import estimated_steps
from hesskern.explanation.search.matrices import Match, Search
from hesskern.explanation.search.other_matrices import other_matches


class MatrixAnswer:
    """The search for one matrix, and what is said of it."""

    def __init__(self, given: Candidate, problem: Problem) -> None:
        self._given, self._problem = given, problem
        truth = float(np.abs(problem.truth().diagonal).max())
        self._power = given_as.exponent_to(given.array, truth or 1.0)
        self._array = np.ldexp(given.array, self._power) if self._power else given.array  # of the Hessian's size
        self._symmetry = given_as.symmetry(self._array)
        self._matrix, self._triangle = self._array, self._symmetry.triangle
        if self._triangle:
            mirrored = self._array + self._array.T
            mirrored[np.diag_indices_from(mirrored)] = self._array.diagonal()
            self._matrix = mirrored
        self._truth = Model(problem.truth(), shift=problem.decay)
        norm = float(np.linalg.norm(self._matrix))
        self._skewed = not self._triangle and self._symmetry.skew > max(self._truth.tolerance, 1e-14 * norm)

    def _search(self, problem_weights: Sequence[WeightVariant] | None = None) -> Search:
        problem = self._problem
        return Search(
            self._matrix,
            problem.data,
            problem.weights if problem_weights is None else problem_weights,
            problem.selections,
            problem.scales,
            problem.epsilon,
            skewed=self._skewed,
        )

    def explain(self) -> Explanation:
        """Search, and say what was found."""
        problem, search = self._problem, self._search()
        if not self._matrix.any():
            return self._unexplained("the matrix is zero.", None)
        found = self._other(search) or search.matches()
        if not found and problem.rate is None and not self._skewed:
            for variant in estimated_steps(search, problem.net, problem.loss, problem.decay):
                stepped = self._search([problem.weights[0], variant])
                found = [match for match in stepped.matches() if variant in (match.base.weights,)]
                search = stepped if found else search
        if found:
            return self._explained(search, found, "")
        near = search.near()
        for match in near[:3]:
            better = precision.explained(search, match)
            if better is not None:
                return self._explained(search, [better.match], better.confidence)
        return self._unexplained(
            "no known cause: nothing that was tried brings the difference down to rounding.", near[0] if near else None
        )

    def _other(self, search: Search) -> list[Match]:
        """Return matches that are no changed Hessian, unless a changed Hessian explains as much with as little."""
        others = [] if self._skewed or self._power else other_matches(search)
        simple = search.matches(most=1) if others else []
        return [] if simple and simple[0].cost <= others[0].cost else others

    def _before(self) -> Difference | None:
        if len(self._given.array) != self._truth.size:
            return None
        power = min(self._power, 0)  # the larger of both keeps its size, or what is left of it after this
        if not power:
            return difference(self._given.array, self._truth, self._problem.asked.tensors)
        lowered = dataclasses.replace(self._truth, factor=2.0**power, shift=self._truth.shift * 2.0**power)
        return difference(self._array, lowered, self._problem.asked.tensors)

    def _as_given(self, model: Model) -> Model:
        """Return the model of the candidate as it was given."""
        factor, shift = (float(np.ldexp(value, -self._power)) for value in (model.factor, model.shift))
        return dataclasses.replace(model, factor=factor, shift=shift)

    def _causes_as_given(self, causes: tuple[Cause, ...], model: Model) -> tuple[Cause, ...]:
        """Return the causes with the factor and the shift of the candidate as it was given."""
        if not self._power:
            return causes
        given, scales = self._as_given(model), self._problem.scales
        kept = tuple(cause for cause in causes if not cause.key.startswith("scale[") and cause.key != "damping")
        shifts = (damping(given.shift, scales.decay),) if any(cause.key == "damping" for cause in causes) else ()
        return (*kept, scales.constant(given.factor), *shifts)

    def _explained(self, search: Search, found: list[Match], confidence: str) -> Explanation:
        problem, best = self._problem, found[0]
        if type(best.model.curvature) is Curvature and not best.base.causes:  # its dense matrix is there
            self._truth = Model(best.model.curvature, shift=problem.decay)
        causes, after = self._causes_as_given(best.causes, best.model), best.found
        if self._triangle:
            causes = (*causes, _triangle(self._triangle))
            model = dataclasses.replace(best.model, triangle=self._triangle)
            after = difference(self._array, model, best.model.curvature.tensors)
        else:
            model = best.model
        if not causes:
            return Explanation(
                "match",
                f"this is the Hessian with respect to {shown(problem.asked.tensors)}, to rounding.",
                confidence=_certainty(after, model),
                before=after.relative,
                after=after.relative,
                matrices=self._matrices(model),
                _corrected=problem.true_matrix,
            )
        before = self._before()
        overall = before.relative if before is not None else None
        yours = float(self._given.array[before.where]) if before is not None else None
        expected = self._truth_at(before.where) if before is not None else None
        findings = tuple(
            Finding(
                cause.key,
                cause.words,
                cause.fix,
                cause.also,
                overall if len(causes) == 1 else self._without(search, best, cause),
                after.relative,
                yours,
                expected,
            )
            for cause in causes
        )
        return Explanation(
            "explained",
            f"this is the Hessian with respect to {shown(best.base.selection.tensors)}, but {sentence(causes)}.",
            findings,
            confidence=confidence or _certainty(after, model),
            alternatives=tuple(Alternative(keys(match.causes), sentence(match.causes)) for match in found[1:]),
            before=overall,
            after=after.relative,
            matrices=self._matrices(model),
            _corrected=problem.true_matrix,
        )

    def _truth_at(self, where: tuple[int, int]) -> float:
        return float(self._truth.rows(slice(where[0], where[0] + 1))[0, where[1]])

    def _without(self, search: Search, best: Match, cause: Cause) -> float | None:
        if cause.key.startswith("triangle"):
            return self._symmetry.skew * math.sqrt(2.0) / float(np.linalg.norm(self._matrix))
        if best.model.diagonal is not None or type(best.model.curvature) is not Curvature:
            return None
        return search.without(best, cause)

    def _matrices(self, model: Model | None) -> Matrices:
        tensors = self._problem.asked.tensors if model is None else model.curvature.tensors
        fits = len(self._given.array) == self._truth.size
        return Matrices(
            self._given.array,
            self._truth.toarray if fits else None,
            None if model is None else self._as_given(model).toarray,
            tuple(map(symbol, tensors)),
            tuple(tensor.start for tensor in tensors),
        )

    def _unexplained(self, verdict: str, near: Match | None) -> Explanation:
        problem, before = self._problem, self._before()
        notes: list[str] = []
        norm = float(np.linalg.norm(self._matrix))
        if self._skewed and norm:
            notes.append(
                f"the matrix is not symmetric: its skew part is {self._symmetry.skew / norm:.2g} of its norm; a "
                "Hessian is "
                "symmetric to rounding"
            )
        if near is not None and near.found.relative < (before.relative if before else math.inf):
            words = sentence(near.causes) if near.causes else "the Hessian itself"
            notes.append(f"the nearest that was found, to {near.found.relative:.2g}, but not to rounding: {words}")
        if before is not None:
            notes += precision.hints(before, self._truth, self._skewed)
        model = near.model if near is not None else None
        return Explanation(
            "unexplained",
            verdict,
            before=before.relative if before else None,
            after=before.relative if before else None,
            unexplained=None if before is None else self._remainder(before),
            notes=tuple(notes),
            matrices=self._matrices(model),
            _corrected=problem.true_matrix,
        )

    def _remainder(self, found: Difference) -> Remainder:
        tensors = self._problem.asked.tensors
        at = np.unravel_index(int(found.blocks.argmax()), found.blocks.shape)
        rows = np.argsort(found.row_norms)[::-1][:5]
        rows = rows[found.row_norms[rows] >= 1e-2 * found.row_norms.max()]
        return Remainder(
            error=found.relative,
            block=(symbol(tensors[int(at[0])]), symbol(tensors[int(at[1])])),
            share=float((found.blocks[at] / found.norm) ** 2) if found.norm else 0.0,
            rows=tuple(map(int, rows)),
            entry=found.where,
            yours=float(self._given.array[found.where]),
            expected=self._truth_at(found.where),
        )


def _certainty(found: Difference, model: Model) -> str:
    return (
        f"certain: all {model.size**2} entries agree to {found.relative:.1g} of the norm, and rounding allows "
        f"{model.tolerance / (found.model or 1.0):.1g}"
    )


def _triangle(which: str) -> Cause:
    other = "above" if which == "lower" else "below"
    return Cause(
        f"triangle[{which}]",
        f"only its {which} triangle is filled, and everything {other} the diagonal is zero",
        "mirror it: H + H.T - numpy.diag(H.diagonal())",
    )
