"""What brings a matrix close to the Hessian but not to it: fewer digits somewhere, or finite differences.

Data or weights that were rounded give the exact Hessian of the rounded ones, and a matrix that was rounded is the
Hessian's rounding, entry by entry. Arithmetic with fewer digits leaves an error whose size is known from doing the
same, and entries that are numbers of that format.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern.explanation import differences
from hesskern.explanation.candidate import Candidate
from hesskern.explanation.causes import Cause
from hesskern.explanation.curvature import Curvature, Difference, Model, chunks, difference
from hesskern.explanation.formats import FORMATS, Format, computed_in, on_grid
from hesskern.explanation.search import Match, Search
from hesskern.explanation.variants import DataVariant, WeightVariant
from hesskern.loss import SquaredLoss
from hesskern.network import LinearNetwork
from hesskern.selection import positions, select

if TYPE_CHECKING:
    from hesskern.explanation.problem import Problem

Values = NDArray[np.float64]

#: The error of an arithmetic with fewer digits depends on the order of its operations; by no more than this factor.
_ORDER = 6.0


class Explained(NamedTuple):
    """A match with the precision as its last cause."""

    match: Match
    confidence: str


def explained(search: Search, match: Match, given: Candidate, problem: Problem) -> Explained | None:
    """Return what explains the rest of a model that is near, or None."""
    for find in (_rounded_inputs, _stored, _arithmetic, _finite_differences):
        found = find(search, match, given, problem)
        if found is not None:
            return found
    return None


def _rounded_inputs(search: Search, match: Match, given: Candidate, problem: Problem) -> Explained | None:
    """Return a match whose data or weights are rounded to a format: the Hessian of those is exact."""
    del given, problem
    base, model = match.base, match.model
    for format_ in FORMATS:
        data = _rounded_data(base.data, format_)
        weights = _rounded_weights(base.weights, format_)
        for which, taken in (
            ("the data and the weights", (data, weights)),
            ("the data", (data, base.weights)),
            ("the weights", (base.data, weights)),
        ):
            curvature = Curvature(taken[0], taken[1], base.selection.tensors, search.epsilon)
            product = search.product(curvature, model.part, model.index, model.sides)
            rest = search.products - model.factor * product - model.shift * search.vectors
            tried = dataclasses.replace(model, curvature=curvature)
            if float(np.linalg.norm(rest)) > 5.0 * tried.tolerance:
                continue
            entries = difference(search.matrix, tried, curvature.tensors)
            if entries.norm <= tried.tolerance:
                where = {"the data": "data", "the weights": "weights"}.get(which, "inputs")
                cause = Cause(f"{format_.name}-{where}", f"{which} are rounded to {format_.name}", format_.mend)
                return Explained(
                    Match((*match.causes, cause), tried, entries, base, match.order),
                    f"certain: with {which} rounded, all {model.size**2} entries agree to "
                    f"{entries.relative:.1g}, to rounding in "
                    "float64",
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


def _stored(search: Search, match: Match, given: Candidate, problem: Problem) -> Explained | None:
    """Return a match that was in float64 to the end, then rounded."""
    del given, problem
    matrix, model = search.matrix, match.model
    format_ = _grid_of(matrix)
    if format_ is None:
        return None
    slack = model.tolerance
    for at in chunks(len(matrix)):
        expected = model.rows(at)
        allowed = 2.0**-format_.bits * np.abs(expected) * (1 + 2.0 ** (1 - format_.bits)) + slack
        if (np.abs(matrix[at] - expected) > allowed).any():
            return None
    cause = Cause(
        f"{format_.name}-stored", f"the matrix is rounded to {format_.name} after everything else", format_.mend
    )
    stored = dataclasses.replace(model, bits=format_.bits)
    entries = difference(matrix, stored, model.curvature.tensors)
    return Explained(
        Match((*match.causes, cause), stored, entries, match.base, match.order),
        f"certain: all {model.size**2} entries are the nearest numbers of {format_.name}",
    )


def _grid_of(matrix: Values) -> Format | None:
    """Return the format with the fewest digits that all entries have, if any has fewer than float64."""
    for format_ in sorted(FORMATS, key=lambda one: (one.bits, one.product_bits)):
        if all(on_grid(matrix[at], format_.product_bits) for at in chunks(len(matrix))):
            return format_ if format_.name != "TF32" else FORMATS[0]
    return None


def _arithmetic(search: Search, match: Match, given: Candidate, problem: Problem) -> Explained | None:
    """Return a match computed in a format: the error has the size of doing the same, the entries have its digits."""
    model, base = match.model, match.base
    unscaled = search.matrix / model.factor if model.factor != 1.0 else search.matrix
    if _grid_of(search.matrix) is None and _grid_of(unscaled) is None and given.dtype.itemsize > 4:
        return None
    if model.part not in ("full", "gauss_newton", "layers") or len(base.data.terms) > 1:
        return None
    curvature = model.curvature
    reference = curvature.dense("full")
    error = match.found.relative
    sizes: list[tuple[float, Format]] = []
    for format_ in FORMATS:
        simulated = computed_in(format_, base.weights.net, base.data.terms[0][1], curvature.tensors)
        size = float(np.linalg.norm(simulated - reference) / np.linalg.norm(reference))
        if size > 0:
            sizes.append((abs(np.log(error / size)), format_))
    grid = _grid_of(search.matrix) or FORMATS[0]
    # Entries of a format with few digits were computed in it; entries of float32 may come from TF32 as well.
    fitting = [
        each for each in sizes
        if each[1].product_bits == grid.product_bits or (each[1].name == "bfloat16" and grid.bits == 24)
    ]  # fmt: skip
    if not fitting:
        return None
    off, format_ = min(fitting, key=lambda each: each[0])
    if off > np.log(_ORDER):
        return None
    del problem
    cause = Cause(f"{format_.name}-arithmetic", f"it was computed in {format_.name}", format_.mend)
    return Explained(
        Match((*match.causes, cause), model, match.found, base, match.order),
        f"high: the error is {np.exp(off):.2g} times that of the same Hessian computed in {format_.name} here, "
        "in one order of "
        f"operations of many, and all entries have the digits of {grid.name}; in float64 rounding would allow "
        f"{model.tolerance / (match.found.model or 1.0):.1g}",
    )


def _finite_differences(search: Search, match: Match, given: Candidate, problem: Problem) -> Explained | None:
    del given
    model, base = match.model, match.base
    if model.part != "full" or model.factor != 1.0 or base.causes or model.index is not None:
        return None
    loss = SquaredLoss(problem.loss.X, problem.loss.Y, problem.loss.kind, model.shift, backend=problem.loss.backend)
    names = [tensor.full_name for tensor in base.selection.tensors]
    where = positions(problem.net, select(problem.net, names))
    where = np.arange(problem.net.num_parameters) if where is None else where
    found = differences.find(search.matrix, model.toarray(), problem.net, loss, where)
    if found is None:
        return None
    entries = _after(search.matrix, model, found.correction)
    return Explained(
        Match((*match.causes, found.cause), model, entries, base, match.order),
        f"high: what is left, {entries.relative:.1g} of the norm, is rounding divided by the step, which allows "
        f"{found.allowed / (entries.model or 1.0):.1g}",
    )


def _after(matrix: Values, model: Model, correction: Values) -> Difference:
    """Return what is left of a difference after a correction of the model."""
    return difference(matrix - correction, model, model.curvature.tensors)


def hints(before: Difference, truth: Model, skewed: bool) -> list[str]:
    """Return what the size of an unexplained difference is reminiscent of."""
    notes: list[str] = []
    size = before.relative
    if size <= 1e-3:
        kind = (
            "fewer digits somewhere (float32 gives about 1e-7)" if not skewed else "finite differences or fewer digits"
        )
        notes.append(
            f"a relative difference of {size:.1g} has the size of {kind}, but neither the entries nor the "
            "pattern show it; "
            f"rounding in float64 would allow {truth.tolerance / (before.model or 1.0):.1g}"
        )
    return notes
