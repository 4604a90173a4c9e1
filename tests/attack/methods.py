"""One check for each public method of networks, losses and Hessians: the answer against `attack.oracle`."""

from __future__ import annotations

import copy
import math
import os
import pickle
import tempfile
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

import hesskern as hk
from attack import generator
from attack.generator import RandomProblem
from attack.judge import Judge
from attack.oracle import LONG, Truth, column_order, rank_of_integers

#: Larger dense matrices are left to the products.
DENSE = 420
DOUBLE = float(np.finfo(np.float64).eps)


class AttackCase:
    """One problem with everything that its checks share."""

    def __init__(self, problem: RandomProblem, backend: str, rng: np.random.Generator) -> None:
        self.problem, self.backend, self.rng = problem, backend, rng
        self.truth = Truth(problem)
        self.eps = float(np.finfo(problem.X.dtype).eps)
        self.unit = self.eps * self.truth.roundings
        self.net, self.loss = problem.network(), problem.loss(backend)
        self.chosen = generator.positions(problem, problem.params)
        self.unreduced = problem.exact and len(problem.X) <= problem.X.shape[1] and problem.X.dtype == np.float64

    @cached_property
    def mode(self) -> str:
        """Which part of the Hessian this case looks at."""
        return ("full", "full", "full", "gauss_newton", "functional")[self.rng.integers(0, 5)]

    @cached_property
    def operator(self) -> hk.Hessian:
        """The operator of the package."""
        return self.part(self.loss.hessian(self.net, self.problem.params))

    def part(self, hessian: hk.Hessian) -> hk.Hessian:
        """Return the part that this case looks at."""
        return hessian if self.mode == "full" else getattr(hessian, self.mode)()

    @cached_property
    def dense(self) -> np.ndarray:
        """The true matrix."""
        return self.truth.hessian(self.mode)[np.ix_(self.chosen, self.chosen)]

    @cached_property
    def size(self) -> np.ndarray:
        """The magnitudes of its entries."""
        return self.truth.hessian_size(self.mode)[np.ix_(self.chosen, self.chosen)]

    @cached_property
    def dimension(self) -> int:
        """Rows of the matrix."""
        return len(self.chosen)

    @cached_property
    def lift(self) -> LONG:
        """A power of two near the matrix's largest entry: divided by it, nothing overflows in float64."""
        largest = max(abs(self.size).max(initial=LONG(0)), LONG(0))
        return LONG(2) ** np.floor(np.log2(largest)) if largest > 0 else LONG(1)

    @cached_property
    def values(self) -> np.ndarray:
        """Eigenvalues of the true matrix over `lift`, by LAPACK."""
        return np.linalg.eigvalsh((self.dense / self.lift).astype(np.float64))

    @cached_property
    def doubt(self) -> float:
        """What an eigenvalue over `lift` may be off by, in the units that residuals are judged in.

        Float64's eps: curvature is computed in float64, whatever the dtype of the network.
        """
        return (
            DOUBLE
            * (self.dimension + self.truth.roundings)
            * float(np.linalg.norm((self.size / self.lift).astype(float)))
        )

    def vector(self, *columns: int) -> np.ndarray:
        """A vector (or several) in the dtype of the problem."""
        return self.rng.standard_normal((self.dimension, *columns)).astype(self.problem.X.dtype)


Check = Callable[[AttackCase, Judge], None]
#: Name: check, and how many of a hundred problems it is run on.
CHECKS: dict[str, tuple[Check, int]] = {}


def check(share: int) -> Callable[[Check], Check]:
    """Register a check for this share of all problems, in percent."""

    def register(function: Check) -> Check:
        CHECKS[function.__name__] = function, share
        return function

    return register


# Networks and losses


@check(30)
def forward(case: AttackCase, judge: Judge) -> None:
    truth = case.truth
    found = case.net.forward(case.problem.X, backend=case.backend)
    judge.close(found, truth.activations[-1], truth.sizes_of_activations[-1], case.unit)
    if case.problem.exact and case.problem.X.dtype == np.float64:
        judge.same(found, truth.activations[-1])


@check(30)
def loss(case: AttackCase, judge: Judge) -> None:
    truth = case.truth
    found = case.loss(case.net)
    judge.true(type(found) is float, f"is a {type(found).__name__}")
    judge.close(found, truth.loss, truth.loss_size(case.unit), case.unit)
    if case.problem.exact and case.problem.X.dtype == np.float64:
        judge.same(found, truth.loss)


@check(30)
def gradient(case: AttackCase, judge: Judge) -> None:
    value, size = case.truth.gradient
    found = case.loss.gradient(case.net)
    judge.close(found, value, size, case.unit)
    if case.problem.exact and case.problem.X.dtype == np.float64:
        judge.same(found, value)


