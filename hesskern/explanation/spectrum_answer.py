"""The answer for a list of eigenvalues."""

from __future__ import annotations

from functools import partial

import numpy as np

from hesskern.explanation.answer import Alternative, Explanation, Finding, itself
from hesskern.explanation.candidate import Candidate
from hesskern.explanation.causes import keys, sentence
from hesskern.explanation.formats import storages
from hesskern.explanation.problem import Problem
from hesskern.explanation.selections import shown
from hesskern.explanation.spectra import spectrum_matches


def explain_spectrum(given: Candidate, problem: Problem) -> Explanation:
    """Search for what eigenvalues are, and say what was found."""
    known = given.array, problem.data, problem.weights, problem.selections, problem.scales, problem.epsilon
    found = spectrum_matches(*known)
    for storage in storages(given.array[None, :], [slice(0, 1)]) if not found else ():
        found = spectrum_matches(*known, storage)
        if found:
            break
    expected = problem.true_spectrum()
    values = np.sort(given.array)
    corrected = partial(itself, expected)
    largest = float(np.abs(values).max()), float(np.abs(expected).max())
    same = len(expected) == len(values)
    before = (
        float(np.linalg.norm(values - expected)) / max(map(float, map(np.linalg.norm, (values, expected))))
        if same
        else None
    )
    of = f"the Hessian with respect to {shown(problem.asked.tensors)}"
    if not found:
        at = int(np.abs(values - expected).argmax()) if same else None
        note = (
            ()
            if at is None
            else (f"the largest difference is in eigenvalue {at}: {values[at]:.10g}, not {expected[at]:.10g}",)
        )
        return Explanation(
            "unexplained", f"no known cause: these are not the eigenvalues of {of}, nor of anything that was tried.",
            before=before, after=before, notes=note, _corrected=corrected,
        )  # fmt: skip
    best = found[0]
    if not best.causes:
        return Explanation(
            "match", f"these are the eigenvalues of {of}.", before=before, after=best.error, _corrected=corrected
        )
    findings = tuple(
        Finding(cause.key, cause.words, cause.fix, cause.also, before, best.error, *largest) for cause in best.causes
    )
    return Explanation(
        "explained",
        f"these are the eigenvalues of {of} where {' and '.join(cause.words for cause in best.causes)}.",
        findings,
        confidence="all eigenvalues agree to rounding; the order of the parameters leaves no trace in them",
        alternatives=tuple(Alternative(keys(match.causes), sentence(match.causes)) for match in found[1:]),
        before=before,
        after=best.error,
        _corrected=corrected,
    )
