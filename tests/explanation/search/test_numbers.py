"""The case: 174, 5345 and the posted formula; numbers and spectra in general."""

from __future__ import annotations

import time

import numpy as np
from looped import each

import hesskern as hk


def takes_less(call, seconds, repeats=30):
    """Whether one of many calls takes less processor time: on a busy machine most take longer than alone."""
    for _ in range(repeats):
        began = time.process_time()
        call()
        if time.process_time() - began < seconds:
            return True
    return False


def test_the_posted_matrix(case):
    net, loss, posted = case
    why = hk.explain(posted, net, loss, params=[1])
    assert [finding.cause for finding in why.findings] == ["X-transposed", "vec-column"]
    assert "use W1 @ X.T" in why.findings[0].fix and "samples are rows" in why.findings[0].fix
    assert any("Kronecker" in other for other in why.findings[1].also)
    assert why.before > 0.5 and why.after < 1e-14
    assert hk.explain(why.corrected, net, loss, params=[1]).status == "match"


def test_both_in_a_tenth_of_a_second(case):
    net, loss, posted = case
    assert takes_less(lambda: hk.explain(posted, net, loss, params=[1]), 0.1)
    assert takes_less(lambda: hk.explain(5345.81, net, loss, params=[1]), 0.1)


def derived(H, rank):
    values = np.sort(np.abs(np.linalg.eigvalsh(H)))[::-1]
    kept = values[:rank]
    return {
        "square-root": np.sqrt(kept[0] / kept[-1]),
        "square": (kept[0] / kept[-1]) ** 2,
        "rank[20]": kept[0] / kept[19],
        "norm[fro]": np.linalg.norm(kept) * np.linalg.norm(1 / kept),
        "norm[nuc]": kept.sum() * (1 / kept).sum(),
        "norm[1]": np.abs(H).sum(axis=0).max()
        * np.abs(np.linalg.pinv(H, rcond=1e-12, hermitian=True)).sum(axis=0).max(),
    }


def test_other_condition_numbers(case):
    net, loss, _ = case
    H = loss.hessian(net, params=[1]).toarray()
    for cause, value in derived(H, 25).items():
        why = hk.explain(f"{value:.9g}", net, loss, params=[1], quantity="condition")
        assert [finding.cause for finding in why.findings] == [cause]


def test_ranks(case):
    net, loss, _ = case
    assert hk.explain(25, net, loss, params=[1], quantity="rank").status == "match"
    few = hk.explain(20, net, loss, params=[1], quantity="rank")  # four samples, say
    assert few.status == "explained" and "last-batch[4]" in {f.cause for f in few.findings} | {
        cause for other in few.alternatives for cause in other.causes
    }
    assert hk.explain(500, net, loss, params=[1], quantity="rank").status == "unexplained"


def test_largest_eigenvalue_with_a_factor(case):
    net, loss, _ = case
    largest = loss.hessian(net, params=[1]).spectrum().max
    why = hk.explain(f"{2 * largest / 25:.10g}", net, loss, params=[1], quantity="largest")
    assert why.status == "explained" and why.findings[0].cause.startswith("scale[2/")


@each("number", np.exp(np.random.default_rng(0).uniform(np.log(1.5), np.log(1e6), 30)), quick=8)
def test_numbers_at_random_are_not_explained(case, number):
    net, loss, _ = case
    assert hk.explain(f"{number:.10g}", net, loss, params=[1]).status == "unexplained"
