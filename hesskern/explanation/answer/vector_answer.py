"""Vectors with one entry for each parameter, given in place of a matrix or of eigenvalues."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern.explanation.answer.explanation import Explanation, Finding
from hesskern.explanation.given.candidate import Candidate, exponent_to
from hesskern.explanation.given.causes import Cause
from hesskern.explanation.given.orders import orders
from hesskern.explanation.given.question import Question
from hesskern.explanation.given.selections import Selection, shown, symbol
from hesskern.losses.squared import SquaredLoss

Values = NDArray[np.float64]

#: Rounding error of an entry, in units of the largest entry, in another order of operations.
_UNITS = 256.0

_EIGENVALUES = "numpy.linalg.eigvalsh(H) has the eigenvalues; compare a matrix (P, P)"


class _Vector(NamedTuple):
    """A known vector with one entry for each parameter, and a bound on its rounding error."""

    key: str
    words: str  # "the diagonal of"
    fix: str
    values: Values
    rounding: float


class _Shape(NamedTuple):
    """A candidate as a vector of some parameters, and the shape it had."""

    values: Values
    selection: Selection
    arranged: str


def explain_vector(candidate: Candidate, question: Question) -> Explanation | None:
    """Return what a vector, or an array in the shape of a weight, is; None if it is not a known one."""
    if candidate.kind == "number" or candidate.array.size < 2 or not np.isfinite(candidate.array).all():
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        for shape in _shapes(candidate.array, question):
            for vector in _vectors(question, shape.selection):
                answer = _compared(candidate, question, shape, vector)
                if answer is not None:
                    return answer
    return None


def has_shape_of(candidate: Candidate, question: Question) -> str:
    """Return the weight (or its transpose) that has the shape of an array, as a symbol; empty if no weight has."""
    shapes: dict[tuple[int, ...], str] = {}
    for tensor in question.everything.tensors:
        if len(tensor.shape) == 2:
            shapes.setdefault(tensor.shape, symbol(tensor))
            shapes.setdefault(tensor.shape[::-1], f"{symbol(tensor)}.T")
    return shapes.get(candidate.array.shape, "")


def _shapes(array: Values, question: Question) -> Iterator[_Shape]:
    if array.ndim == 1 or 1 in array.shape:
        for selection in question.selections:
            if selection.size == array.size:
                yield _Shape(array.ravel(), selection, "")
    if array.ndim == 1:
        return
    for selection in question.selections:
        if len(selection.tensors) == 1 and len(selection.tensors[0].shape) == 2:
            weight = symbol(selection.tensors[0])
            if array.shape == selection.tensors[0].shape:
                yield _Shape(array.ravel(), selection, f", in the shape of {weight}")
            if array.T.shape == selection.tensors[0].shape and array.size > 1:
                yield _Shape(array.T.ravel(), selection, f", in the shape of {weight}.T")


def _vectors(question: Question, selection: Selection) -> Iterator[_Vector]:
    """Yield the known vectors of some parameters."""
    net, decay = question.net, question.decay
    own = question.truth_of(selection)
    ones = np.ones((own.size, 1))
    of = f"the Hessian with respect to {shown(selection.tensors)}"
    yield _Vector("diagonal", f"the diagonal of {of}", "compare with H.diagonal(): " + _EIGENVALUES,
                  own.diagonal + decay, own.rounding)  # fmt: skip
    sums = "differentiate one entry of the gradient at a time: autograd.grad of a sum of gradients adds the rows up"
    yield _Vector("row-sums", f"the sums of the rows of {of}", sums, own.product("full", ones)[:, 0] + decay,
                  own.rounding * float(np.sqrt(own.size)))  # fmt: skip
    everything = question.everything
    positions = np.concatenate([
        np.arange(whole.start, whole.stop)
        for tensor in selection.tensors
        for whole in everything.tensors
        if whole.full_name == tensor.full_name
    ])  # fmt: skip
    theta = net.flatten()
    full = SquaredLoss(question.loss.X, question.loss.Y, question.loss.kind, decay, backend=question.loss.backend)
    gradient = full.gradient(net)
    noise = own.rounding * float(np.linalg.norm(theta))  # the gradient is made of terms as large as H theta
    where = shown(selection.tensors)
    yield _Vector("gradient", f"the gradient with respect to {where}", "differentiate it once more: loss.hessian(net)",
                  gradient[positions], noise)  # fmt: skip
    if decay:
        yield _Vector("gradient", f"the gradient with respect to {where}, without weight decay",
                      "differentiate it once more: loss.hessian(net)", (gradient - decay * theta)[positions],
                      noise)  # fmt: skip
        yield _Vector("diagonal", f"the diagonal of {of}, without weight decay", _EIGENVALUES, own.diagonal,
                      own.rounding)  # fmt: skip
    yield _Vector("parameters", f"the parameters {where} themselves",
                  "take the second derivatives with respect to them: loss.hessian(net)", theta[positions],
                  0.0)  # fmt: skip
    if len(everything.tensors) > len(selection.tensors):
        whole_sums = question.truth_of(everything).product("full", np.ones((everything.size, 1)))[:, 0] + decay
        yield _Vector("row-sums", f"the sums of the rows of the whole Hessian, those of {where}", sums,
                      whole_sums[positions], own.rounding * float(np.sqrt(everything.size)))  # fmt: skip


def _compared(candidate: Candidate, question: Question, shape: _Shape, vector: _Vector) -> Explanation | None:
    array, size = shape.values, float(np.linalg.norm(vector.values))
    if exponent_to(array, size):
        return None  # products with numbers of a far different size are not exact
    stored = float(np.finfo(np.dtype(candidate.dtype.str)).eps) if candidate.dtype.kind == "f" else 0.0
    unit = max(stored, question.epsilon)
    if not 0.0 < size < np.inf or size <= 100.0 * vector.rounding:
        return None
    for order in orders(shape.selection.tensors):
        expected = vector.values if order.source is None else vector.values[order.source]
        factor = float(np.vdot(expected / size, array)) / size
        if not np.isfinite(factor) or factor == 0.0:
            continue
        slack = abs(factor) * (vector.rounding + _UNITS * unit * size)
        if abs(factor - 1.0) <= slack / size or (len(array) < 3 and not question.scales.names(factor, 1e-9, 1)):
            factor = 1.0
        if float(np.linalg.norm(array - factor * expected)) <= slack:
            scale = (
                () if factor == 1.0 else (question.scales.cause(factor, max(slack / size, 1e-14), question.samples),)
            )
            return _answer(candidate, question, shape, vector, (*order.causes, *scale))
    return None


def _answer(
    candidate: Candidate, question: Question, shape: _Shape, vector: _Vector, more_causes: tuple[Cause, ...]
) -> Explanation:
    findings = [Finding(vector.key, f"it is {vector.words}{shape.arranged}", vector.fix)]
    findings += [Finding(cause.key, cause.words, cause.fix, cause.also) for cause in more_causes]
    causes_text = "".join(f"; {cause.words}" for cause in more_causes)
    denial = "this is not a Hessian" if candidate.kind == "matrix" else "these are not eigenvalues"
    return Explanation(
        "explained",
        f"{denial}, but {vector.words}{shape.arranged}{causes_text}.",
        tuple(findings),
        confidence=f"certain: all {candidate.array.size} entries agree to rounding",
        _corrected=question.true_matrix if candidate.kind == "matrix" else question.true_spectrum,
    )
