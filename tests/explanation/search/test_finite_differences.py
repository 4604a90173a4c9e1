"""Finite differences, told apart from everything else by the size and the pattern of their errors."""

from __future__ import annotations

import corruptions
import imprecise
import judged
import numpy as np
import pytest
from looped import each

import hesskern as hk

PROBLEMS = [1, 2, 6, 8]


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
    moved = corruptions.UserProblem(
        tuple(w + 1e-7 * d for (w, _), (d, _) in zip(split(theta), direction, strict=True)),
        problem.biases, problem.X, problem.Y, problem.kind, problem.decay,
    )  # fmt: skip
    apart = np.linalg.norm(corruptions.hessian(moved) - corruptions.hessian(problem))
    assert apart > 3 * rounding
    why = hk.explain(imprecise.by_differences(moved, "central[1e-6]"), *judged.given(problem))
    assert why.status == "unexplained"


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
