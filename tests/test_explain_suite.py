"""The whole corruption suite of `hesskern.explain`, minutes long: ``make explain-suite`` prints its figures.

30 networks with everything that can go wrong, alone, in all pairs and in triples; 1000 Hessians with nothing wrong,
and 1000 random symmetric matrices.
"""

from __future__ import annotations

import collections
import os
import time

import corruptions
import judged
import numpy as np
import pytest

import hesskern as hk

pytestmark = pytest.mark.skipif("HESSKERN_EXPLAIN_SUITE" not in os.environ, reason="minutes long: make explain-suite")

NETWORKS, PLAIN = 30, 1000


def report(what, found, times):
    counts = collections.Counter(one if ":" not in one else "wrong" for one in found)
    median, high, most = 1e3 * np.quantile(times, [0.5, 0.99, 1.0])
    print(f"\n{what}: {dict(counts)}; ms median {median:.3g}, 99 % {high:.3g}, most {most:.3g}")


@pytest.mark.parametrize("which", ["singles", "pairs", "triples"])
def test_named(which):
    found, times = [], []
    for seed in range(NETWORKS):
        problem = corruptions.random_problem(seed)
        every = (
            judged.triples(problem, np.random.default_rng(seed))
            if which == "triples"
            else getattr(judged, which)(problem)
        )
        for names in every:
            began = time.perf_counter()
            found.append(judged.judge(problem, names))
            times.append(time.perf_counter() - began)
    report(which, found, times)
    wrong = [one for one in found if ":" in one]
    identifiable = found.count("named") + len(wrong)
    print(*wrong[:20], sep="\n")
    assert len(wrong) <= 0.01 * identifiable


def test_no_false_causes():
    statuses, times = {"true": [], "random": []}, {"true": [], "random": []}
    for seed in range(PLAIN):
        problem = corruptions.random_problem(seed)
        net, loss = judged.given(problem)
        matrix = np.random.default_rng(seed).standard_normal((net.num_parameters,) * 2)
        for what, given in (("true", corruptions.hessian(problem)), ("random", matrix + matrix.T)):
            began = time.perf_counter()
            statuses[what].append(hk.explain(given, net, loss).status)
            times[what].append(time.perf_counter() - began)
    for what, seen in statuses.items():
        report(what, seen, times[what])
    assert set(statuses["true"]) == {"match"}
    assert set(statuses["random"]) == {"unexplained"}
