"""Fewer digits and finite differences, made by NumPy and PyTorch, told apart by size and pattern."""

from __future__ import annotations

from dataclasses import replace

import corruptions
import imprecise
import judged
import numpy as np
import pytest
from looped import each

import hesskern as hk

FORMATS = [("float32", 24), ("TF32", 11), ("bfloat16", 8)]
PROBLEMS = [1, 2, 6, 8]


@pytest.mark.parametrize(("name", "bits"), FORMATS)
@pytest.mark.parametrize("seed", judged.quick_first((2,), PROBLEMS))
def test_rounded_inputs(seed, name, bits):
    problem = corruptions.random_problem(seed)
    data = {"X": imprecise.binary(problem.X, bits), "Y": imprecise.binary(problem.Y, bits)}
    weights = {"weights": tuple(imprecise.binary(w, bits) for w in problem.weights)}
    weights["biases"] = tuple(imprecise.binary(b, bits) for b in problem.biases)
    assert judged.causes(corruptions.hessian(replace(problem, **data)), problem) == [f"{name}-data"]
    assert judged.causes(corruptions.hessian(replace(problem, **weights)), problem) == [f"{name}-weights"]
    assert judged.causes(corruptions.hessian(replace(problem, **data, **weights)), problem) == [f"{name}-inputs"]


def test_rounded_data_of_a_transposed_problem():
    problem = corruptions.random_problem(6)
    assert problem.X.shape[0] == problem.X.shape[1]
    matrix = corruptions.corrupted(imprecise.rounded_inputs(problem, "float32-data"), ["X-transposed"])
    assert judged.causes(matrix, problem) == ["X-transposed", "float32-data"]


@pytest.mark.parametrize(("name", "bits"), [("float32", 24), ("float16", 11), ("bfloat16", 8)])
@pytest.mark.parametrize("seed", judged.quick_first((2,), PROBLEMS))
def test_rounded_results(seed, name, bits):
    problem = corruptions.random_problem(seed)
    assert judged.causes(imprecise.binary(corruptions.hessian(problem), bits), problem) == [f"{name}-stored"]


@pytest.mark.parametrize(("seed", "every"), judged.quick_first([(2, 32)], [(seed, 8) for seed in (2, 6, 18, 25)]))
def test_few_digits_are_no_evidence(seed, every):
    problem = corruptions.random_problem(seed)
    for matrix in list(judged.rounded_without_a_cause(problem, seed))[seed % 8 :: every]:
        why = hk.explain(matrix, *judged.given(problem))
        assert why.status == "unexplained" or judged.is_stored(problem, matrix), str(why)


@each(
    ("size", "symmetric"), [(size, symmetric) for size in (1e-3, 1e-7, 1e-10) for symmetric in (True, False)], quick=2
)
@pytest.mark.parametrize("seed", judged.quick_first((2,), PROBLEMS))
def test_noise_is_neither(seed, symmetric, size):
    problem = corruptions.random_problem(seed)
    H = corruptions.hessian(problem)
    noise = np.random.default_rng(seed).standard_normal(H.shape)
    noise = noise + noise.T if symmetric else noise
    why = hk.explain(H + size * noise, *judged.given(problem))
    assert why.status == "unexplained" and why.findings == ()


@pytest.mark.parametrize("seed", judged.quick_first((15,), range(0, 30, 3)))
def test_together_with_something_else(seed):
    problem, rng = corruptions.random_problem(seed), np.random.default_rng(seed)
    every, alone = judged.imprecise_pairs(problem), judged.imprecise_singles(problem)
    chosen = [every[k] for k in rng.choice(len(every), 8, replace=False)] + alone[seed % 3 :: 3]
    found = [judged.judge(problem, names) for names in chosen]
    assert set(found) <= {"named", "same matrix", "unchanged"}, [one for one in found if ":" in one]
