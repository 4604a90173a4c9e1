"""The answer for a list of eigenvalues."""

from __future__ import annotations

from functools import partial

import numpy as np

from hesskern.explanation.answer.explanation import Alternative, Explanation, Finding, itself
from hesskern.explanation.answer.vector_answer import explain_vector
from hesskern.explanation.given.candidate import Candidate, exponent_to
from hesskern.explanation.given.causes import keys, sentence
from hesskern.explanation.given.formats import storages
from hesskern.explanation.given.question import Question
from hesskern.explanation.given.selections import shown
from hesskern.explanation.search.one_triangle import misread
from hesskern.explanation.search.spectra import Values, spectrum_matches


def explain_spectrum(candidate: Candidate, question: Question) -> Explanation:
    """Search for the matrix that has these eigenvalues, and return the answer."""
    expected = question.true_spectrum()
    power = exponent_to(candidate.array, float(np.abs(expected).max()) or 1.0)
    values = np.sort(candidate.array)
    scaled = np.ldexp(candidate.array, power) if power else candidate.array  # as large as the Hessian's
    search = scaled, question.data, question.weights, question.selections, question.scales, question.epsilon
    if not values.any() and np.abs(expected).max() > 0.0:
        return Explanation(
            "unexplained", "all these eigenvalues are zero; the Hessian's are not.",
            before=1.0, after=1.0, _corrected=partial(itself, expected),
        )  # fmt: skip
    matches = spectrum_matches(*search, most=0)
    answer = None if matches else explain_vector(candidate, question) or _misread(values, expected, power, question)
    if answer is not None:
        return answer
    matches = matches or spectrum_matches(*search)
    for storage in storages(scaled[None, :], [slice(0, 1)]) if not matches else ():
        matches = spectrum_matches(*search, storage)
        if matches:
            break
    corrected = partial(itself, expected)
    largest = float(np.abs(values).max()), float(np.abs(expected).max())
    same_length = len(expected) == len(values)
    before = _apart(values, expected, min(power, 0)) if same_length else None
    of = f"the Hessian with respect to {shown(question.selection.tensors)}"
    if not matches:
        at = int(np.abs(values - expected).argmax()) if same_length else None
        note = (
            ()
            if at is None
            else (f"the largest difference is in eigenvalue {at}: {values[at]:.10g}, not {expected[at]:.10g}",)
        )
        return Explanation(
            "unexplained", f"no known cause: these are not the eigenvalues of {of}, nor of any known mistake.",
            before=before, after=before, notes=note, _corrected=corrected,
        )  # fmt: skip
    best = matches[0]
    causes = best.causes
    if power:
        kept = tuple(cause for cause in causes if not cause.key.startswith("scale[") and cause.key != "damping")
        causes = (*kept, question.scales.constant(float(np.ldexp(best.factor, -power))))
    if not causes:
        return Explanation(
            "match", f"these are the eigenvalues of {of}.", before=before, after=best.error, _corrected=corrected
        )
    findings = tuple(
        Finding(cause.key, cause.words, cause.fix, cause.also, before, best.error, *largest) for cause in causes
    )
    return Explanation(
        "explained",
        f"these are the eigenvalues of {of} where {' and '.join(cause.words for cause in causes)}.",
        findings,
        confidence="all eigenvalues agree to rounding; they do not depend on the order of the parameters",
        alternatives=tuple(Alternative(keys(match.causes), sentence(match.causes)) for match in matches[1:]),
        before=before,
        after=best.error,
        _corrected=corrected,
    )


def _misread(values: Values, expected: Values, power: int, question: Question) -> Explanation | None:
    """Return the answer if a solver for symmetric matrices was given one that is not symmetric."""
    for cause, wrong in misread(question.truth(), question.decay, question.net, question.loss):
        if len(wrong) != len(values) or _apart(values, wrong, min(power, 0)) > 1e-12:
            continue
        before = _apart(values, expected, min(power, 0)) if len(expected) == len(values) else None
        finding = Finding(cause.key, cause.words, cause.fix, (), before, 0.0)
        verdict = f"these are not the eigenvalues of the Hessian with respect to {shown(question.selection.tensors)}: "
        return Explanation(
            "explained",
            f"{verdict}{cause.words}.",
            (finding,),
            before=before,
            after=0.0,
            _corrected=question.true_spectrum,
        )
    return None


def _apart(values: Values, expected: Values, power: int) -> float:
    """Return the relative distance of eigenvalues, both times a power of two so that squares do not overflow."""
    one, two = np.ldexp(values, power), np.ldexp(expected, power)
    size = max(float(np.linalg.norm(one)), float(np.linalg.norm(two)))
    return float(np.linalg.norm(one - two)) / size if size else 0.0
