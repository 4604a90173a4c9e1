"""Fewer digits and finite differences, made by NumPy and PyTorch, told apart by size and pattern."""

from __future__ import annotations

from dataclasses import replace

import corruptions
import imprecise
import judged
import numpy as np
import pytest
from looped import each, few_quick

import hesskern as hk

FORMATS = [("float32", 24), ("TF32", 11), ("bfloat16", 8)]
PROBLEMS = [1, 2, 6, 8]
LONG = pytest.mark.long


def causes(matrix, problem):
    why = hk.explain(matrix, *judged.given(problem))
    return [finding.cause for finding in why.findings]


@pytest.mark.parametrize(("name", "bits"), FORMATS)
@pytest.mark.parametrize("seed", judged.quick_first((2,), PROBLEMS))
def test_rounded_inputs(seed, name, bits):
    problem = corruptions.random_problem(seed)
    data = {"X": imprecise.binary(problem.X, bits), "Y": imprecise.binary(problem.Y, bits)}
    weights = {"weights": tuple(imprecise.binary(w, bits) for w in problem.weights)}
    weights["biases"] = tuple(imprecise.binary(b, bits) for b in problem.biases)
    assert causes(corruptions.hessian(replace(problem, **data)), problem) == [f"{name}-data"]
    assert causes(corruptions.hessian(replace(problem, **weights)), problem) == [f"{name}-weights"]
    assert causes(corruptions.hessian(replace(problem, **data, **weights)), problem) == [f"{name}-inputs"]


def test_rounded_data_of_a_transposed_problem():
    problem = corruptions.random_problem(6)
    assert problem.X.shape[0] == problem.X.shape[1]
    matrix = corruptions.corrupted(imprecise.rounded_inputs(problem, "float32-data"), ["X-transposed"])
    assert causes(matrix, problem) == ["X-transposed", "float32-data"]


@pytest.mark.parametrize(("name", "bits"), [("float32", 24), ("float16", 11), ("bfloat16", 8)])
@pytest.mark.parametrize("seed", judged.quick_first((2,), PROBLEMS))
def test_rounded_results(seed, name, bits):
    problem = corruptions.random_problem(seed)
    assert causes(imprecise.binary(corruptions.hessian(problem), bits), problem) == [f"{name}-stored"]


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
        assert causes(imprecise.by_torch(problem, "float64"), problem) == []


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
        found += causes(0.5 * (matrix + matrix.T), problem)
    assert found.count("float32-arithmetic") >= least
    assert set(found) <= {"float32-arithmetic", "float32-stored"}


@pytest.mark.parametrize(("seed", "every"), judged.quick_first([(2, 32)], [(seed, 8) for seed in (2, 6, 18, 25)]))
def test_few_digits_are_no_evidence(seed, every):
    problem = corruptions.random_problem(seed)
    for matrix in list(judged.rounded_without_a_cause(problem, seed))[seed % 8 :: every]:
        why = hk.explain(matrix, *judged.given(problem))
        assert why.status == "unexplained" or judged.is_stored(problem, matrix), str(why)


def test_arithmetic_of_a_gpu():
    """TF32: factors rounded to eleven digits, products summed in float32."""
    rng = np.random.default_rng(1)
    weights = tuple(rng.standard_normal(shape) for shape in ((9, 6), (4, 9)))
    problem = corruptions.Problem(weights, (None, None), rng.standard_normal((30, 6)), rng.standard_normal((30, 4)))

    def times(left, right):
        factors = [imprecise.binary(factor, 11).astype(np.float32) for factor in (left, right)]
        return (factors[0] @ factors[1]).astype(np.float64)

    hidden = times(problem.X, weights[0].T)
    why = hk.explain(np.kron(np.eye(4), times(hidden.T, hidden)), *judged.given(problem), params=[1])
    assert [finding.cause for finding in why.findings] == ["TF32-arithmetic"]
    assert "allow_tf32 = False" in why.findings[0].fix


@pytest.mark.parametrize("step", [1e-4, 1e-5, 2.0**-20])
@pytest.mark.parametrize("seed", judged.quick_first((2,), PROBLEMS))
def test_differences_of_the_gradient(seed, step):
    problem = corruptions.random_problem(seed)
    _, gradient, theta, _ = imprecise.functions(problem)
    units = step * np.eye(len(theta))
    forward = np.array([(gradient(theta + unit) - gradient(theta)) / step for unit in units])
    central = np.array([(gradient(theta + unit) - gradient(theta - unit)) / (2 * step) for unit in units]).T
    said = {"forward": forward, "central": central, "made symmetric": (central + central.T) / 2}
    net, loss = judged.given(problem)
    for words, matrix in said.items():
        why = hk.explain(matrix, net, loss)
        (finding,) = why.findings
        assert finding.cause == "finite-differences" and words in finding.words
        assert f"h = {step:.3g}" in finding.words
        assert why.after < why.before or words != "forward"


@pytest.mark.parametrize("name", ["forward[1.4901161193847656e-08]", "backward[1e-8]"])
@each("seed", (3, 1, 8), quick=1)
def test_small_one_sided_steps_are_not_called_central(name, seed):
    problem = corruptions.random_problem(seed)
    why = hk.explain(imprecise.by_differences(problem, name), *judged.given(problem))
    assert "one-sided ones with twice this step: rounding hides which" in why.verdict


@pytest.mark.parametrize("seed", judged.quick_first((1,), (3, 8)))
def test_differences_at_other_weights_are_not_just_differences(seed):
    problem = corruptions.random_problem(seed)
    *_, theta, split = imprecise.functions(problem)
    rounding = np.linalg.norm(imprecise.by_differences(problem, "central[1e-6]") - corruptions.hessian(problem))
    rng = np.random.default_rng(seed)
    direction = [(rng.standard_normal(w.shape), b) for w, b in split(theta)]
    moved = corruptions.Problem(
        tuple(w + 1e-7 * d for (w, _), (d, _) in zip(split(theta), direction, strict=True)),
        problem.biases, problem.X, problem.Y, problem.kind, problem.decay,
    )  # fmt: skip
    apart = np.linalg.norm(corruptions.hessian(moved) - corruptions.hessian(problem))
    assert apart > 3 * rounding
    why = hk.explain(imprecise.by_differences(moved, "central[1e-6]"), *judged.given(problem))
    assert why.status == "unexplained"


@pytest.mark.parametrize("step", few_quick([1.7e-5, 3.3e-4, 7.3e-7], 0))
def test_steps_that_nobody_takes(step):
    """Entries on both sides of the diagonal are few of their units apart."""
    found = []
    for seed in range(1, 9):
        problem = corruptions.random_problem(seed)
        why = hk.explain(imprecise.by_differences(problem, f"central[{step}]"), *judged.given(problem))
        found += [finding.words for finding in why.findings]
    assert all("central differences" in words for words in found)
    assert sum(f"h = {step:.3g}" in words for words in found) >= 5


def test_second_differences_of_the_loss():
    problem = corruptions.random_problem(8)
    value, _, theta, _ = imprecise.functions(problem)
    units = 1e-3 * np.eye(len(theta))
    matrix = [
        [
            (value(theta + a + b) - value(theta + a - b) - value(theta - a + b) + value(theta - a - b)) / 4e-6
            for a in units
        ]
        for b in units
    ]
    (finding,) = hk.explain(np.array(matrix), *judged.given(problem)).findings
    assert "second differences of the loss" in finding.words and "h = 0.001" in finding.words


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
