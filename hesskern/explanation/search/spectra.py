"""The search for the matrix that has a list of eigenvalues."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern.explanation.given.candidate_model import Curvature
from hesskern.explanation.given.causes import Cause, total
from hesskern.explanation.given.formats import Storage
from hesskern.explanation.given.scales import Scales, affine
from hesskern.explanation.given.selections import Selection
from hesskern.explanation.given.variants import DataVariant, WeightVariant
from hesskern.explanation.search.matrices import PART_CAUSES, Base

Values = NDArray[np.float64]

_ABSOLUTE = Cause(
    "singular-values",
    "they are absolute values: singular values, not eigenvalues, of an indefinite matrix",
    "use numpy.linalg.eigvalsh(H), not numpy.linalg.svd(H)",
)
_NONZERO = Cause(
    "zeros-left-out", "the zero eigenvalues are left out", "numpy.linalg.eigvalsh(H) without a cut, or H.eigvalsh()"
)

_LARGEST = Cause(
    "largest-only",
    "only the largest ones are given",
    "numpy.linalg.eigvalsh(H), or H.eigvalsh(), has all of them",
)

#: Fewest eigenvalues that identify a part of a spectrum.
_FEWEST = 4

#: Error of an eigenvalue solver with fewer digits, in roundings of the largest eigenvalue.
_ROUNDINGS = 8.0

#: The most causes, and the parameters above which only one is tried: each spectrum may cost a dense eigenproblem.
_MOST, _LARGE = 2, 400


class SpectrumMatch(NamedTuple):
    """Eigenvalues of another matrix that equal the candidate's."""

    causes: tuple[Cause, ...]
    values: Values
    error: float  # relative
    factor: float


def spectrum_matches(
    eigenvalues: Values,
    data: list[DataVariant],
    weights: list[WeightVariant],
    selections: list[Selection],
    scales: Scales,
    epsilon: float,
    storage: Storage | None = None,
    *,
    most: int = _MOST,
) -> list[SpectrumMatch]:
    """Return the spectra of least cost that equal the candidate up to rounding, or to the digits it is stored with."""
    slack, digits = 0.0, tuple[Cause, ...]()
    if storage is not None:
        slack = _ROUNDINGS * float(np.linalg.norm(storage.half_unit(eigenvalues)))
        words = storage.words.replace("the finished matrix is", "they are")
        digits = (Cause(storage.key, words, storage.fix),)
        if slack > 1e-3 * float(np.linalg.norm(eigenvalues - eigenvalues.mean())):
            return []  # too few digits to identify a spectrum
    best: list[SpectrumMatch] = []
    bases = [
        Base(d, w, s)
        for s in selections
        for d in data
        for w in weights
        if s.size >= len(eigenvalues)
        and len(d.causes) + len(w.causes) + len(s.causes) <= (most if s.size <= _LARGE else min(most, 1))
    ]
    for base in sorted(bases, key=lambda base: total(base.causes)):
        if best and total(base.causes) > total(best[0].causes):
            break
        for match in _of_base(np.sort(eigenvalues), base, scales, epsilon, slack):
            if storage is not None:
                if any(cause.key in ("scale[constant]", "damping") for cause in match.causes):
                    continue  # so few digits leave room for such fits
                match = match._replace(causes=(*match.causes, *digits))
            if not best or total(match.causes) < total(best[0].causes):
                best = [match]
            elif total(match.causes) == total(best[0].causes):
                best.append(match)
    return best


def _of_base(eigenvalues: Values, base: Base, scales: Scales, epsilon: float, slack: float) -> Iterator[SpectrumMatch]:
    curvature = Curvature(base.data, base.weights, base.selection.tensors, epsilon)
    several = len(curvature.layers) > 1
    for part in ("full", "gauss_newton", "functional", "layers") if several else ("full",):
        causes = (*base.causes, *((PART_CAUSES[part],) if part != "full" else ()))
        if len(causes) > _MOST + 1:
            continue
        values = curvature.eigenvalues(part)
        size = float(np.linalg.norm(values))
        # Weyl and Hoffman-Wielandt: eigenvalues move no further than the matrix, which an eigenvalue solver moves too.
        tolerance = curvature.rounding + 8 * np.sqrt(len(values)) * epsilon * size + slack
        if not size > tolerance:
            continue
        for chosen, extra in _readings(values, len(eigenvalues), tolerance):
            scaling = affine(
                eigenvalues[:, None], chosen[:, None], np.ones((len(eigenvalues), 1)), scales,
                part=part, batch=base.data.samples, limit=tolerance, rounding=max(tolerance / size, 1e-14),
            )  # fmt: skip
            if scaling is not None and _distinct(eigenvalues, tolerance) <= sum(
                cause.key in ("scale[constant]", "damping") for cause in scaling.causes
            ):
                continue  # a constant and a shift turn any one or two values into any others
            # Both are ascending, so a negative factor belongs to the reversed order.
            if scaling is not None and extra[:1] == (_LARGEST,) and scaling.causes:
                continue  # a part of the spectrum is recognised only if nothing else changed
            if scaling is not None and (scaling.factor > 0 or chosen[0] > chosen[-1]):
                model = np.sort(scaling.factor * chosen + scaling.shift)
                error = float(np.linalg.norm(eigenvalues - model)) / (float(np.linalg.norm(eigenvalues)) or 1.0)
                yield SpectrumMatch((*causes, *extra, *scaling.causes), model, error, scaling.factor)
                break


def _distinct(ascending: Values, tolerance: float) -> int:
    return 1 + int(np.count_nonzero(np.diff(ascending) > tolerance))


def _readings(values: Values, count: int, tolerance: float) -> Iterator[tuple[Values, tuple[Cause, ...]]]:
    """Yield the choices of these eigenvalues that a list of this length may hold."""
    indefinite = bool((values < -tolerance).any())
    if count == len(values):
        yield values, ()
        yield values[::-1], ()
        if indefinite:
            yield np.sort(np.abs(values)), (_ABSOLUTE,)
        return
    nonzero = values[np.abs(values) > tolerance]
    if count == len(nonzero):
        yield nonzero, (_NONZERO,)
        yield nonzero[::-1], (_NONZERO,)
        if indefinite:
            yield np.sort(np.abs(nonzero)), (_NONZERO, _ABSOLUTE)
    elif _FEWEST <= count < len(nonzero):
        yield values[-count:], (_LARGEST,)
        if indefinite:
            yield np.sort(values[np.argsort(np.abs(values))[-count:]]), (_LARGEST,)
