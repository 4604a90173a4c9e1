"""The whole corruption suite of `hesskern.explain`, an hour long: ``make explain-suite`` prints its figures.

30 networks with everything that can go wrong, alone, in all pairs and in triples; 1000 Hessians with nothing wrong,
and 1000 random symmetric matrices; and matrices with few digits that nothing known explains.
"""

from __future__ import annotations

import collections
import os
import time

import corruptions
import imprecise
import judged
import numpy as np
import pytest
from checkout import ROOT

import hesskern as hk

pytestmark = pytest.mark.skipif("HESSKERN_EXPLAIN_SUITE" not in os.environ, reason="minutes long: make explain-suite")

NETWORKS, PLAIN = 30, 1000


def report(what, found, times):
    counts = collections.Counter(one.split(":")[0] for one in found)
    median, high, most = 1e3 * np.quantile(times, [0.5, 0.99, 1.0])
    print(f"\n{what}: {dict(counts)}; ms median {median:.3g}, 99 % {high:.3g}, most {most:.3g}")


def documented(what):
    """Cases, named, other names for the same, nothing changed, not found, wrong: a row of the table in the docs."""
    text = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(f"| {what} |"))
    return [int(number) for number in row.split("|")[2:-1]]


def held(what, found):
    """Whether the figures are those of the docs, or better."""
    every, named, _, unchanged, missed, wrong = documented(what)
    counts = collections.Counter(one.split(":")[0] for one in found)
    assert (len(found), counts["unchanged"]) == (every, unchanged)
    assert counts["named"] >= named and counts["not found"] <= missed and counts["wrong"] <= wrong, counts


def cases(which, problem, seed):
    if which == "triples":
        return judged.triples(problem, np.random.default_rng(seed))
    if which.startswith("imprecise pairs"):  # the longest part, in thirds: each network's pairs are dealt out in turn
        third = int(which.rsplit(" ", 1)[1])
        return judged.imprecise_pairs(problem)[(seed + third) % 3 :: 3]
    return {"singles": judged.singles, "pairs": judged.pairs, "imprecise singles": judged.imprecise_singles}[which](
        problem
    )


#: What is run as the docs have it; of pairs they have a sample.
DOCUMENTED = {
    "singles": "each alone, exact",
    "triples": "triples",
    "imprecise singles": "fewer digits, differences, other weights, each alone",
}

THIRDS = [f"imprecise pairs, third {number}" for number in (1, 2, 3)]


@pytest.mark.parametrize("which", ["singles", "pairs", "triples", "imprecise singles", *THIRDS])
def test_named(which):
    found, times = [], []
    for seed in range(NETWORKS):
        problem = corruptions.random_problem(seed)
        for names in cases(which, problem, seed):
            began = time.perf_counter()
            found.append(judged.judge(problem, names))
            times.append(time.perf_counter() - began)
    report(which, found, times)
    missed = [one for one in found if one.startswith(("wrong", "not found"))]
    print(*missed[:40], sep="\n")
    assert not [one for one in found if one.startswith("wrong")]
    assert len(missed) <= 0.01 * (found.count("named") + found.count("same matrix") + len(missed))
    if which in DOCUMENTED:
        held(DOCUMENTED[which], found)


def test_numbers():
    """Condition numbers and largest eigenvalues alone."""
    found, times = [], []
    for seed in range(NETWORKS):
        problem = corruptions.random_problem(seed)
        for names, text, quantity in judged.numbers(problem):
            began = time.perf_counter()
            found.append(judged.judge_number(problem, names, text, quantity))
            times.append(time.perf_counter() - began)
    report("numbers", found, times)
    missed = [one for one in found if one.startswith(("wrong", "not found"))]
    print(*missed[:40], sep="\n")
    assert not [one for one in found if one.startswith("wrong")]
    assert len(missed) <= 0.01 * len(found)
    held("one number alone", found)


def test_arithmetic():
    """Arithmetic with fewer digits is often named, and never by another name."""
    pytest.importorskip("torch")
    for name in imprecise.BITS:
        if name != "TF32":
            found = [judged.judge_arithmetic(corruptions.random_problem(seed), name) for seed in range(NETWORKS)]
            print(f"\n{name} arithmetic of PyTorch: {dict(collections.Counter(one.split(':')[0] for one in found))}")
            assert not [one for one in found if one.startswith("wrong")]
            assert found.count("named") >= 0.75 * NETWORKS


def test_few_digits_that_are_no_evidence():
    """Hessians at other weights or with noise, rounded to few digits: none of it is lower precision."""
    counts = collections.Counter()
    for seed in range(NETWORKS):
        problem = corruptions.random_problem(seed)
        for matrix in judged.rounded_without_a_cause(problem, seed):
            why = hk.explain(matrix, *judged.given(problem))
            counts[why.status] += 1
            assert judged.is_stored(problem, matrix) or why.status == "unexplained", (seed, str(why))
    print(f"\nfew digits that are no evidence: {dict(counts)}")


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
