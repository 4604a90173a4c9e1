"""The answer for a dense matrix."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from hesskern.explanation.answer.explanation import Alternative, Explanation, Finding, Matrices, Remainder
from hesskern.explanation.given.candidate import Candidate, exponent_to, symmetry
from hesskern.explanation.given.candidate_model import CandidateModel, Curvature, Difference, difference
from hesskern.explanation.given.causes import Cause, keys, sentence
from hesskern.explanation.given.question import Question
from hesskern.explanation.given.scales import damping
from hesskern.explanation.given.selections import shown, symbol
from hesskern.explanation.given.variants import WeightVariant
from hesskern.explanation.search import precision
from hesskern.explanation.search.learning_rates import estimated_steps
from hesskern.explanation.search.matrices import Match, Search
from hesskern.explanation.search.other_matrices import other_matches


class MatrixAnswer:
    """The search for one matrix, and the answer."""

    def __init__(self, candidate: Candidate, question: Question) -> None:
        self._candidate, self._question = candidate, question
        truth = float(np.abs(question.truth().diagonal).max())
        self._power = exponent_to(candidate.array, truth or 1.0)
        # Of the Hessian's size.
        self._array = np.ldexp(candidate.array, self._power) if self._power else candidate.array
        self._symmetry = symmetry(self._array)
        self._matrix, self._triangle = self._array, self._symmetry.triangle
        if self._triangle:
            mirrored = self._array + self._array.T
            mirrored[np.diag_indices_from(mirrored)] = self._array.diagonal()
            self._matrix = mirrored
        self._truth = CandidateModel(question.truth(), shift=question.decay)
        norm = float(np.linalg.norm(self._matrix))
        self._skewed = not self._triangle and self._symmetry.skew > max(self._truth.tolerance, 1e-14 * norm)

    def _search(self, weights: Sequence[WeightVariant] | None = None) -> Search:
        question = self._question
        return Search(
            self._matrix,
            question.data,
            question.weights if weights is None else weights,
            question.selections,
            question.scales,
            question.epsilon,
            skewed=self._skewed,
        )

    def explain(self) -> Explanation:
        """Search and return the answer."""
        question, search = self._question, self._search()
        if not self._matrix.any():
            return self._unexplained("the matrix is zero.", None)
        matches = self._other(search) or search.matches()
        if not matches and question.rate is None and not self._skewed:
            for variant in estimated_steps(search, question.net, question.loss, question.decay):
                stepped = self._search([question.weights[0], variant])
                matches = [match for match in stepped.matches() if variant in (match.base.weights,)]
                search = stepped if matches else search
        if matches:
            return self._explained(search, matches, "")
        near = search.near()
        for match in near[:3]:
            better = precision.explained(search, match)
            if better is not None:
                return self._explained(search, [better.match], better.confidence)
        return self._unexplained(
            "no known cause: no explanation that was tried brings the difference down to rounding.",
            near[0] if near else None,
        )

    def _other(self, search: Search) -> list[Match]:
        """Return matches other than a changed Hessian, unless a changed Hessian is as likely."""
        matches = [] if self._skewed or self._power else other_matches(search)
        simple = search.matches(most=1) if matches else []
        return [] if simple and simple[0].cost <= matches[0].cost else matches

    def _before(self) -> Difference | None:
        if len(self._candidate.array) != self._truth.size:
            return None
        power = min(self._power, 0)  # the larger of both keeps its size, or is scaled down
        if not power:
            return difference(self._candidate.array, self._truth, self._question.selection.tensors)
        lowered = dataclasses.replace(self._truth, factor=2.0**power, shift=self._truth.shift * 2.0**power)
        return difference(self._array, lowered, self._question.selection.tensors)

    def _as_given(self, model: CandidateModel) -> CandidateModel:
        """Return the model of the candidate as it was given."""
        factor, shift = (float(np.ldexp(value, -self._power)) for value in (model.factor, model.shift))
        return dataclasses.replace(model, factor=factor, shift=shift)

    def _causes_as_given(self, causes: tuple[Cause, ...], model: CandidateModel) -> tuple[Cause, ...]:
        """Return the causes with the factor and the shift of the candidate as it was given."""
        if not self._power:
            return causes
        original, scales = self._as_given(model), self._question.scales
        kept = tuple(cause for cause in causes if not cause.key.startswith("scale[") and cause.key != "damping")
        shifts = (damping(original.shift, scales.decay),) if any(cause.key == "damping" for cause in causes) else ()
        return (*kept, scales.constant(original.factor), *shifts)

    def _explained(self, search: Search, matches: list[Match], confidence: str) -> Explanation:
        question, best = self._question, matches[0]
        if type(best.model.curvature) is Curvature and not best.base.causes:  # its dense matrix is computed already
            self._truth = CandidateModel(best.model.curvature, shift=question.decay)
        causes, after = self._causes_as_given(best.causes, best.model), best.difference
        if self._triangle:
            causes = (*causes, _triangle(self._triangle))
            model = dataclasses.replace(best.model, triangle=self._triangle)
            after = difference(self._array, model, best.model.curvature.tensors)
        else:
            model = best.model
        if not causes:
            return Explanation(
                "match",
                f"this is the Hessian with respect to {shown(question.selection.tensors)}, to rounding.",
                confidence=_certainty(after, model),
                before=after.relative,
                after=after.relative,
                matrices=self._matrices(model),
                _corrected=question.true_matrix,
            )
        before = self._before()
        overall = before.relative if before is not None else None
        yours = float(self._candidate.array[before.where]) if before is not None else None
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
            alternatives=tuple(Alternative(keys(match.causes), sentence(match.causes)) for match in matches[1:]),
            before=overall,
            after=after.relative,
            matrices=self._matrices(model),
            _corrected=question.true_matrix,
        )

    def _truth_at(self, where: tuple[int, int]) -> float:
        return float(self._truth.rows(slice(where[0], where[0] + 1))[0, where[1]])

    def _without(self, search: Search, best: Match, cause: Cause) -> float | None:
        if cause.key.startswith("triangle"):
            return self._symmetry.skew * math.sqrt(2.0) / float(np.linalg.norm(self._matrix))
        if best.model.diagonal is not None or type(best.model.curvature) is not Curvature:
            return None
        return search.without(best, cause)

    def _matrices(self, model: CandidateModel | None) -> Matrices:
        tensors = self._question.selection.tensors if model is None else model.curvature.tensors
        fits = len(self._candidate.array) == self._truth.size
        return Matrices(
            self._candidate.array,
            self._truth.toarray if fits else None,
            None if model is None else self._as_given(model).toarray,
            tuple(map(symbol, tensors)),
            tuple(tensor.start for tensor in tensors),
        )

    def _unexplained(self, verdict: str, near: Match | None) -> Explanation:
        question, before = self._question, self._before()
        notes: list[str] = []
        norm = float(np.linalg.norm(self._matrix))
        if self._skewed and norm:
            notes.append(
                f"the matrix is not symmetric: its skew part is {self._symmetry.skew / norm:.2g} of its norm; "
                "a Hessian is symmetric up to rounding"
            )
        if near is not None and near.difference.relative < (before.relative if before else math.inf):
            words = sentence(near.causes) if near.causes else "the Hessian itself"
            notes.append(
                f"the nearest matrix that was tried differs by {near.difference.relative:.2g}, more than rounding: "
                f"{words}"
            )
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
            _corrected=question.true_matrix,
        )

    def _remainder(self, entries: Difference) -> Remainder:
        tensors = self._question.selection.tensors
        at = np.unravel_index(int(entries.blocks.argmax()), entries.blocks.shape)
        rows = np.argsort(entries.row_norms)[::-1][:5]
        rows = rows[entries.row_norms[rows] >= 1e-2 * entries.row_norms.max()]
        return Remainder(
            error=entries.relative,
            block=(symbol(tensors[int(at[0])]), symbol(tensors[int(at[1])])),
            share=float((entries.blocks[at] / entries.norm) ** 2) if entries.norm else 0.0,
            rows=tuple(map(int, rows)),
            entry=entries.where,
            yours=float(self._candidate.array[entries.where]),
            expected=self._truth_at(entries.where),
        )


def _certainty(entries: Difference, model: CandidateModel) -> str:
    return (
        f"certain: all {model.size**2} entries agree to {entries.relative:.1g} of the norm, and rounding allows "
        f"{model.tolerance / (entries.model or 1.0):.1g}"
    )


def _triangle(filled: str) -> Cause:
    empty = "above" if filled == "lower" else "below"
    return Cause(
        f"triangle[{filled}]",
        f"only its {filled} triangle is filled, and everything {empty} the diagonal is zero",
        "mirror it: H + H.T - numpy.diag(H.diagonal())",
    )
