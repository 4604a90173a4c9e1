"""Whether `hesskern.explain` names what went wrong, judged by rebuilding the matrix from the names it gives."""

from __future__ import annotations

import itertools
from dataclasses import replace

import corruptions
import imprecise
import numpy as np
import pytest

import hesskern as hk


def given(problem):
    """The network and loss of the package."""
    net = hk.LinearNetwork(list(problem.weights), list(problem.biases))
    return net, hk.SquaredLoss(problem.X, problem.Y, problem.kind, problem.decay)


def close(one, two, tolerance=1e-9):
    return one.shape == two.shape and np.linalg.norm(one - two) <= tolerance * np.linalg.norm(two)


def rebuilds(made, answer, tolerance):
    """Whether these causes, with the best factor and shift where they have one, give the matrix."""
    matrix, problem, kept = made.matrix, made.asked, None
    names = []
    for name in answer:
        if name in imprecise.TIMES:
            problem = made.theirs
        elif name.endswith("-stored") or name.startswith(("decimals", "digits")):
            kept = name
        elif name.endswith(("-data", "-weights", "-inputs")):
            problem = imprecise.rounded_inputs(problem, name)
        elif name.endswith("-arithmetic"):
            return False
        elif name != "finite-differences":
            names.append(name)
    fitted = [name for name in names if name == "damping" or name.startswith("scale[")]
    if kept:
        return close(imprecise.stored(corruptions.corrupted(problem, names), kept), matrix, tolerance)
    plain = corruptions.corrupted(problem, [name for name in names if name not in fitted])
    if plain.shape != matrix.shape or not fitted:
        return close(plain, matrix, tolerance)
    columns = np.stack([plain.ravel(), np.eye(len(plain)).ravel()], axis=1)
    solution = np.linalg.lstsq(columns, matrix.ravel(), rcond=None)[0]
    return close((columns @ solution).reshape(matrix.shape), matrix, tolerance)


def judge(problem, names):
    """Return what came of it.

    "named"; "same matrix" (other names that rebuild it); "unchanged" (nothing to see); "not found" (nothing is named);
    or the wrong answer, after a colon.
    """
    made = imprecise.made(problem, names)
    matrix = made.matrix
    if close(matrix, corruptions.hessian(made.asked), 1e-13) or not matrix.any():
        return "unchanged"
    others = [given(made.theirs)[0]] if "trajectory[0]" in names else []
    lr = imprecise.RATE if {"stale", "step-ahead"} & set(names) else None
    why = hk.explain(matrix, *given(made.asked), trajectory=others, lr=lr)
    if why.status == "unexplained":
        return f"not found: {names}"
    answers = [tuple(finding.cause for finding in why.findings), *(other.causes for other in why.alternatives)]
    if set(imprecise.expected(names)) in map(set, answers):
        return "named"
    # What the rounding errors of differences leave over cannot be rebuilt.
    tolerance = 1e-2 if set(names) & set(imprecise.DIFFERENCES) else 1e-9
    same = any(rebuilds(made, answer, tolerance) for answer in answers)
    return "same matrix" if same else f"wrong: {names}: {why.status} {answers[0]}"


def quick_first(quick, others):
    """Parameters of a test, of which all but a few are left to the long tests."""
    return [*quick, *(pytest.param(*([each] if not isinstance(each, tuple) else each), marks=pytest.mark.long)
                      for each in others if each not in quick)]  # fmt: skip


def singles(problem):
    return [(name,) for kind in corruptions.applicable(problem).values() for name in kind]


def pairs(problem):
    """Two things that went wrong together, of different kinds, and that can."""
    kinds = corruptions.applicable(problem)
    found = []
    for (one, first), (two, second) in itertools.combinations(kinds.items(), 2):
        if two == "selection" and one in ("part", "order", "vec"):
            continue  # of one layer they are nothing, or the names are those of other parameters
        for a, b in itertools.product(first, second):
            if a.startswith("vec") and b in ("bias-column", "factors-exchanged"):
                continue  # columns of [W b] are an order of their own
            if one != "selection":
                found.append((a, b))
    return found


#: What goes with less precise numbers, differences, and other weights.
GOES_WITH = {
    "inputs": ("data", "weights", "vec", "order", "part", "scale", "damping", "selection", "triangle"),
    "stored": ("data", "weights", "vec", "order", "part", "scale", "selection"),
    "differences": ("data", "weights", "vec", "order", "scale"),
    "times": ("data", "vec", "order", "part", "scale", "damping", "selection", "triangle"),
}


def goes(problem, name):
    """Whether there are entries enough to see the grid that differences leave."""
    return name not in imprecise.DIFFERENCES or len(corruptions.hessian(problem)) >= 8


def imprecise_singles(problem):
    every = imprecise.PRECISION + imprecise.DIFFERENCES + imprecise.TIMES
    return [(name,) for name in every if goes(problem, name)]


