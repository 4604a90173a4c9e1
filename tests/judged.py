"""Whether `hesskern.explain` names what went wrong, judged by rebuilding the matrix from the names it gives."""

from __future__ import annotations

import itertools

import corruptions
import numpy as np

import hesskern as hk


def given(problem):
    """The network and loss of the package."""
    net = hk.LinearNetwork(list(problem.weights), list(problem.biases))
    return net, hk.SquaredLoss(problem.X, problem.Y, problem.kind, problem.decay)


def close(one, two, tolerance=1e-9):
    return one.shape == two.shape and np.linalg.norm(one - two) <= tolerance * np.linalg.norm(two)


def rebuilds(problem, names, matrix):
    """Whether these causes, with the best factor and shift where they have one, give the matrix."""
    fitted = [name for name in names if name == "damping" or name.startswith("scale[")]
    plain = corruptions.corrupted(problem, [name for name in names if name not in fitted])
    if plain.shape != matrix.shape or not fitted:
        return close(plain, matrix)
    columns = np.stack([plain.ravel(), np.eye(len(plain)).ravel()], axis=1)
    solution = np.linalg.lstsq(columns, matrix.ravel(), rcond=None)[0]
    return close((columns @ solution).reshape(matrix.shape), matrix)


def judge(problem, names):
    """Return "named", "same matrix" (other names that rebuild it), "unchanged" (nothing to see), or what is wrong."""
    net, loss = given(problem)
    matrix = corruptions.corrupted(problem, names)
    if close(matrix, corruptions.hessian(problem)) or not matrix.any():
        return "unchanged"
    why = hk.explain(matrix, net, loss)
    if why.status != "explained":
        return f"{names}: {why.status}"
    answers = [tuple(finding.cause for finding in why.findings), *(other.causes for other in why.alternatives)]
    if set(names) in map(set, answers):
        return "named"
    return "same matrix" if any(rebuilds(problem, answer, matrix) for answer in answers) else f"{names}: {answers[0]}"


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
