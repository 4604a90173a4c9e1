"""The group "jitted": the functions of `hesskern.numba` against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.typed import List

import hesskern.numba as nb
from attack import generator, loops
from attack.judge import Judge
from attack.loops import RunPlan
from attack.methods import DENSE
from attack.oracle import LONG, Truth

_KINDS = {"half_sum": nb.HALF_SUM, "sum": nb.SUM, "mean": nb.MEAN}


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Judge all functions on one problem; typed lists, so that one compilation serves all depths."""
    rng = np.random.default_rng([8, seed])
    judge = Judge()
    problem = generator.draw(rng)
    while problem.family == "scaled" or sum(weight.size for weight in problem.weights) > DENSE:
        problem = generator.draw(rng)
    truth = Truth(problem)
    unit = float(np.finfo(problem.X.dtype).eps) * truth.roundings
    kind, decay = _KINDS[problem.kind], problem.weight_decay
    X, Y = np.ascontiguousarray(problem.X), np.ascontiguousarray(problem.Y)
    v = rng.standard_normal(truth.count).astype(X.dtype)

    def lists() -> tuple[Any, Any]:
        weights, biases = List(), List()
        for weight, bias in zip(problem.weights, problem.biases, strict=True):
            weights.append(np.array(weight))
            biases.append(np.empty(0, X.dtype) if bias is None else np.array(bias))
        return weights, biases

    weights, biases = lists()
    with judge.check("numba forward"):
        judge.close(nb.forward(weights, X, biases), truth.activations[-1], truth.sizes_of_activations[-1], unit)
    with judge.check("numba loss"):
        judge.close(nb.loss(weights, X, Y, biases, kind, decay), truth.loss, truth.loss_size(unit), unit)
    with judge.check("numba gradient"):
        judge.close(nb.gradient(weights, X, Y, biases, kind, decay), *truth.gradient, unit)
    with judge.check("numba value_and_gradient"):
        value, gradient = nb.value_and_gradient(weights, X, Y, biases, kind, decay)
        judge.close(value, truth.loss, truth.loss_size(unit), unit, "value")
        judge.close(gradient, *truth.gradient, unit, "gradient")
    with judge.check("numba hvp"):
        found = nb.hvp(weights, X, Y, v, biases, kind, decay)
        judge.close(found, truth.hessian() @ v.astype(LONG), truth.hessian_size() @ abs(v.astype(LONG)), unit)
    with judge.check("numba full_hessian"):
        judge.close(nb.full_hessian(weights, X, Y, biases, kind, decay), truth.hessian(), truth.hessian_size(), unit)
    with judge.check("numba block_hessian"):
        row, column = (int(each) for each in rng.integers(0, len(problem.weights), 2))
        rows, columns = (slice(truth.offsets[each], truth.offsets[each + 1]) for each in (row, column))
        found = nb.block_hessian(weights, X, Y, row, column, biases, kind, decay)
        judge.close(found, truth.hessian()[rows, columns], truth.hessian_size()[rows, columns], unit)
    with judge.check("numba flatten and assign"):
        judge.same(nb.flatten(weights, biases), truth.theta, "flatten")
        other, empty = lists()
        nb.assign(other, v, empty)
        judge.same(nb.flatten(other, empty), v, "assign")
    if problem.family != "graded":
        with judge.check("numba gd_step"):
            _step(problem, truth, lists(), X, Y, kind, unit, judge)
    judge.wrong = [f"{sentence} [{problem}]" for sentence in judge.wrong]
    return judge


def _step(
    problem: Any, truth: Truth, lists: Any, X: np.ndarray, Y: np.ndarray, kind: int, unit: float, judge: Judge
) -> None:
    weights, biases = lists
    gradient, size = truth.gradient
    rate = float(0.1 / (1 + abs(gradient).max()))
    plan = RunPlan([rate], 1)
    value = nb.gd_step(weights, X, Y, rate, biases, kind, problem.weight_decay)
    judge.close(value, truth.loss, truth.loss_size(unit), unit, "loss")
    wanted = loops.path(problem, plan, LONG).thetas[-1]
    judge.close(nb.flatten(weights, biases), wanted, abs(truth.theta) + rate * size, unit, "parameters")
