"""Values, gradients, products and dense matrices, and the choice of the comparisons for a problem."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hesskern.losses.squared import KINDS
from hesskern.validation.case import Matrix
from hesskern.validation.comparison import Check, Comparison
from hesskern.validation.eigen_checks import eigen_checks
from hesskern.validation.evidence import Evidence, Subject, Witness
from hesskern.validation.rounding import Bounds, ErrorBound, combined, norm, square
from hesskern.validation.training_checks import training_checks

#: Most entries of a block that is written out if the whole matrix is not.
_LARGEST_BLOCK = 4_000_000

MODES = {"block": "H", "gauss_newton": "Gauss-Newton", "functional": "functional part"}
GROUPS = {"block": "Hessian", "gauss_newton": "Gauss-Newton part", "functional": "functional part"}


def checks_of(evidence: Evidence) -> list[Check]:
    """Return all comparisons for a problem, for any backend."""
    checks: list[Check] = [*_values(evidence), *_other_losses(evidence)]
    for mode in MODES:
        checks += _products(evidence, mode)
        if evidence.dense if mode == "block" else evidence.dense_jacobian:
            checks += _dense(evidence, mode)
        checks += _blocks(evidence, mode)
    checks += _diagonals(evidence)
    checks += eigen_checks(evidence)
    checks += training_checks(evidence)
    return checks


# Errors of the third witness -----------------------------------------------------------------------------------------


def exact_value(evidence: Evidence) -> float:
    """Return the third witness's error for values: as in float64, or far less."""
    return evidence.autograd_bounds.prediction.error * evidence.differences.unit / evidence.autograd.unit


def _dense_curvature(evidence: Evidence) -> float | None:
    return evidence.differences.curvature_error if evidence.dense_differences else None


# Values and first derivatives -----------------------------------------------------------------------------------------


def _values(evidence: Evidence) -> Iterator[Check]:
    problem = evidence.problem
    yield Comparison(
        "prediction",
        "prediction",
        lambda s, e: s.net.forward(s.problem.loss.X, backend=s.backend),
        lambda e, w: w.prediction(),
        lambda e, b: ErrorBound(b.prediction.size, b.prediction.error),
        exact_value,
        label=lambda e, at: f"sample {at[0]}, output {at[1]}",
    )
    yield _loss(f"loss, {problem.kind}", lambda s, e: s.loss(s.net))
    yield _loss("loss, with the gradient", lambda s, e: s.loss.value_and_gradient(s.net)[0])
    for name, where in problem.names.items():
        yield _gradient(f"gradient of {name}", where, int(name.split(".")[0]))


def _loss(quantity: str, computed: Callable[[Subject, Evidence], float]) -> Comparison:
    return Comparison(
        "loss",
        quantity,
        computed,
        lambda e, w: w.loss(),
        _loss_part,
        lambda e: e.autograd_bounds.loss(e.autograd.loss()) * e.differences.unit / e.autograd.unit,
    )


def _loss_part(evidence: Evidence, bounds: Bounds) -> ErrorBound:
    terms = 0.5 * bounds.scale * square(bounds.residual.size)
    return ErrorBound(terms, bounds.loss(evidence.autograd.loss()))


def _gradient(quantity: str, where: slice, layer: int) -> Comparison:
    return Comparison(
        "gradient",
        quantity,
        lambda s, e: s.loss.gradient(s.net)[where],
        lambda e, w: w.gradient()[where],
        lambda e, b: b.gradient(layer),
        lambda e: e.differences.gradient_error,
        label=lambda e, at: e.problem.parameter(where.start + at[0]),
    )


def _other_losses(evidence: Evidence) -> Iterator[Check]:
    """Yield the other kinds of loss on the same data, and the same kind with weight decay switched on or off."""
    problem = evidence.problem
    decay = 0.0 if problem.decay else 0.1
    for kind, own in [*((kind, problem.decay) for kind in KINDS if kind != problem.kind), (problem.kind, decay)]:
        other = evidence.kept(("other loss", kind, own), functools.partial(_with_loss, evidence, kind, own))
        name = kind if own == problem.decay else f"{kind}, weight decay {own:g}"
        yield _Elsewhere(_loss(f"loss, {name}", lambda s, e: s.loss(s.net)), other)
        yield _Elsewhere(_whole_gradient(f"gradient, {name}"), other)
        yield _Elsewhere(_product(f"H @ v, {name}", "block", "losses", 1), other)


def _with_loss(evidence: Evidence, kind: str, decay: float) -> Evidence:
    return Evidence(evidence.problem.with_loss(kind, decay), 1, 0, 0)