@check(20)
def value_and_gradient(case: AttackCase, judge: Judge) -> None:
    value, size = case.truth.gradient
    number, found = case.loss.value_and_gradient(case.net)
    judge.close(number, case.truth.loss, case.truth.loss_size(case.unit), case.unit, "value")
    judge.close(found, value, size, case.unit, "gradient")


@check(15)
def flatten(case: AttackCase, judge: Judge) -> None:
    theta = case.net.flatten()
    judge.same(theta, case.truth.theta, "flatten")
    again = case.net.unflatten(theta[::-1].copy())
    judge.same(again.flatten(), case.truth.theta[::-1], "unflatten")
    judge.true(again.num_parameters == case.truth.count and case.net.widths == tuple(case.problem.widths), "sizes")


@check(2)
def save_and_load(case: AttackCase, judge: Judge) -> None:
    handle, path = tempfile.mkstemp(suffix=".npz")
    os.close(handle)
    try:
        case.net.save(path)
        again = hk.LinearNetwork.load(path)
    finally:
        os.unlink(path)
    judge.same(again.flatten(), case.net.flatten(), "the network that was loaded")
    judge.true(again.dtype == case.net.dtype and again.parameter_names == case.net.parameter_names, "names or dtype")


@check(4)
def pickles(case: AttackCase, judge: Judge) -> None:
    v = case.vector()
    before = case.operator @ v
    for again in (pickle.loads(pickle.dumps(case.operator)), copy.deepcopy(case.operator)):
        judge.same(again @ v, before, "H @ v of the copy")
    net, loss = pickle.loads(pickle.dumps((case.net, case.loss)))
    judge.same(loss.gradient(net), case.loss.gradient(case.net), "gradient of the copies")


# Products and matrices


def _product(case: AttackCase, V: np.ndarray, judge: Judge, found: np.ndarray) -> None:
    judge.close(found, case.dense @ V.astype(LONG), case.size @ abs(V.astype(LONG)), case.unit)


@check(35)
def product(case: AttackCase, judge: Judge) -> None:
    v = case.vector()
    if case.unreduced:
        v = np.round(4 * v)
    found = case.operator @ v
    judge.true(found.dtype == v.dtype, f"dtype {found.dtype}")
    _product(case, v, judge, found)
    if case.unreduced:
        judge.same(found, case.dense @ v.astype(LONG))


@check(20)
def products(case: AttackCase, judge: Judge) -> None:
    V = case.vector(int(case.rng.integers(0, 7)))
    how = case.rng.integers(0, 3)
    _product(case, V, judge, case.operator @ (np.asfortranarray(V) if how == 1 else V))
    if how == 2:
        judge.same(case.operator.T @ V, case.operator @ V, "H.T @ V")


@check(30)
def toarray(case: AttackCase, judge: Judge) -> None:
    found = case.operator.toarray()
    judge.close(found, case.dense, case.size, case.unit)
    judge.same(found, found.T, "the transpose of the dense matrix")
    judge.true(found.dtype == case.problem.X.dtype, f"dtype {found.dtype}")
    if case.unreduced:
        judge.same(found, case.dense)


@check(8)
def toarray_columns(case: AttackCase, judge: Judge) -> None:
    out = np.full((case.dimension,) * 2, np.nan, case.problem.X.dtype)
    found = case.operator.toarray(out=out, vec="column")
    order = column_order(case.problem.weights, case.problem.biases)
    order = np.array([np.flatnonzero(case.chosen == each)[0] for each in order if each in set(case.chosen)])
    judge.true(found is out, "another array than out=")
    judge.close(found, case.dense[np.ix_(order, order)], case.size[np.ix_(order, order)], case.unit)


@check(25)
def diagonal(case: AttackCase, judge: Judge) -> None:
    judge.close(case.operator.diagonal(), np.diagonal(case.dense), np.diagonal(case.size), case.unit)


@check(25)
def trace(case: AttackCase, judge: Judge) -> None:
    found = case.operator.trace()
    # The functional part has a zero diagonal, whatever its magnitude.
    mode = "gauss_newton" if case.mode == "functional" else case.mode
    size = np.trace(case.truth.hessian_size(mode)[np.ix_(case.chosen, case.chosen)])
    judge.close(found, np.trace(case.dense), size, case.unit + case.eps * case.dimension)


