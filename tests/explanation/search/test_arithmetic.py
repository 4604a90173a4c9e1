"""Arithmetic with fewer digits, known by the size and the pattern of its errors."""

from __future__ import annotations

import corruptions
import imprecise
import judged
import numpy as np
import pytest

import hesskern as hk

PROBLEMS = [1, 2, 6, 8]


LONG = pytest.mark.long


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("seeds", "least"), [pytest.param((2, 5, 7), 3, id="some"), pytest.param(range(8), 5, id="all", marks=LONG)]
)
def test_arithmetic_of_torch(name, seeds, least):
    pytest.importorskip("torch")
    found = [judged.judge_arithmetic(corruptions.random_problem(seed), name) for seed in seeds]
    assert set(found) <= {"named", "same matrix", "unchanged", "not found"}
    assert found.count("named") >= least


def test_arithmetic_of_torch_in_float64():
    pytest.importorskip("torch")
    for seed in PROBLEMS:
        problem = corruptions.random_problem(seed)
        assert judged.causes(imprecise.by_torch(problem, "float64"), problem) == []


@pytest.mark.parametrize(
    ("seeds", "least"), [pytest.param((0, 2, 6), 3, id="some"), pytest.param(range(12), 6, id="all", marks=LONG)]
)
def test_arithmetic_in_float32_made_symmetric(seeds, least):
    """Its entries have more digits than float32; its errors are those of float32."""
    pytest.importorskip("torch")
    found = []
    for seed in seeds:
        problem = corruptions.random_problem(seed)
        matrix = imprecise.by_torch(problem, "float32")
        found += judged.causes(0.5 * (matrix + matrix.T), problem)
    assert found.count("float32-arithmetic") >= least
    assert set(found) <= {"float32-arithmetic", "float32-stored"}


def test_arithmetic_of_a_gpu():
    """TF32: factors rounded to eleven digits, products summed in float32."""
    rng = np.random.default_rng(1)
    weights = tuple(rng.standard_normal(shape) for shape in ((9, 6), (4, 9)))
    problem = corruptions.UserProblem(weights, (None, None), rng.standard_normal((30, 6)), rng.standard_normal((30, 4)))

    def times(left, right):
        factors = [imprecise.binary(factor, 11).astype(np.float32) for factor in (left, right)]
        return (factors[0] @ factors[1]).astype(np.float64)

    hidden = times(problem.X, weights[0].T)
    why = hk.explain(np.kron(np.eye(4), times(hidden.T, hidden)), *judged.given(problem), params=[1])
    assert [finding.cause for finding in why.findings] == ["TF32-arithmetic"]
    assert "allow_tf32 = False" in why.findings[0].fix
