"""The group "dependent": one layer on small integers that are short of rank, whose rank is known exactly."""

from __future__ import annotations

import numpy as np

import hesskern as hk
from attack.judge import Judge
from attack.oracle import rank_of_integers

BACKENDS = ("cpp", "cpp", "numba", "numpy")


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Judge the rank of X.T X: never more than there is, and what it may be besides is said; `everything` adds none."""
    del everything
    rng = np.random.default_rng([13, seed])
    drawn = BACKENDS[int(rng.integers(0, len(BACKENDS)))]
    backend = backend or drawn
    rows, columns = int(rng.integers(2, 12)), int(rng.integers(2, 9))
    if rng.random() < 0.3:  # the Laplacian of a graph
        edges = np.triu(rng.integers(0, 2, (columns, columns)), 1)
        edges = edges + edges.T
        X = np.diag(edges.sum(axis=1)) - edges
    else:
        rank = int(rng.integers(1, min(rows, columns) + 1))
        X = rng.integers(-3, 4, (rows, rank)) @ rng.integers(-3, 4, (rank, columns))
    if rng.random() < 0.3:
        X = X * 2 ** rng.integers(0, 21, (len(X), 1))
    net = hk.LinearNetwork([np.ones((1, columns))])
    loss = hk.SquaredLoss(X.astype(float), np.zeros((len(X), 1)), backend=backend)
    judge, exact = Judge(), rank_of_integers(X)
    with judge.check(f"dependent integers/{backend}"):
        found = loss.hessian(net).condition()
        judge.true(found.rank <= exact <= found.rank + found.undecided, f"rank {exact}, but it says {found!r}")
    judge.wrong = [f"{sentence} [X = {X.tolist()}]" for sentence in judge.wrong]
    return judge
