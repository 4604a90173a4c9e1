"""Why a matrix is close to the Hessian but not equal: fewer digits somewhere, or finite differences.

Rounded data or weights give the exact Hessian of the rounded numbers. A rounded matrix is the Hessian with each entry
rounded. Arithmetic with fewer digits leaves errors whose size and pattern are known from the same computation here.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern.explanation.given.candidate_model import CandidateModel, Curvature, Difference, chunks, difference
from hesskern.explanation.given.causes import Cause
from hesskern.explanation.given.formats import FORMATS, Format, grid_of, storages
from hesskern.explanation.given.variants import DataVariant, WeightVariant
from hesskern.explanation.search import finite_differences
from hesskern.explanation.search.arithmetic import Pattern, pattern
from hesskern.explanation.search.matrices import Match, Search
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import positions, select

Values = NDArray[np.float64]

_EPSILON = float(np.finfo(np.float64).eps)

#: Standard deviations by which errors must agree with those of a format: if the entries have its digits, which is
#: evidence too, and if they do not.
_DEVIATIONS, _DEVIATIONS_WITHOUT_DIGITS = 2.5, 4.5


class Explained(NamedTuple):
    """A match whose last cause is the precision."""

    match: Match
    confidence: str


def explained(search: Search, match: Match) -> Explained | None:
    """Return what explains the remaining error of a near model, or None."""
    for find in (_rounded_inputs,) if match.fitted else (_rounded_inputs, _stored, _arithmetic, _finite_differences):
        explanation = find(search, match)
        if explanation is not None:
            return explanation
    return None


def _rounded_inputs(search: Search, match: Match) -> Explained | None:
    """Return a match whose data or weights are rounded to a format: the Hessian of those is exact."""
    base, model = match.base, match.model
    for format_ in FORMATS:
        data = _rounded_data(base.data, format_)
        weights = _rounded_weights(base.weights, format_)
        for inputs, rounded in (
            ("the data and the weights", (data, weights)),
            ("the data", (data, base.weights)),
            ("the weights", (base.data, weights)),
        ):
            curvature = Curvature(rounded[0], rounded[1], base.selection.tensors, search.epsilon)
            scaled = search.affine_of(match, curvature)
            if scaled is None:
                continue
            candidate = dataclasses.replace(model, curvature=curvature, factor=scaled.factor, shift=scaled.shift)
            entries = difference(search.matrix, candidate, curvature.tensors)
            if entries.norm <= candidate.tolerance:
                where = {"the data": "data", "the weights": "weights"}.get(inputs, "inputs")
                cause = Cause(f"{format_.name}-{where}", f"{inputs} are rounded to {format_.name}", format_.fix)
                kept = tuple(other for other in match.causes if not other.key.startswith("scale"))
                return Explained(
                    Match((*kept, *scaled.causes, cause), candidate, entries, base, match.order),
                    f"certain: with {inputs} rounded, all {model.size**2} entries agree to "
                    f"{entries.relative:.1g}, which is rounding in float64",
                )
    return None


def _rounded_data(data: DataVariant, format_: Format) -> DataVariant:
    terms = tuple(
        (factor, SquaredLoss(format_.round(loss.X), format_.round(loss.Y), loss.kind, backend=loss.backend))
        for factor, loss in data.terms
    )
    return DataVariant(data.causes, terms, data.samples)


def _rounded_weights(weights: WeightVariant, format_: Format) -> WeightVariant:
    net = weights.net
    biases = [None if bias is None else format_.round(bias) for bias in net.biases]
    return WeightVariant(weights.causes, LinearNetwork([format_.round(weight) for weight in net.weights], biases))


def _stored(search: Search, match: Match) -> Explained | None:
    """Return a match that was computed in float64 and rounded at the end."""
    matrix, model = search.matrix, match.model
    strips, slack = chunks(len(matrix)), 8.0 * model.tolerance / model.size  # of an entry, if all errors are equal
    for storage in storages(matrix, strips):
        expected = (model.rows(at) for at in strips)
        if all(
            (np.abs(matrix[at] - rows) <= storage.half_unit(rows) + 64.0 * _EPSILON * np.abs(rows) + slack).all()
            for at, rows in zip(strips, expected, strict=True)
        ):
            cause = Cause(storage.key, storage.words, storage.fix)
            stored = dataclasses.replace(model, store=storage.store)
            entries = difference(matrix, stored, model.curvature.tensors)
            return Explained(
                Match((*match.causes, cause), stored, entries, match.base, match.order),
                f"certain: each of the {model.size**2} entries is the Hessian's, rounded to nearest",
            )
    return None


def _arithmetic(search: Search, match: Match) -> Explained | None:
    """Return a match computed in a format, by the size and the pattern of its errors."""
    model = match.model
    if model.part not in ("full", "gauss_newton", "layers", "tensors"):
        return None
    strips = chunks(len(search.matrix))
    digits = grid_of(search.matrix, strips)
    if digits is None and model.factor != 1.0:
        digits = grid_of(search.matrix / model.factor, strips)
    if digits is None:
        likely: list[tuple[Format, ...]] = [FORMATS]
    else:  # results have the digits of the format, or later steps used one with more
        same_digits = tuple(one for one in FORMATS if one.product_bits == digits.product_bits)
        likely = [same_digits, tuple(one for one in FORMATS if one.product_bits < digits.product_bits)]
    for formats in likely:
        best = _shown(search.matrix, model, formats, digits)
        if best is not None:
            break
    else:
        return None
    format_, errors = best
    cause = Cause(f"{format_.name}-arithmetic", f"it was computed in {format_.name}", format_.fix)
    has = f", and all entries have the digits of {digits.name}" if digits is not None else ""
    return Explained(
        Match((*match.causes, cause), model, match.difference, match.base, match.order),
        f"high: the errors of the entries are {errors.size:.2g} times as large as those of the same computation in "
        f"{format_.name}, entry by entry, and agree with them (correlation {errors.agreement:.2g}, where chance gives "
        f"{errors.chance:.1g}){has}; in float64 rounding would allow "
        f"{model.tolerance / (match.difference.model or 1.0):.1g}",
    )


def _shown(
    matrix: Values, model: CandidateModel, formats: tuple[Format, ...], digits: Format | None
) -> tuple[Format, Pattern] | None:
    """Return the format whose errors agree best with those of the candidate, if any agree by enough."""

    def needed(format_: Format) -> float:
        # Results in TF32 have the digits of float32, which are no evidence for TF32.
        return _DEVIATIONS if digits is not None and format_.bits == digits.bits else _DEVIATIONS_WITHOUT_DIGITS

    patterns = [(format_, pattern(matrix, model, format_)) for format_ in formats]
    shown = [(format_, errors) for format_, errors in patterns if errors is not None and errors.shows(needed(format_))]
    return max(shown, key=lambda one: one[1].agreement / one[1].chance, default=None)


def _finite_differences(search: Search, match: Match) -> Explained | None:
    model, base = match.model, match.base
    if model.part != "full" or len(base.data.terms) > 1:
        return None
    (per, loss), net = base.data.terms[0], base.weights.net
    names = [tensor.full_name for tensor in base.selection.tensors]
    where = positions(net, select(net, names))
    where = np.arange(net.num_parameters) if where is None else where
    matrix, hessian = search.matrix, model.toarray()
    if model.index is not None:  # differences are taken in the order of the parameters
        back = np.argsort(model.index)
        matrix, hessian = matrix[np.ix_(back, back)], hessian[np.ix_(back, back)]
    function = finite_differences.Function(net, loss, where, per * model.factor, model.shift)
    explanation = finite_differences.find(matrix, hessian, function)
    if explanation is None:
        return None
    correction = explanation.correction
    if model.index is not None:
        correction = correction[np.ix_(model.index, model.index)]
    entries = difference(search.matrix - correction, model, model.curvature.tensors)
    return Explained(
        Match((*match.causes, explanation.cause), model, entries, base, match.order),
        f"high: the remaining error, {entries.relative:.1g} of the norm, is {explanation.how_large:.2g} times that of "
        "such differences computed here: rounding, divided by the step",
    )


def hints(before: Difference, truth: CandidateModel, skewed: bool) -> list[str]:
    """Return what the size of an unexplained difference is typical of."""
    notes: list[str] = []
    size = before.relative
    if size <= 1e-3:
        kind = (
            "fewer digits somewhere (float32 gives about 1e-7)" if not skewed else "finite differences or fewer digits"
        )
        notes.append(
            f"a relative difference of {size:.1g} is typical of {kind}, but neither the entries nor the "
            "pattern show it; "
            f"rounding in float64 would allow {truth.tolerance / (before.model or 1.0):.1g}"
        )
    return notes