class _Elsewhere:
    """A comparison for the same network with another loss."""

    def __init__(self, check: Comparison, evidence: Evidence) -> None:
        self._check, self._evidence = check, evidence
        self.group, self.quantity, self.method = "other losses", check.quantity, check.method

    def find(self, subject: Subject, evidence: Evidence) -> Any:
        """Compare."""
        del evidence
        return self._check.find(Subject(self._evidence.problem, subject.backend), self._evidence)


def _whole_gradient(quantity: str) -> Comparison:
    return Comparison(
        "gradient",
        quantity,
        lambda s, e: s.loss.gradient(s.net),
        lambda e, w: w.gradient(),
        lambda e, b: b.whole_gradient,
        lambda e: e.differences.gradient_error,
        label=lambda e, at: e.problem.parameter(at[0]),
    )


# Products -------------------------------------------------------------------------------------------------------------


def directions(count: int) -> str:
    """Return how a matrix was sampled, in words."""
    return f"{count} direction{'s' if count > 1 else ''}"


def times(vectors: list[Matrix], part: ErrorBound, bounds: Bounds) -> ErrorBound:
    """Return the bounds of products with several vectors, the entries of each independent of the rounding errors.

    The product of a matrix E with a random vector of unit variance has length about ``‖E‖_F``. It hardly ever has 8
    times that length, and never more than the vector's own length times that.
    """
    lengths = []
    for vector in vectors:
        length = norm(vector)
        lengths.append(min(length, 8.0 * length / math.sqrt(np.count_nonzero(vector))))
    total = math.hypot(*lengths)
    return ErrorBound(part.size * total, bounds.product(part) * total)


def _length(vectors: list[Matrix]) -> float:
    return math.hypot(*(norm(vector) for vector in vectors))


def _product(quantity: str, mode: str, group: str, count: int, *, together: bool = False) -> Comparison:
    def computed(subject: Subject, evidence: Evidence) -> Any:
        operator, kind, vectors = subject.mode(mode), subject.net.dtype, evidence.vectors
        if together:
            return (operator @ np.stack(vectors, axis=1).astype(kind)).T
        return np.array([operator @ vector.astype(kind) for vector in vectors])

    return Comparison(
        group,
        quantity,
        computed,
        lambda e, w: np.array([e.product(w, mode, vector) for vector in e.vectors]),
        lambda e, b: times(e.vectors, e.part(b, mode), b),
        lambda e: e.differences.product_error * _length(e.vectors),
        method=directions(count),
        label=lambda e, at: e.problem.parameter(at[1]),
    )


def _products(evidence: Evidence, mode: str) -> Iterator[Check]:
    name, count = MODES[mode], len(evidence.vectors)
    yield _product(f"{name} @ v", mode, "products", count)
    if mode == "block":
        yield _product(f"{name} @ V", mode, "products", count, together=True)


# Dense matrices -------------------------------------------------------------------------------------------------------


def _entry(rows: slice, columns: slice) -> Callable[[Evidence, tuple[int, ...]], str]:
    return lambda e, at: f"({e.problem.parameter(rows.start + at[0])}, {e.problem.parameter(columns.start + at[1])})"


def _dense(evidence: Evidence, mode: str) -> Iterator[Check]:
    everything = slice(0, evidence.problem.size)
    yield Comparison(
        GROUPS[mode],
        f"{MODES[mode]}, dense",
        lambda s, e: s.mode(mode).toarray(),
        lambda e, w: e.matrix(w, mode),
        lambda e, b: e.part(b, mode),
        _dense_curvature,
        label=_entry(everything, everything),
    )
    if mode == "block":
        if evidence.problem.net.has_bias:  # else these are the diagonal blocks
            for name, where in evidence.problem.names.items():
                yield _selection(name, where)
        order = _column_order(evidence)
        yield Comparison(
            GROUPS[mode],
            "H, dense, columns stacked",
            lambda s, e: s.hessian.toarray(vec="column"),
            lambda e, w: e.matrix(w, mode)[np.ix_(order, order)],
            lambda e, b: e.part(b, mode),
            _dense_curvature,
        )


def _selection(name: str, where: slice) -> Comparison:
    layer = int(name.split(".", maxsplit=1)[0])
    return Comparison(
        "selections",
        f"H of {name}",
        lambda s, e: s.loss.hessian(s.net, params=[name]).toarray(),
        lambda e, w: e.matrix(w, "block")[where, where],
        lambda e, b: e.part(b, "block", layer, layer),
        _dense_curvature,
        label=_entry(where, where),
    )


