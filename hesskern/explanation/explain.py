"""`hesskern.explain`: checks what was given, searches, and says what was found."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern import checks
from hesskern.explanation import candidate as given_as
from hesskern.explanation import precision, steps
from hesskern.explanation.answer import Alternative, Explanation, Finding, Matrices, Remainder
from hesskern.explanation.candidate import Candidate
from hesskern.explanation.causes import Cause, listed
from hesskern.explanation.curvature import Curvature, Difference, Model, difference
from hesskern.explanation.numbers import NAMES, QUANTITIES, Numbers, Quantity
from hesskern.explanation.scales import Scales
from hesskern.explanation.search import Match, Search
from hesskern.explanation.selections import Selection, selections, shown, symbol
from hesskern.explanation.spectra import spectrum_matches
from hesskern.explanation.variants import data_variants, weight_variants
from hesskern.loss import SquaredLoss
from hesskern.network import LinearNetwork
from hesskern.selection import select

#: Probability of a chance match up to which a bare number counts as explained.
_CHANCE = 0.05


def explain(
    candidate: object,
    net: LinearNetwork,
    loss: SquaredLoss,
    params: Sequence[int | str] | None = None,
    *,
    quantity: Quantity | None = None,
    trajectory: Sequence[LinearNetwork] = (),
    lr: float | None = None,
    batch_size: int | None = None,
) -> Explanation:
    r"""Say why a Hessian that somebody computed is not the Hessian.

    Tries what usually goes wrong, alone and together: transposed data, targets or weights, swapped layers, other orders of
    the parameters, constant factors, parts of the Hessian, weight decay, other weights, parts of the data, lower precision
    and finite differences. A cause is reported only if it brings the difference down to rounding.

    Parameters
    ----------
    candidate : (P, P) array, (P,) array, or number
        A dense matrix (Hessian, block, Gauss-Newton matrix), all or all nonzero eigenvalues in any order, or one number: a
        condition number, rank or largest eigenvalue. A number may be text: its digits say how precise it is.
    net : LinearNetwork
    loss : SquaredLoss
        What the Hessian should have been of.
    params : sequence of int or str, optional
        With respect to which parameters, as in ``loss.hessian(net, params)``.
    quantity : {"condition", "rank", "largest"}, optional
        What a number is; default: any of them.
    trajectory : sequence of LinearNetwork, optional
        Networks before and after, during training for instance, that the candidate may have been taken at.
    lr : float, optional
        Learning rate of a full-batch step that the weights may be off by; otherwise it is estimated.
    batch_size : int, optional
        Of the minibatches that were used; otherwise the usual ones are tried.

    Returns
    -------
    Explanation
        ``print`` it; or `status`, `verdict`, `findings`, `corrected`, ``as_dict()``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be. A candidate that holds NaN, or has a size that no parameters have, is not
        refused but explained.
    MemoryError
        If a second matrix of the candidate's size does not fit in memory.

    Notes
    -----
    Sorted diagonals and products with random vectors exclude nearly everything at O(P) each, so the candidate is read a few
    times only: O(P²).

    Examples
    --------
    >>> import numpy as np, hesskern as hk
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.standard_normal((4, 4)), rng.standard_normal((4, 2))
    >>> net, loss = hk.LinearNetwork.random([4, 3, 2], seed=0), hk.SquaredLoss(X, Y)
    >>> theirs = hk.SquaredLoss(X.T.copy(), Y).hessian(net).toarray()
    >>> why = hk.explain(theirs, net, loss)
    >>> why.status, [finding.cause for finding in why.findings]
    ('explained', ['X-transposed'])
    >>> why.findings[0].mend
    'use W1 @ X.T, not W1 @ X (and X.T @ X for X @ X.T): samples are rows, as nn.Linear takes them'
    """
    problem = Problem(net, loss, params, trajectory, lr, batch_size)
    if quantity is not None:
        checks.one_of(quantity, "quantity", QUANTITIES)
    given = given_as.read(candidate)
    if quantity is not None and given.kind != "number":
        raise ValueError(f"quantity is {quantity!r}, but the candidate is a {given.kind}; it goes with a number.")
    if given.kind == "number":
        return _explain_number(given, problem, quantity)
    invalid = _invalid(given, problem)
    if invalid is not None:
        return invalid
    return _explain_spectrum(given, problem) if given.kind == "spectrum" else _Matrix(given, problem).explain()


class Problem:
    """Everything but the candidate, in float64 and without weight decay, which is put back as a shift."""

    def __init__(
        self,
        net: LinearNetwork,
        loss: SquaredLoss,
        params: Sequence[int | str] | None,
        trajectory: Sequence[LinearNetwork],
        lr: float | None,
        batch_size: int | None,
    ) -> None:
        if not isinstance(loss, SquaredLoss):
            raise TypeError(f"loss is a {type(loss).__name__}; expected a hesskern.SquaredLoss.")
        loss.check_network(net)
        asked = select(net, params)
        self.epsilon = float(np.finfo(net.dtype).eps)
        self.net = _precise(net)
        self.loss = SquaredLoss(_float64(loss.X), _float64(loss.Y), loss.kind, backend=loss.backend)
        self.decay = loss.weight_decay
        others: list[LinearNetwork] = []
        if isinstance(trajectory, LinearNetwork):
            trajectory = [trajectory]
        for at, other in enumerate(trajectory):
            if not isinstance(other, LinearNetwork) or other.parameter_names != net.parameter_names or (
                other.widths != net.widths
            ):
                raise ValueError(f"trajectory[{at}] is {other!r}; expected a network like net, {net!r}.")
            others.append(_precise(other))
        if batch_size is not None:
            batch_size = min(checks.integer(batch_size, "batch_size", 1), len(loss.X))
        self.rate = None if lr is None else checks.positive(lr, "lr")
        self.scales = Scales(len(loss.X), loss.Y.shape[1], loss.kind, self.decay, batch_size)
        self.data = data_variants(self.loss, batch_size)
        self.weights = weight_variants(self.net, others)
        if self.rate is not None:
            self.weights += steps.known(self.net, self.loss, self.decay, self.rate)
        self.selections = selections(self.net, asked)

    @property
    def asked(self) -> Selection:
        """The parameters asked for."""
        return self.selections[0]

    def truth(self) -> Curvature:
        """Return the Hessian asked for, without weight decay."""
        return Curvature(self.data[0], self.weights[0], self.asked.tensors, self.epsilon)

    def true_matrix(self) -> NDArray[np.float64]:
        """Return the Hessian asked for."""
        return Model(self.truth(), shift=self.decay).toarray()


def _float64(array: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(array, dtype=np.float64)


def _precise(net: LinearNetwork) -> LinearNetwork:
    if net.dtype == np.float64:
        return net
    return LinearNetwork(
        [_float64(weight) for weight in net.weights], [None if b is None else _float64(b) for b in net.biases]
    )


def _invalid(given: Candidate, problem: Problem) -> Explanation | None:
    """Return why nothing can be compared, or None."""
    array, asked = given.array, problem.asked
    bad = given_as.bad_entries(array)
    corrected = problem.true_matrix if given.kind == "matrix" else partial(_true_spectrum, problem)
    if len(bad):
        words = f"{len(bad)} of {array.size} values are NaN or infinite, the first at {tuple(map(int, bad[0]))}"
        mend = "look for a division by zero, an overflow (float16 ends at 65504), or numpy.linalg of a singular matrix"
        residual = problem.loss(problem.net)
        small = residual <= 1e-24 * max(1.0, float(np.vdot(problem.loss.Y, problem.loss.Y)))
        if given.kind == "matrix" and (small or len(bad) == array.size):
            mend = (
                "use ((prediction - Y) ** 2).sum(): torch.norm(prediction - Y) ** 2 has no second derivative where the "
                "residual is exactly zero, and autograd gives NaN"
            )
        rows = sorted({int(index[0]) for index in bad})
        where = f"rows {', '.join(map(str, rows[:5]))}{', ...' if len(rows) > 5 else ''}"
        notes = [f"they stand in {where} ({len(rows)} of {len(array)} rows)"]
        if given.kind == "matrix" and array.shape == (asked.size, asked.size):
            blocks = sorted({(_tensor_at(asked, int(r)), _tensor_at(asked, int(c))) for r, c in bad})
            notes.append("in the blocks " + ", ".join(f"{a} x {b}" for a, b in blocks[:6]))
        finding = Finding("not-finite", words, mend)
        verdict = f"the {given.kind} holds NaN or infinities, so it is nobody's Hessian."
        return Explanation("invalid", verdict, (finding,), notes=tuple(notes), _corrected=corrected)
    if given.kind == "spectrum":
        if len(array) > max(selection.size for selection in problem.selections):
            return _wrong_size(f"{len(array)} eigenvalues", problem, corrected)
        return None
    rows_count, columns = array.shape
    if rows_count != columns:
        return _wrong_size(f"a {rows_count} x {columns} matrix, which is not square,", problem, corrected)
    if not any(selection.size == rows_count for selection in problem.selections):
        return _wrong_size(f"a {rows_count} x {rows_count} matrix", problem, corrected)
    return None


def _tensor_at(selection: Selection, index: int) -> str:
    return next(symbol(tensor) for tensor in selection.tensors if index < tensor.stop)


def _wrong_size(what: str, problem: Problem, corrected: Any) -> Explanation:
    fitting = [f"{each.size} for {shown(each.tensors)}" for each in problem.selections]
    asked = problem.asked
    net, samples, outputs = problem.net, problem.scales.samples, problem.scales.outputs
    others = {samples * outputs: "N*o, the size of J @ J.T (the tangent kernel)", samples: "N, that of a kernel matrix"}
    others |= {width: f"the width {width} of a layer, that of one Kronecker factor" for width in net.widths}
    sizes = [int(word) for word in what.split() if word.isdigit()]
    notes = [f"{size} is {others[size]}" for size in dict.fromkeys(sizes) if size in others]
    cause = Finding(
        "wrong-size",
        f"{what} belongs to no parameters of this network; sizes that would fit: {', '.join(fitting)}",
        f"take the derivatives of {shown(asked.tensors)}: size {asked.size}",
    )
    verdict = f"{what} was given; expected size {asked.size} for {shown(asked.tensors)}."
    return Explanation("invalid", verdict, (cause,), notes=tuple(notes), _corrected=corrected)


# Numbers --------------------------------------------------------------------------------------------------------------


def _explain_number(given: Candidate, problem: Problem, quantity: Quantity | None) -> Explanation:
    numbers = Numbers(
        given, problem.loss, problem.data, problem.weights, problem.selections, problem.scales, problem.epsilon, quantity
    )
    truth = numbers.truth()
    value, which = numbers.value, shown(problem.asked.tensors)
    if math.isnan(value):
        return Explanation("invalid", "the number is NaN.", notes=(_truths(truth),), _corrected=lambda: truth)
    found = numbers.matches()
    kind = found[0].quantity if found else quantity or "condition"
    expected = truth[kind]
    corrected = {"_corrected": lambda: expected}
    before = abs(value - expected) / max(abs(value), abs(expected)) if math.isfinite(value) and expected else math.inf
    if not found:
        return Explanation(
            "unexplained",
            f"no known cause: {value:.10g} is no condition number, rank or largest eigenvalue that was tried.",
            before=before,
            after=before,
            notes=(_truths(truth),),
            **corrected,
        )
    if not found[0].causes:
        names = listed([NAMES[match.quantity] for match in found])
        verdict = f"{value:.10g} is the {names} of the Hessian with respect to {which} ({found[0].value:.10g})."
        return Explanation("match", verdict, before=before, after=before, notes=(_truths(truth),), **corrected)
    chance = 0.0 if found[0].causes[0].key == "noise" else numbers.chance()
    first, *others = found
    findings = tuple(
        Finding(
            cause.key, cause.words, cause.mend, cause.also, before, abs(first.value / value - 1) if value else None, value, expected
        )
        for cause in first.causes
    )
    sentence = " and ".join(cause.words for cause in first.causes)
    alternatives = tuple(
        Alternative(
            _keys(match.causes), f"the {NAMES[match.quantity]}, {match.value:.10g}: {_sentence(match.causes)}"
        )
        for match in others
    )
    verdict = f"{value:.10g} is the {NAMES[kind]} where {sentence}; that of the Hessian is {expected:.10g}."
    if first.causes[0].key == "noise":
        verdict = f"{value:.3g} means nothing, for {sentence}; the condition number is {expected:.10g}."
    status, confidence = "explained", "one number only; "
    if chance > _CHANCE or (first.quantity == "rank" and len(found) + len(numbers.matches()) > 2):
        status = "unexplained"
        verdict = f"no certain cause: {value:.10g} would be the {NAMES[kind]} where {sentence}, or chance."
    confidence += f"the probability that something tried has these digits by chance is {chance:.1g}"
    return Explanation(
        status,  # type: ignore[arg-type]
        verdict,
        findings if status == "explained" else (),
        confidence=confidence if chance else "certain: no digit of such a number means anything",
        alternatives=alternatives if status == "explained" else (Alternative(_keys(first.causes), sentence), *alternatives),
        before=before,
        after=abs(first.value - value) / abs(value) if value and math.isfinite(value) else 0.0,
        notes=(_truths(truth),),
        **corrected,
    )


def _truths(truth: dict[str, float]) -> str:
    return (
        f"of the Hessian: condition number {truth['condition']:.10g}, rank {truth['rank']:.0f}, largest eigenvalue "
        f"{truth['largest']:.10g}"
    )


# Spectra --------------------------------------------------------------------------------------------------------------


def _true_spectrum(problem: Problem) -> NDArray[np.float64]:
    return problem.truth().eigenvalues("full") + problem.decay


def _explain_spectrum(given: Candidate, problem: Problem) -> Explanation:
    found = spectrum_matches(
        given.array, problem.data, problem.weights, problem.selections, problem.scales, problem.epsilon
    )
    expected = _true_spectrum(problem)
    values = np.sort(given.array)
    largest = float(np.abs(values).max()), float(np.abs(expected).max())
    same = len(expected) == len(values)
    before = float(np.linalg.norm(values - expected)) / max(map(float, map(np.linalg.norm, (values, expected)))) if same else None
    of = f"the Hessian with respect to {shown(problem.asked.tensors)}"
    if not found:
        at = int(np.abs(values - expected).argmax()) if same else None
        note = () if at is None else (f"the largest difference is in eigenvalue {at}: {values[at]:.10g}, not {expected[at]:.10g}",)
        return Explanation(
            "unexplained", f"no known cause: these are not the eigenvalues of {of}, nor of anything that was tried.",
            before=before, after=before, notes=note, _corrected=lambda: expected,
        )  # fmt: skip
    best = found[0]
    if not best.causes:
        return Explanation(
            "match", f"these are the eigenvalues of {of}.", before=before, after=best.error, _corrected=lambda: expected
        )
    findings = tuple(
        Finding(cause.key, cause.words, cause.mend, cause.also, before, best.error, *largest) for cause in best.causes
    )
    return Explanation(
        "explained",
        f"these are the eigenvalues of {of} where {' and '.join(cause.words for cause in best.causes)}.",
        findings,
        confidence="all eigenvalues agree to rounding; the order of the parameters leaves no trace in them",
        alternatives=tuple(Alternative(_keys(match.causes), _sentence(match.causes)) for match in found[1:]),
        before=before,
        after=best.error,
        _corrected=lambda: expected,
    )


# Matrices -------------------------------------------------------------------------------------------------------------


class _Matrix:
    """The search for one matrix, and what is said of it."""

    def __init__(self, given: Candidate, problem: Problem) -> None:
        self._given, self._problem = given, problem
        self._symmetry = given_as.symmetry(given.array)
        self._matrix, self._triangle = given.array, self._symmetry.triangle
        if self._triangle:
            mirrored = given.array + given.array.T
            mirrored[np.diag_indices_from(mirrored)] = given.array.diagonal()
            self._matrix = mirrored
        self._truth = Model(problem.truth(), shift=problem.decay)
        norm = float(np.linalg.norm(self._matrix))
        self._skewed = not self._triangle and self._symmetry.skew > max(self._truth.tolerance, 1e-14 * norm)

    def _search(self, problem_weights: Sequence[Any] | None = None) -> Search:
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
        found = search.matches()
        if not found and problem.rate is None and not self._skewed:
            for variant in steps.estimated(search, problem.net, problem.loss, problem.decay):
                stepped = self._search([problem.weights[0], variant])
                found = [match for match in stepped.matches() if variant in (match.base.weights,)]
                search = stepped if found else search
        if found:
            return self._explained(search, found, "")
        near = search.near()
        for match in near[:3]:
            better = precision.explained(search, match, self._given, problem)
            if better is not None:
                return self._explained(search, [better.match], better.confidence)
        return self._unexplained(
            "no known cause: nothing that was tried brings the difference down to rounding.", near[0] if near else None
        )

    def _before(self) -> Difference | None:
        if len(self._given.array) != self._truth.size:
            return None
        return difference(self._given.array, self._truth, self._problem.asked.tensors)

    def _explained(self, search: Search, found: list[Match], confidence: str) -> Explanation:
        problem, best = self._problem, found[0]
        if not best.base.causes:  # its dense matrix is there
            self._truth = Model(best.model.curvature, shift=problem.decay)
        causes, after = best.causes, best.found
        if self._triangle:
            causes = (*causes, _triangle(self._triangle))
            model = dataclasses.replace(best.model, triangle=self._triangle)
            after = difference(self._given.array, model, best.model.curvature.tensors)
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
                cause.mend,
                cause.also,
                overall if len(causes) == 1 else self._without(search, best, cause),
                after.relative,
                yours,
                expected,
            )
            for cause in causes
        )
        rest = f": {_sentence(causes)}"
        return Explanation(
            "explained",
            f"this is the Hessian with respect to {shown(best.base.selection.tensors)}, but{rest[1:]}.",
            findings,
            confidence=confidence or _certainty(after, model),
            alternatives=tuple(Alternative(_keys(match.causes), _sentence(match.causes)) for match in found[1:]),
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
        return search.without(best, cause)

    def _matrices(self, model: Model | None) -> Matrices:
        tensors = self._problem.asked.tensors if model is None else model.curvature.tensors
        fits = len(self._given.array) == self._truth.size
        return Matrices(
            self._given.array,
            self._truth.toarray if fits else None,
            None if model is None else model.toarray,
            tuple(map(symbol, tensors)),
            tuple(tensor.start for tensor in tensors),
        )

    def _unexplained(self, verdict: str, near: Match | None) -> Explanation:
        problem, before = self._problem, self._before()
        notes: list[str] = []
        norm = float(np.linalg.norm(self._matrix))
        if self._skewed:
            notes.append(
                f"the matrix is not symmetric: its skew part is {self._symmetry.skew / norm:.2g} of its norm; a Hessian is "
                "symmetric to rounding"
            )
        if near is not None and near.found.relative < (before.relative if before else math.inf):
            words = _sentence(near.causes) if near.causes else "the Hessian itself"
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
        return Remainder(
            error=found.relative,
            block=(symbol(tensors[int(at[0])]), symbol(tensors[int(at[1])])),
            share=float((found.blocks[at] / found.norm) ** 2) if found.norm else 0.0,
            rows=tuple(map(int, rows)),
            entry=found.where,
            yours=float(self._given.array[found.where]),
            expected=self._truth_at(found.where),
        )


def _keys(causes: Sequence[Cause]) -> tuple[str, ...]:
    return tuple(cause.key for cause in causes)


def _sentence(causes: Sequence[Cause]) -> str:
    return "; ".join(cause.words for cause in causes)


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
