"""The group "reductions": what exact reductions give, against the dense matrix, mpmath and exact arithmetic.

Of networks (`attack.reduced_problems`): all eigenvalues, zeros to the bit, ranks, eigenvectors, solutions and
determinants, and the sentence about the reduction. Of softmax last layers with few samples: the same, by mpmath. Of
training: runs with reductions against runs without.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import exact_last_layer
import mpmath
import numpy as np

import hesskern as hk
from attack import exact_hessian, generator, reduced_problems, reduced_runs
from attack.generator import RandomProblem
from attack.judge import LIMIT, Judge
from attack.oracle import LONG, Truth, rank_of_integers

BACKENDS = ("cpp", "cpp", "numba", "numpy")
DOUBLE = float(np.finfo(float).eps)
#: What an eigenvalue may be off by, relative to the largest; vectors by ten times as much.
STRICT = 1e-13
#: Up to this size eigenvalues are those of mpmath, and so are determinants.
_EXACT_SIZE = 24
_DIGITS = 50


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Judge one network, one last layer or one training run."""
    rng = np.random.default_rng([20, seed])
    judge = Judge()
    backend = backend or BACKENDS[int(rng.integers(0, len(BACKENDS)))]
    die = rng.random()
    if die < 0.65 or everything:
        _network(rng, backend, judge)
    if 0.65 <= die < 0.8 or everything:
        _last_layer(rng, backend, judge)
    if die >= 0.8 or everything:
        reduced_runs.run(rng, backend, judge)
    return judge


class ReducedCase:
    """A Hessian with the true matrix beside it."""

    def __init__(self, problem: RandomProblem, mode: str, backend: str) -> None:
        self.problem, self.mode = problem, mode
        H = problem.loss(backend).hessian(problem.network(), problem.params)
        self.operator: Any = H if mode == "full" else getattr(H, mode)()
        truth = Truth(problem)
        chosen = np.ix_(*[generator.positions(problem, problem.params)] * 2)
        self.decay = problem.weight_decay if mode == "full" else 0.0
        self.dense = truth.hessian(mode)[chosen]
        self.dimension, self.parameters = len(self.dense), truth.count
        size = truth.hessian_size(mode)[chosen]
        self.matrix = self.dense.astype(float)
        #: The eigenvalues' errors: strict, but for graded numbers relative to the magnitudes of the sums.
        self.doubt = STRICT * float(np.linalg.norm(self.matrix, 2))
        if problem.family == "graded":
            self.doubt = max(
                self.doubt, LIMIT * DOUBLE * (self.dimension + truth.roundings) * np.linalg.norm(size.astype(float))
            )
        elif problem.family in ("interpolating", "small residual"):
            # The residual is known to the rounding of predictions and targets.
            self.doubt = max(self.doubt, DOUBLE * truth.roundings * float(np.linalg.norm(size.astype(float))))

    @cached_property
    def exactly(self) -> Any:
        """The true matrix of a small network in mpmath, from the exact values of the floats; otherwise None.

        Long double would not do: its rounding is that of a condition number of 1e9 in the tenth digit.
        """
        if self.dimension > _EXACT_SIZE or self.parameters > 2 * _EXACT_SIZE:
            return None
        with mpmath.workdps(_DIGITS):
            chosen = generator.positions(self.problem, self.problem.params)
            picked = exact_hessian.hessian(self.problem, self.mode)[np.ix_(chosen, chosen)]
            return mpmath.matrix(picked.tolist()) + mpmath.mpf(self.decay) * mpmath.eye(self.dimension)

    @cached_property
    def values(self) -> np.ndarray:
        """All eigenvalues of the true matrix, ascending."""
        if self.exactly is None:
            return np.linalg.eigvalsh(self.matrix)
        with mpmath.workdps(_DIGITS):
            values = mpmath.eigsy(self.exactly, eigvals_only=True)
            return np.sort(np.array([float(value) for value in values]))

    @cached_property
    def exact_rank(self) -> int | None:
        """The rank in exact arithmetic, of integers."""
        return rank_of_integers(self.dense) if self.problem.exact and not self.decay else None