def _column_order(evidence: Evidence) -> Any:
    """Return the positions of the parameters when each weight is flattened column after column."""
    order = np.arange(evidence.problem.size)
    for name, where in evidence.problem.names.items():
        layer, kind = name.split(".")
        if kind == "weight":
            shape = evidence.problem.weights[int(layer)].shape
            order[where] = order[where].reshape(shape).T.ravel()
    return order


# Blocks ---------------------------------------------------------------------------------------------------------------


def _blocks(evidence: Evidence, mode: str) -> Iterator[Check]:
    depth = evidence.problem.net.depth
    for row in range(depth):
        for column in range(depth):
            if mode == "functional" and row == column:
                continue  # zero by definition; compared with the whole functional part
            yield from _block(evidence, mode, row, column)


def _block(evidence: Evidence, mode: str, row: int, column: int) -> Iterator[Check]:
    rows, columns = evidence.problem.layers[row], evidence.problem.layers[column]
    prefix = "block" if mode == "block" else f"{MODES[mode]}, block"
    group = GROUPS[mode] if mode != "block" else "diagonal blocks" if row == column else "cross blocks"
    name, count = f"{prefix} ({row}, {column})", len(evidence.vectors)

    if evidence.dense if mode == "block" else evidence.dense_jacobian:
        yield Comparison(
            group,
            name,
            lambda s, e: s.mode(mode).block(row, column).toarray(),
            lambda e, w: e.matrix(w, mode)[rows, columns],
            lambda e, b: e.part(b, mode, row, column),
            _dense_curvature,
            label=_entry(rows, columns),
        )
        if evidence.dense_differences:
            return
    vectors = evidence.restricted(column)

    def expected(e: Evidence, witness: Witness) -> Matrix:
        return np.array([e.product(witness, mode, vector)[rows] for vector in vectors])

    def sampled(quantity: str, computed: Callable[[Subject, Evidence], Any]) -> Comparison:
        return Comparison(
            group,
            quantity,
            computed,
            expected,
            lambda e, b: times(vectors, e.part(b, mode, row, column), b),
            lambda e: e.differences.product_error * _length(vectors),
            method=directions(count),
            label=lambda e, at: e.problem.parameter(rows.start + at[1]),
        )

    def operate(subject: Subject, evidence: Evidence) -> Matrix:
        block = subject.mode(mode).block(row, column)
        return np.array([block @ vector[columns].astype(subject.net.dtype) for vector in vectors])

    def multiply(subject: Subject, evidence: Evidence) -> Matrix:
        dense = subject.mode(mode).block(row, column).toarray().astype(np.float64)
        return np.array([dense @ vector[columns] for vector in vectors])

    yield sampled(f"{name} @ v", operate)
    entries = (rows.stop - rows.start) * (columns.stop - columns.start)
    if entries <= _LARGEST_BLOCK:
        yield sampled(f"{name}, dense, times v", multiply)


def _diagonal_part(evidence: Evidence, bounds: Bounds) -> ErrorBound:
    """Return the bounds of all diagonal blocks together."""
    return combined([bounds.block(layer, layer) for layer in range(evidence.problem.net.depth)])


def _diagonals(evidence: Evidence) -> Iterator[Check]:
    if evidence.dense:
        yield Comparison(
            "diagonal and trace",
            "diagonal",
            lambda s, e: s.hessian.diagonal(),
            lambda e, w: np.diagonal(e.matrix(w, "block")),
            _diagonal_part,
            _dense_curvature,
            label=lambda e, at: e.problem.parameter(at[0]),
        )
        root = math.sqrt(evidence.problem.size)

        def trace_part(e: Evidence, b: Bounds) -> ErrorBound:
            diagonal = _diagonal_part(e, b)
            return ErrorBound(root * diagonal.size, root * diagonal.error)

        yield Comparison(
            "diagonal and trace",
            "trace",
            lambda s, e: s.hessian.trace(),
            lambda e, w: np.trace(e.matrix(w, "block")),
            trace_part,
            lambda e: root * e.differences.curvature_error if e.dense_differences else None,
        )
        return
    positions = evidence.positions
    units = [_unit(evidence.problem.size, int(at)) for at in positions]
    yield Comparison(
        "diagonal and trace",
        "diagonal",
        lambda s, e: s.hessian.diagonal()[positions],
        lambda e, w: np.array([e.product(w, "block", u)[at] for u, at in zip(units, positions, strict=True)]),
        lambda e, b: times(units, _diagonal_part(e, b), b),
        lambda e: e.differences.product_error * _length(units),
        method=f"{len(positions)} entries",
        label=lambda e, at: e.problem.parameter(int(positions[at[0]])),
    )


def _unit(size: int, at: int) -> Matrix:
    unit = np.zeros(size)
    unit[at] = 1.0
    return unit
