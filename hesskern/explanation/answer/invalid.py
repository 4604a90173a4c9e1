"""Candidates that cannot be compared: NaN, infinities, and sizes that fit no parameters."""

from __future__ import annotations

from typing import Any

import numpy as np

from hesskern.explanation.answer.explanation import Explanation, Finding
from hesskern.explanation.answer.vector_answer import has_shape_of
from hesskern.explanation.given.candidate import Candidate, bad_entries
from hesskern.explanation.given.question import Question
from hesskern.explanation.given.selections import Selection, shown, symbol

#: Largest entry: norms are sums of squares, and relative differences of 1e-16 matter.
_SQUARABLE = 1e120


def invalid(candidate: Candidate, question: Question) -> Explanation | None:
    """Return why nothing can be compared, or None."""
    corrected = question.true_matrix if candidate.kind == "matrix" else question.true_spectrum
    return (
        _not_finite(candidate, question, corrected)
        or _out_of_range(question)
        or _of_no_parameters(candidate, question, corrected)
    )


def _not_finite(candidate: Candidate, question: Question, corrected: Any) -> Explanation | None:
    array, selection = candidate.array, question.selection
    bad = bad_entries(array)
    if not len(bad):
        return None
    words = f"{len(bad)} of {array.size} values are NaN or infinite, the first at {tuple(map(int, bad[0]))}"
    fix = "look for a division by zero, an overflow (float16 ends at 65504), or numpy.linalg of a singular matrix"
    residual = question.loss(question.net)
    small = residual <= 1e-24 * max(1.0, float(np.vdot(question.loss.Y, question.loss.Y)))
    if candidate.kind == "matrix" and (small or len(bad) == array.size):
        fix = (
            "use ((prediction - Y) ** 2).sum(): torch.norm(prediction - Y) ** 2 has no second derivative where the "
            "residual is exactly zero, and autograd gives NaN"
        )
    rows = sorted({int(index[0]) for index in bad})
    where = f"rows {', '.join(map(str, rows[:5]))}{', ...' if len(rows) > 5 else ''}"
    notes = [f"they are in {where} ({len(rows)} of {len(array)} rows)"]
    if candidate.kind == "matrix" and array.shape == (selection.size, selection.size):
        blocks = sorted({(_tensor_at(selection, int(r)), _tensor_at(selection, int(c))) for r, c in bad})
        notes.append("in the blocks " + ", ".join(f"{a} x {b}" for a, b in blocks[:6]))
    finding = Finding("not-finite", words, fix)
    verdict = f"the {candidate.kind} contains NaN or infinities; a Hessian does not."
    return Explanation("invalid", verdict, (finding,), notes=tuple(notes), _corrected=corrected)


def _out_of_range(question: Question) -> Explanation | None:
    """Return an answer if the Hessian itself is too large or too small to be compared with anything."""
    largest = float(np.abs(question.truth().diagonal).max())
    if largest == 0.0 or 1.0 / _SQUARABLE <= largest <= _SQUARABLE:
        return None
    size = "large: their squares overflow" if not largest < 1.0 else "small: their squares underflow"
    words = f"the Hessian of this network and loss has entries of {largest:.2g}, too {size} in float64"
    fix = "multiply X, Y and the biases by a power of two, which multiplies the Hessian of the weights by its square"
    verdict = "the Hessian of this network and loss is out of the range in which matrices can be compared."
    return Explanation("invalid", verdict, (Finding("out-of-range", words, fix),))


def _of_no_parameters(candidate: Candidate, question: Question, corrected: Any) -> Explanation | None:
    array = candidate.array
    if candidate.kind == "spectrum":
        if len(array) > max(selection.size for selection in question.selections):
            return _wrong_size(f"{len(array)} eigenvalues", question, corrected)
        return None
    rows_count, columns = array.shape
    weight = has_shape_of(candidate, question)
    if rows_count != columns:
        return _wrong_size(f"a {rows_count} x {columns} matrix, which is not square,", question, corrected, weight)
    if not any(selection.size == rows_count for selection in question.selections):
        return _wrong_size(f"a {rows_count} x {rows_count} matrix", question, corrected, weight)
    return None


def _tensor_at(selection: Selection, index: int) -> str:
    return next(symbol(tensor) for tensor in selection.tensors if index < tensor.stop)


def _wrong_size(description: str, question: Question, corrected: Any, weight: str = "") -> Explanation:
    fitting = [f"{selection.size} for {shown(selection.tensors)}" for selection in question.selections]
    requested = question.selection
    net, samples, outputs = question.net, question.scales.samples, question.scales.outputs
    meanings = {
        samples * outputs: "N*o, the size of J @ J.T (the tangent kernel)",
        samples: "N, the size of a kernel matrix",
    }
    inputs_outputs = net.widths[0] * outputs
    meanings.setdefault(inputs_outputs, "inputs times outputs, the size of a matrix of the end-to-end map W_L ... W_1")
    meanings |= {width: f"the width {width} of a layer, the size of one Kronecker factor" for width in net.widths}
    sizes = [int(word) for word in description.split() if word.isdigit()]
    notes = [f"{size} is {meanings[size]}" for size in dict.fromkeys(sizes) if size in meanings]
    cause = Finding(
        "wrong-size",
        f"{description} fits no parameters of this network; sizes that would fit: {', '.join(fitting)}",
        f"take the derivatives of {shown(requested.tensors)}: size {requested.size}",
    )
    if weight:
        notes.append(
            f"this is the shape of {weight}; it is neither {weight} itself, nor its gradient, nor the diagonal or the "
            "row sums of a Hessian"
        )
    if sizes == [requested.size**2]:
        notes.append(
            f"this is {requested.size} squared: a flattened Hessian becomes a matrix by reshape({requested.size}, -1)"
        )
    verdict = f"expected size {requested.size} for {shown(requested.tensors)}, not {description.removesuffix(',')}."
    return Explanation("invalid", verdict, (cause,), notes=tuple(notes), _corrected=corrected)
