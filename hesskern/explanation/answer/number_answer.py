"""The answer for a bare number."""

from __future__ import annotations

import math
from functools import partial

from hesskern.explanation.answer.explanation import Alternative, Explanation, Finding, itself
from hesskern.explanation.given.candidate import Candidate
from hesskern.explanation.given.causes import keys, listed, sentence
from hesskern.explanation.given.question import Question
from hesskern.explanation.given.selections import shown
from hesskern.explanation.search.numbers import CHANCE, NAMES, Numbers, Quantity


def explain_number(candidate: Candidate, question: Question, quantity: Quantity | None) -> Explanation:
    """Search for what a number is, and return the answer."""
    numbers = Numbers(
        candidate,
        question.loss,
        question.data,
        question.weights,
        question.selections,
        question.scales,
        question.epsilon,
        quantity,
    )
    truth = numbers.truth()
    value, parameters = numbers.value, shown(question.selection.tensors)
    if math.isnan(value):
        return Explanation("invalid", "the number is NaN.", notes=(_truths(truth),), _corrected=partial(itself, truth))
    matches = numbers.matches()
    kind = matches[0].quantity if matches else quantity or "condition"
    expected = truth[kind]
    corrected = partial(itself, expected)
    before = abs(value - expected) / max(abs(value), abs(expected)) if math.isfinite(value) and expected else math.inf
    if not matches:
        return Explanation(
            "unexplained",
            f"no known cause: {value:.10g} is not a condition number, rank or largest eigenvalue of anything that was "
            "tried.",
            before=before,
            after=before,
            notes=_notes(truth, numbers.doubt()),
            _corrected=corrected,
        )
    if not matches[0].causes:
        names = listed([NAMES[match.quantity] for match in matches])
        verdict = f"{value:.10g} is the {names} of the Hessian with respect to {parameters} ({matches[0].value:.10g})."
        return Explanation("match", verdict, before=before, after=before, notes=(_truths(truth),), _corrected=corrected)
    first, *other_matches = matches
    chance = numbers.chance(first)
    findings = tuple(
        Finding(
            cause.key,
            cause.words,
            cause.fix,
            cause.also,
            before,
            abs(first.value / value - 1) if value else None,
            value,
            expected,
        )
        for cause in first.causes
    )
    words = sentence(first.causes)
    alternatives = tuple(
        Alternative(keys(match.causes), f"the {NAMES[match.quantity]}, {match.value:.10g}: {sentence(match.causes)}")
        for match in other_matches
    )
    verdict = f"{value:.10g} is the {NAMES[kind]} where {words}; for the Hessian it is {expected:.10g}."
    if first.causes[0].key.startswith("noise"):
        verdict = f"{value:.3g} means nothing, because {words}; the condition number is {expected:.10g}."
    if first.causes[0].key.startswith("solver-rounding"):
        verdict = f"{value:.10g} is {words.removeprefix('it is ')}; for the Hessian it is {expected:.10g}."
    certain = chance <= CHANCE
    if not certain:
        verdict = f"no certain cause: {value:.10g} may be the {NAMES[kind]} where {words}, or it may be chance."
    return Explanation(
        "explained" if certain else "unexplained",
        verdict,
        findings if certain else (),
        confidence=first.evidence
        or f"one number only; the probability that one of the tried causes gives it by chance is {chance:.1g}",
        alternatives=alternatives if certain else (Alternative(keys(first.causes), words), *alternatives),
        before=before,
        after=abs(first.value - value) / abs(value) if value and math.isfinite(value) else 0.0,
        notes=_notes(truth, "" if certain else numbers.doubt()),
        _corrected=corrected,
    )


def _notes(truth: dict[str, float], doubt: str) -> tuple[str, ...]:
    return (_truths(truth), *([doubt] if doubt else []))


def _truths(truth: dict[str, float]) -> str:
    return (
        f"of the Hessian: condition number {truth['condition']:.10g}, rank {truth['rank']:.0f}, largest eigenvalue "
        f"{truth['largest']:.10g}"
    )