def judge_arithmetic(problem, name):
    """What is said of the Hessian that PyTorch computes in a format."""
    why = hk.explain(imprecise.by_torch(problem, name), *given(problem))
    causes = [finding.cause for finding in why.findings]
    if why.status == "explained" and causes[-1].endswith(("-stored", "-data", "-weights", "-inputs")):
        return "same matrix" if causes[-1].startswith(name) else f"wrong: {causes}"
    return {"unexplained": "not found", "match": "unchanged"}.get(why.status) or (
        "named" if causes == [f"{name}-arithmetic"] else f"wrong: {causes}"
    )


def rounded_without_a_cause(problem, seed):
    """Hessians at other weights, or with noise, rounded to a binary format or grid."""
    rng, H = np.random.default_rng([5, seed]), corruptions.hessian(problem)
    for size in 10.0 ** np.arange(-8, -1):
        noise = rng.standard_normal(H.shape)
        weights = tuple(w + size * rng.standard_normal(w.shape) for w in problem.weights)
        for matrix in (H + size * (noise + noise.T), corruptions.hessian(replace(problem, weights=weights))):
            yield from (imprecise.binary(matrix, bits) for bits in sorted(set(imprecise.BITS.values())))
            yield from (np.round(matrix * 2.0**power) / 2.0**power for power in (2, 10, 20, 30, 36))


def is_stored(problem, matrix):
    """Whether each entry is that of the Hessian to half a unit of a format or a decimal: then it is its rounding."""
    H = corruptions.hessian(problem)
    slack = 1e-12 * np.linalg.norm(H)  # in a network of four layers rounding allows more than in one entry
    halves = [2.0**-bits * np.abs(matrix) * (1 + 2.0**-bits) for bits in set(imprecise.BITS.values())]
    halves += [
        np.full_like(H, 0.5 * 10.0**-count) for count in range(3) if close(np.round(matrix, count), matrix, 1e-15)
    ]
    return any((np.abs(matrix - H) <= half + slack).all() for half in halves)


def kind_of(name):
    if name in imprecise.DIFFERENCES:
        return "differences"
    if name in imprecise.TIMES:
        return "times"
    return "inputs" if name.endswith(("-data", "-weights", "-inputs")) else "stored"


def imprecise_pairs(problem):
    """Fewer digits, differences or other weights together with what else can go wrong."""
    kinds = corruptions.applicable(problem)
    return [
        (other, name)
        for (name,) in imprecise_singles(problem)
        for kind in GOES_WITH[kind_of(name)]
        for other in kinds[kind]
        if not (name in imprecise.DIFFERENCES and other.startswith(("uneven", "scale[constant]")))
        if not (name.startswith("decimals") and other.startswith("scale[1/"))  # nothing is left of it
        if not (kind_of(name) == "stored" and other == "scale[constant]")  # known to as many digits only
    ]


def numbers(problem):
    """One number of a Hessian that went wrong, as text, with the names and what it is."""
    kinds = corruptions.applicable(problem)
    part = [name for name in kinds["part"] if name == "gauss-newton"]
    for name in [*kinds["data"], *kinds["weights"], *kinds["selection"], *part]:
        if name.startswith("uneven"):
            continue
        matrix = corruptions.corrupted(problem, [name])
        values = np.sort(np.abs(np.linalg.eigvalsh(matrix)))[::-1]
        yield (name,), f"{values[0]:.11g}", "largest"
        small = values[values > 1e-13 * len(values) * values[0]]
        if len(small) and small[-1] > 1e-4 * values[0]:  # a dense matrix knows this one
            yield (name,), f"{values[0] / small[-1]:.10g}", "condition"
    largest = np.linalg.eigvalsh(corruptions.hessian(problem))[-1]
    for name in kinds["scale"][:-1]:
        yield (name,), f"{corruptions.factor(problem, name) * largest:.11g}", "largest"


def judge_number(problem, names, text, quantity):
    """What is said of one number."""
    net, loss = given(problem)
    why = hk.explain(text, net, loss, quantity=quantity)
    answers = [tuple(finding.cause for finding in why.findings), *(other.causes for other in why.alternatives)]
    if set(names) in map(set, answers):
        return "named"
    if why.status == "match":
        return "unchanged"
    if why.status == "unexplained":
        return f"not found: {names} {quantity}"
    scales = [one for answer in [names, *answers] for one in answer if one.startswith("scale[")]
    same = len(scales) == len(answers) + 1 and len({corruptions.factor(problem, one) for one in scales}) == 1
    return "same number" if same else f"wrong: {names} {quantity}: {answers}"


TRIPLES = [
    ("data", "vec", "scale"), ("data", "part", "damping"), ("vec", "order", "scale"), ("weights", "vec", "scale"),
    ("data", "weights", "vec"), ("part", "vec", "scale"), ("vec", "scale", "damping"), ("data", "vec", "part"),
]  # fmt: skip


def triples(problem, rng):
    """One of each kind of three that go together."""
    kinds = corruptions.applicable(problem)
    found = []
    for three in TRIPLES:
        if all(kinds[kind] for kind in three):
            chosen = tuple(str(rng.choice(kinds[kind])) for kind in three)
            if not (
                any(name.startswith("vec") for name in chosen) and {"bias-column", "factors-exchanged"} & set(chosen)
            ):
                found.append(chosen)
    return found


def causes(matrix, problem):
    why = hk.explain(matrix, *given(problem))
    return [finding.cause for finding in why.findings]