def _network(rng: np.random.Generator, backend: str, judge: Judge) -> None:
    problem = reduced_problems.draw(rng)
    mode = str(rng.choice(["full", "full", "full", "gauss_newton", "functional"]))
    case = ReducedCase(problem, mode, backend)
    before = len(judge.wrong)
    for name, check in (
        ("spectrum", _spectrum), ("condition", _condition), ("eigh", _eigh), ("eigsh", _eigsh), ("solve", _solve),
        ("logdet", _logdet),
    ):  # fmt: skip
        with judge.check(f"reduced {name}/{backend}"):
            check(case, rng, judge)
    what = f" [{problem}; {mode}; {_words(case)}]"
    judge.wrong[before:] = [sentence + what for sentence in judge.wrong[before:]]


def _words(case: ReducedCase) -> str:
    try:
        return str(case.operator.reduction)
    except Exception as error:
        return f"no sentence: {error}"


def _spectrum(case: ReducedCase, rng: np.random.Generator, judge: Judge) -> None:
    del rng
    spectrum = case.operator.spectrum()
    judge.true(spectrum.size == case.dimension, f"{spectrum.size} eigenvalues instead of {case.dimension}")
    if spectrum.size != case.dimension:
        return
    off = float(abs(np.sort(spectrum.expand()) - case.values).max())
    judge.true(off <= case.doubt, f"an eigenvalue is off by {off:.3g}, allowed {case.doubt:.3g}")
    zeros = int(spectrum.multiplicities[spectrum.values == case.decay].sum())
    words = case.operator.reduction
    said = re.search(r"(\d+) exact zeros", words)
    fewest = case.dimension - case.operator.predicted_rank
    judge.true("none left out" not in words or fewest == 0, f"at least {fewest} zeros, but it says {words!r}")
    if said:
        judge.true(zeros >= int(said[1]), f"{zeros} zeros to the bit, but it says {words!r}")
    if case.exact_rank is not None:
        most = case.dimension - case.exact_rank
        judge.true(zeros <= most, f"{zeros} zeros to the bit, but there are {most}")
        judge.true(
            case.operator.predicted_rank >= case.exact_rank,
            f"predicted rank {case.operator.predicted_rank}, but it is {case.exact_rank}",
        )


def _condition(case: ReducedCase, rng: np.random.Generator, judge: Judge) -> None:
    del rng
    found = case.operator.condition()
    judge.true(found.size == case.dimension, f"size {found.size}")
    judge.true(found.rank + found.undecided <= found.size, f"{found.rank} and {found.undecided} of {found.size}")
    noise = "noise" in found.note
    if case.exact_rank is not None and not noise:
        judge.true(
            found.rank <= case.exact_rank <= found.rank + found.undecided, f"rank {case.exact_rank}, but {found!r}"
        )
    sizes = np.sort(abs(case.values))[::-1]
    if noise:
        return  # the number belongs to the Gauss-Newton part, and the group "exact" judges it
    left_out = sizes[found.rank + found.undecided] if found.rank + found.undecided < len(sizes) else 0.0
    judge.true(left_out <= case.doubt, f"{left_out:.3g} is said to be zero: {found!r}")
    if found.undecided and np.isfinite(found.below):
        judge.true(sizes[found.rank] <= found.below + case.doubt, f"{sizes[found.rank]:.3g} left out: {found!r}")
    if found.rank == 0 or not np.isfinite(found.value):
        return
    smallest = sizes[found.rank - 1]
    error = 0.0 if case.exactly is not None else case.doubt / smallest
    if error < 0.1:
        off = abs(found.value / (sizes[0] / smallest) - 1)
        judge.true(
            off <= found.uncertainty + error + 8 * DOUBLE,
            f"value {found.value:.17g} instead of {sizes[0] / smallest:.17g}, off by {off:.3g}: {found!r}",
        )