@check(20)
def block(case: AttackCase, judge: Judge) -> None:
    layers = [part.layer for part in case.operator.parts]
    row, column = (int(layer) for layer in case.rng.choice(layers, 2))
    found = case.operator.block(row, column)
    inside = [
        np.flatnonzero((case.chosen >= case.truth.offsets[layer]) & (case.chosen < case.truth.offsets[layer + 1]))
        for layer in (row, column)
    ]
    dense, size = case.dense[np.ix_(*inside)], case.size[np.ix_(*inside)]
    judge.close(found.toarray(), dense, size, case.unit, "toarray")
    v = case.rng.standard_normal(dense.shape[1]).astype(case.problem.X.dtype)
    judge.close(found @ v, dense @ v, size @ abs(v), case.unit, "product")
    u = case.rng.standard_normal(dense.shape[0]).astype(case.problem.X.dtype)
    judge.close(found.T @ u, dense.T @ u, size.T @ abs(u), case.unit, "product of the transpose")
    judge.close(found.diagonal(), np.diagonal(dense), np.diagonal(size), case.unit, "diagonal")
    if row == column:
        return
    lift = max(size.max(), np.finfo(LONG).tiny)
    values = np.linalg.svd((dense / lift).astype(float), compute_uv=False)
    off = (found.svdvals().astype(LONG) - values * lift) / lift
    unit = case.unit + case.eps * max(dense.shape)
    lost = np.finfo(case.problem.X.dtype).tiny / lift  # the dense block is in the dtype of the problem
    judge.ratio(abs(off).max(), unit * float(np.linalg.norm((size / lift).astype(float))) + lost, "svdvals")
    condition = found.condition()
    _condition_of_rectangle(condition, values, lift, judge)
    if case.problem.exact:
        exact = rank_of_integers(dense)
        judge.true(condition.rank <= exact <= condition.rank + condition.undecided, f"rank {exact}: {condition}")


def _condition_of_rectangle(found: Any, values: np.ndarray, lift: LONG, judge: Judge) -> None:
    """Hold the condition of a rectangular block against its singular values over `lift`."""
    judge.true(found.size == len(values), f"condition: size {found.size} of {len(values)}")
    judge.true(found.rank + found.undecided <= found.size, f"condition: {found}")
    left_out = float(values[found.rank] * lift) if found.rank < len(values) else 0.0
    own = 10.0 * np.finfo(float).eps * len(values) * float(values[0] * lift)
    judge.true(left_out <= 1.01 * found.below + own, f"condition: {left_out} is left out, below={found.below}")
    if found.rank == 0 or not math.isfinite(found.uncertainty):
        return
    for name, true in (("largest", values[0]), ("smallest", values[found.rank - 1])):
        off = abs(float(LONG(getattr(found, name)) / lift - true))
        allowed = 10.0 * found.uncertainty * float(true) + own / float(lift)
        judge.true(off <= allowed, f"condition: {name} is off by {off / allowed:.2g} times what it may be: {found}")


# Eigenvalues


def _over_lift(case: AttackCase, values: np.ndarray) -> np.ndarray:
    return (np.asarray(values).astype(LONG) / case.lift).astype(np.float64)


@check(25)
def spectrum(case: AttackCase, judge: Judge) -> None:
    found = case.operator.spectrum()
    judge.true(found.size == case.dimension, f"{found.size} eigenvalues instead of {case.dimension}")
    if found.size == case.dimension:
        values = _over_lift(case, found.expand())
        judge.ratio(float(abs(values - case.values).max()), case.doubt)


@check(10)
def eigvalsh(case: AttackCase, judge: Judge) -> None:
    values = _over_lift(case, case.operator.eigvalsh())
    judge.true(bool((np.diff(values) >= 0).all()), "eigenvalues are not ascending")
    judge.ratio(float(abs(values - case.values).max()), case.doubt)


@check(20)
def eigh(case: AttackCase, judge: Judge) -> None:
    size = case.dimension
    which = ("LA", "SA", "LM", "SM")[case.rng.integers(0, 4)]
    count = None if case.rng.random() < 0.4 else int(case.rng.integers(1, size + 1))
    dense = bool(case.rng.random() < 0.7)
    values, vectors = case.operator.eigh(count, which, dense=dense)
    count = size if count is None else count
    V = vectors if dense else vectors.toarray()
    judge.true(values.shape == (count,) and V.shape == (size, count), f"shapes {values.shape}, {V.shape}")
    values = _over_lift(case, values)
    matrix = (case.dense / case.lift).astype(np.float64)
    judge.ratio(float(np.linalg.norm(matrix @ V - V * values, 2)), case.doubt, "H V - V Lambda")
    judge.ratio(np.linalg.norm(V.T @ V - np.eye(count), 2), size * np.finfo(float).eps, "orthogonality")
    order = np.argsort(abs(case.values) if which in ("LM", "SM") else case.values, kind="stable")
    chosen = case.values[order[:count] if which[0] == "S" else order[size - count :]]
    key = np.abs if which in ("LM", "SM") else np.asarray
    judge.ratio(float(abs(np.sort(key(values)) - np.sort(key(chosen))).max()), case.doubt, f"values of {which}")
    if not dense:
        v = case.rng.standard_normal(size)
        judge.ratio(abs(vectors.T @ v - V.T @ v).max(), size * np.finfo(float).eps * np.linalg.norm(v), "V.T @ v")