def _eigsh(case: ReducedCase, rng: np.random.Generator, judge: Judge) -> None:
    """What is certified are the eigenvalues asked for, every copy of them, to the stated error."""
    which = str(rng.choice(["LA", "SA", "LM"]))
    count = int(rng.integers(1, min(case.dimension, 12) + 1))
    pairs = case.operator.eigsh(count, which)
    if not pairs.certified:
        return
    size = {"LA": case.values, "SA": -case.values, "LM": abs(case.values)}[which]
    expected = np.sort(np.sort(size)[::-1][:count])
    found = np.sort({"LA": pairs.values, "SA": -pairs.values, "LM": abs(pairs.values)}[which])
    off = float(abs(found - expected).max())
    allowed = pairs.error + case.doubt
    judge.true(off <= allowed, f"{which} values are off by {off:.3g}, stated {pairs.error:.3g}: {pairs.note}")


def _eigh(case: ReducedCase, rng: np.random.Generator, judge: Judge) -> None:
    which = str(rng.choice(["LA", "SA", "LM", "SM"]))
    count = None if rng.random() < 0.4 else int(rng.integers(1, case.dimension + 1))
    dense = bool(rng.random() < 0.6)
    values, vectors = case.operator.eigh(count, which, dense=dense)
    V = vectors if dense else vectors.toarray()
    count = count or case.dimension
    judge.true(V.shape == (case.dimension, count), f"shape {V.shape}")
    off = float(np.linalg.norm(case.matrix @ V - V * values, 2))
    judge.true(off <= 10 * case.doubt, f"H V - V values has norm {off:.3g}, allowed {10 * case.doubt:.3g}")
    off = float(np.linalg.norm(V.T @ V - np.eye(count), 2))
    judge.true(off <= 10 * STRICT, f"vectors are orthonormal to {off:.3g} only")
    key = np.abs if which in ("LM", "SM") else np.asarray
    ordered = np.sort(key(case.values))
    expected = ordered[:count] if which[0] == "S" else ordered[case.dimension - count :]
    off = float(abs(np.sort(key(values)) - expected).max())
    judge.true(off <= case.doubt, f"values of {which} are off by {off:.3g}, allowed {case.doubt:.3g}")
    if not dense:
        w = rng.standard_normal(case.dimension)
        off = float(abs(vectors.T @ w - V.T @ w).max())
        judge.true(off <= 10 * STRICT * float(np.linalg.norm(w)), f"V.T w is off by {off:.3g}")


def _solve(case: ReducedCase, rng: np.random.Generator, judge: Judge) -> None:
    norm = float(abs(case.values).max()) or 1.0
    damping = float(10.0 ** rng.uniform(-4, 1)) * norm
    shifted = case.values + damping
    b = rng.standard_normal((case.dimension, 2))
    try:
        x = case.operator.solve(b, damping)
    except np.linalg.LinAlgError as error:
        smallest = float(abs(shifted).min())
        judge.true(smallest <= 100 * case.doubt, f"refused ({error}), the smallest eigenvalue is {smallest:.3g}")
        return
    residual = case.dense @ x.astype(LONG) + LONG(damping) * x.astype(LONG) - b
    off = float(np.linalg.norm(residual.astype(float)))
    allowed = (10 * case.doubt + 10 * STRICT * (norm + damping)) * float(np.linalg.norm(x))
    judge.true(off <= allowed, f"residual {off:.3g}, allowed {allowed:.3g}, damping {damping:.3g}")


def _logdet(case: ReducedCase, rng: np.random.Generator, judge: Judge) -> None:
    norm = float(abs(case.values).max()) or 1.0
    damping = norm * float(1.1 + 10.0 ** rng.uniform(-2, 1))
    if damping <= 100 * case.doubt:  # what rounding has left
        return
    found = case.operator.logdet(damping)
    if case.exactly is not None:
        with mpmath.workdps(_DIGITS):
            matrix = case.exactly + mpmath.mpf(damping) * mpmath.eye(case.dimension)
            value = float(mpmath.log(mpmath.det(matrix)))
    else:
        value = float(np.log(case.values + damping).sum())
    allowed = case.dimension * case.doubt / (damping - norm) + 30 * DOUBLE * (case.dimension + abs(value))
    judge.true(abs(found - value) <= allowed, f"{found:.17g} instead of {value:.17g}, allowed {allowed:.3g}")