def _doubtful(found: hk.Condition) -> bool:
    return found.gap < 1e3 or not found.uncertainty < 1e-3 or "uncertain" in found.note or "doubt" in found.note


@check(25)
def condition(case: AttackCase, judge: Judge) -> None:
    found = case.operator.condition()
    judge.true(found.size == case.dimension, f"size {found.size}")
    judge.true(case.operator.rank() == found.rank, "rank() and condition().rank differ")
    if found.rank:
        judge.true(case.operator.cond() == found.value, "cond() and condition().value differ")
    values = case.values
    if "noise" in found.note and case.mode == "full" and _interpolates(case):
        values = np.linalg.eigvalsh((_gauss_newton(case) / case.lift).astype(np.float64))
    sure = int((abs(values) > 1e3 * case.doubt).sum())
    judge.true(found.rank >= sure or _doubtful(found), f"rank {found.rank}, but {sure} eigenvalues are clear: {found}")
    exact = None
    if case.problem.exact and case.dimension <= 24:
        exact = rank_of_integers(case.dense)
        sayable = range(found.rank, found.rank + found.undecided + 1)
        judge.true(exact in sayable or _doubtful(found), f"rank {found.rank} instead of {exact}: {found}")
        judge.true(found.rank <= exact, f"rank {found.rank}, more than there are: {exact}: {found}")
    descending = np.sort(abs(values))[::-1]
    if found.undecided and np.isfinite(found.below):
        next_one = descending[found.rank]
        judge.ratio(max(0.0, next_one - float(found.below / case.lift)), case.doubt, "what was left out")
    known = found.rank + found.undecided
    judge.ratio(descending[known] if known < len(descending) else 0.0, case.doubt, "what is zero for certain")
    largest = float(abs(values).max(initial=0.0))
    if found.rank and np.isfinite(found.largest):
        doubt = case.doubt + found.uncertainty * largest / 3  # 10 times the uncertainty, as of the value below
        judge.ratio(abs(float(found.largest / case.lift) - largest), doubt, "largest")
    if found.rank == sure and (exact is None or exact == sure) and sure:
        smallest = float(np.sort(abs(values))[-sure])
        error = case.doubt / smallest + case.doubt / largest
        value = largest / smallest
        allowed = 10 * found.uncertainty + 30 * error + 1e-14
        judge.true(
            abs(found.value / value - 1) <= allowed or (not np.isfinite(found.value) and found.note),
            f"value {found.value:.17g} instead of {value:.17g} (allowed {allowed:.2g}): {found}",
        )


def _interpolates(case: AttackCase) -> bool:
    """Whether rounding weights and data to their last digits could have made the whole residual."""
    residual, size = (np.sqrt((array**2).sum()) for array in (case.truth.residual, case.truth.residual_size))
    return bool(residual <= 10 * case.unit * size)


def _noise_decides(case: AttackCase, damping: float) -> bool:
    """Whether the matrix is regular by the functional part of an interpolating minimum only, which is noise."""
    if case.mode != "full" or not _interpolates(case):
        return False
    values = np.linalg.eigvalsh((_gauss_newton(case) / case.lift).astype(np.float64))
    return bool(abs(values + float(LONG(damping) / case.lift)).min() <= 1e3 * case.doubt)


def _gauss_newton(case: AttackCase) -> np.ndarray:
    inside = np.ix_(case.chosen, case.chosen)
    return case.truth.gauss_newton[inside] + case.truth.decay * np.eye(case.dimension, dtype=LONG)


def _damping(case: AttackCase, largest: float, lowest: float) -> float:
    return float(10.0 ** case.rng.uniform(lowest, 1) * (LONG(largest) * case.lift or LONG(1)))