def _last_layer(rng: np.random.Generator, backend: str, judge: Judge) -> None:
    samples, features, classes = (int(count) for count in rng.integers((1, 1, 2), (6, 30, 5)))
    F, logits = (
        rng.standard_normal((samples, features)),
        float(rng.choice([0.3, 3, 20])) * rng.standard_normal((samples, classes)),
    )
    if rng.random() < 0.3:
        F *= 10.0 ** rng.uniform(-8, 8, features)
    if rng.random() < 0.3:
        F *= 10.0 ** rng.uniform(-8, 8, (samples, 1))
    if rng.random() < 0.2:
        F[:, int(rng.integers(features))] = 1.0
    if rng.random() < 0.2:
        F[:, int(rng.integers(features))] = F[:, int(rng.integers(features))]
    if rng.random() < 0.2:
        F[0], logits[0] = F[-1], logits[-1]
    weights = 10.0 ** rng.uniform(-6, 6, samples) if rng.random() < 0.2 else rng.random(samples) + 0.1
    bias = bool(rng.random() < 0.5)
    H = hk.SoftmaxHessian(F, logits, bias=bias, sample_weights=weights, backend=backend)
    before = len(judge.wrong)
    with judge.check(f"reduced last layer/{backend}"):
        _judge_last_layer(H, exact_last_layer.eigenvalues(F, logits, weights, bias=bias), rng, judge)
    what = f" [N = {samples}, {features} features, {classes} classes, bias {bias}; {H.reduction}]"
    judge.wrong[before:] = [sentence + what for sentence in judge.wrong[before:]]


def _judge_last_layer(H: hk.SoftmaxHessian, values: list[Any], rng: np.random.Generator, judge: Judge) -> None:
    size, found = H.shape[0], H.condition()
    judge.true(found.rank <= len(values) <= found.rank + found.undecided, f"rank {len(values)}, but {found!r}")
    judge.true(len(values) <= H.predicted_rank, f"rank {len(values)}, predicted {H.predicted_rank}")
    if found.rank and found.rank <= len(values):
        ratio = values[0] / values[found.rank - 1]
        off = float(abs(found.value / ratio - 1))
        judge.true(off <= found.uncertainty, f"value off by {off:.3g}: {found!r}")
    largest = float(values[0])
    expanded = exact_last_layer.expanded(values, size)
    spectrum = H.spectrum()
    off = float(abs(spectrum.expand() - expanded).max())
    judge.true(off <= STRICT * largest, f"an eigenvalue is off by {off / largest:.3g} of the largest")
    zeros = int(spectrum.multiplicities[spectrum.values == 0].sum())
    judge.true(size - H.predicted_rank <= zeros <= size - found.rank, f"{zeros} zeros to the bit: {found!r}")
    count = int(rng.integers(1, size + 1))
    chosen, V = H.eigh(count)
    product = H @ V
    off = float(np.linalg.norm(product - V * chosen, 2))
    judge.true(off <= 10 * STRICT * largest, f"H V - V values: {off / largest:.3g} of the largest")
    off = float(np.linalg.norm(V.T @ V - np.eye(count), 2))
    judge.true(off <= 10 * STRICT, f"vectors are orthonormal to {off:.3g} only")
    damping = largest * float(10.0 ** rng.uniform(-3, 1))
    b = rng.standard_normal(size)
    x = H.solve(b, damping)
    off = float(np.linalg.norm(H @ x + damping * x - b))
    judge.true(off <= 10 * STRICT * (largest + damping) * float(np.linalg.norm(x)), f"residual {off:.3g}")
    with mpmath.workdps(_DIGITS):
        exact_log = mpmath.fsum(mpmath.log(value + mpmath.mpf(damping)) for value in values)
        exact_log += (size - len(values)) * mpmath.log(mpmath.mpf(damping))
    off = abs(H.logdet(damping) - float(exact_log))
    allowed = size * STRICT * largest / damping + 30 * DOUBLE * (size + abs(float(exact_log)))
    judge.true(off <= allowed, f"logdet is off by {off:.3g}, allowed {allowed:.3g}")