@check(20)
def solve(case: AttackCase, judge: Judge) -> None:
    largest = float(abs(case.values).max(initial=0.0))
    damping = 0.0
    if case.rng.random() < 0.6:
        damping = _damping(case, largest, -6)
    several = bool(case.rng.random() < 0.3)
    b = case.vector(3) if several else case.vector()
    shifted = case.values + float(LONG(damping) / case.lift)
    smallest = float(abs(shifted).min())
    try:
        x = case.operator.solve(b, damping)
    except np.linalg.LinAlgError as error:
        unclear = smallest <= 1e3 * case.doubt or _noise_decides(case, damping)
        judge.true(unclear, f"refused ({error}), but eigenvalues are in {smallest:.2g} to {largest:.2g}")
        return
    matrix = ((case.dense + LONG(damping) * np.eye(case.dimension, dtype=LONG)) / case.lift).astype(np.longdouble)
    off = np.linalg.norm((matrix @ (x * case.lift) - b).astype(float))
    norm = float(abs(shifted).max())
    rounded = case.eps * case.dimension  # x is given in the dtype of b
    size = (case.doubt + rounded * norm) * float(np.linalg.norm((x * case.lift).astype(float))) + rounded * float(
        np.linalg.norm(b)
    )
    judge.ratio(off, size)


@check(15)
def logdet(case: AttackCase, judge: Judge) -> None:
    largest = float(abs(case.values).max(initial=0.0))
    damping = _damping(case, largest, -4) if case.rng.random() < 0.7 else 0.0
    shifted = case.values + float(LONG(damping) / case.lift)
    smallest = float(abs(shifted).min())
    try:
        found = case.operator.logdet(damping)
    except (np.linalg.LinAlgError, ValueError) as error:
        singular = smallest <= 1e3 * case.doubt or _noise_decides(case, damping)
        negative = shifted.min() < 1e3 * case.doubt
        judge.true(singular or negative, f"refused ({error}), though positive definite")
        return
    if smallest <= 30 * case.doubt:
        # What is added to zero eigenvalues is known exactly, though not to the oracle's LAPACK; and rounding of its
        # features can make a matrix regular.
        shift = float(case.truth.decay) + damping
        rows = case.problem.X.shape[0] * case.problem.Y.shape[1]  # of the Jacobian
        by_shape = case.mode == "gauss_newton" and case.dimension > rows
        singular = by_shape or (smallest <= 0 and (case.problem.exact or not case.dense.any(axis=0).all()))
        judge.true(not np.isfinite(found) or shift > 0 or not singular, "finite for a singular matrix")
        return
    value = float(np.log(abs(shifted)).sum()) + case.dimension * float(np.log(case.lift))
    allowed = float((case.doubt / abs(shifted)).sum()) + DOUBLE * (case.dimension * case.truth.roundings + abs(value))
    judge.ratio(abs(found - value), allowed)


@check(6)
def kfac(case: AttackCase, judge: Judge) -> None:
    separate = bool(case.rng.random() < 0.4)
    kfac = hk.KFAC(case.net, case.loss, case.problem.params, separate_bias=separate)
    dense, size = case.truth.gauss_newton.copy(), case.truth.gauss_newton_size
    layer_of = np.repeat(np.arange(len(case.truth.sizes)), case.truth.sizes).astype(float)
    if separate:
        for layer, weight in enumerate(case.problem.weights):
            layer_of[case.truth.offsets[layer] + weight.size : case.truth.offsets[layer + 1]] += 0.5
    dense[layer_of[:, None] != layer_of[None, :]] = 0
    inside = np.ix_(case.chosen, case.chosen)
    dense, size = dense[inside], size[inside]
    judge.close(kfac.toarray(), dense, size, case.unit, "toarray")
    v = case.vector()
    judge.close(kfac @ v, dense @ v.astype(LONG), size @ abs(v), case.unit, "product")
    judge.close(kfac.diagonal(), np.diagonal(dense), np.diagonal(size), case.unit, "diagonal")
    judge.close(kfac.trace(), np.trace(dense), np.trace(size), case.unit + case.eps * case.dimension, "trace")
    largest = LONG(abs(dense).max(initial=0.0))
    damping = float(largest) * float(10.0 ** case.rng.uniform(-3, 1)) or 1.0
    x = kfac.solve(v, damping)
    matrix = (dense + LONG(damping) * np.eye(len(dense), dtype=LONG)) / LONG(damping)
    off = float(np.linalg.norm((matrix @ (x * LONG(damping)) - v).astype(float)))
    norm = 1 + float(np.linalg.norm((size / LONG(damping)).astype(float)))
    judge.ratio(off, case.eps * len(v) * norm * float(np.linalg.norm(v)), "solve")


@check(2)
def reprs(case: AttackCase, judge: Judge) -> None:
    for each in (case.net, case.loss, case.operator, case.operator.spectrum(), case.operator.condition()):
        judge.true(0 < len(repr(each)) < 1000 and str(each), "empty or endless")
