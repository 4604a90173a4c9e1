"""Two more witnesses of second derivatives: PyTorch's autograd, and finite differences of the gradient."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import oracle
import problems
import pytest


def relative(actual: object, expected: object, tolerance: float = 1e-12) -> None:
    """Compare arrays relative to the largest entry expected; where all of them are zero, so must be what is found."""
    found, wanted = np.asarray(actual), np.asarray(expected)
    assert found.shape == wanted.shape
    scale = float(np.max(np.abs(wanted), initial=0.0))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale)


def _torch_forward(problem: problems.Problem, flat):
    torch = pytest.importorskip("torch")
    prediction, at = torch.tensor(problem.X), 0
    for weight, bias in zip(problem.weights, problem.biases, strict=True):
        matrix = flat[at : at + weight.size].reshape(weight.shape)
        at += weight.size
        shift = None if bias is None else flat[at : at + bias.size]
        at += 0 if bias is None else bias.size
        prediction = torch.nn.functional.linear(prediction, matrix, shift)
    return prediction


def autograd(problem: problems.Problem) -> tuple[np.ndarray, np.ndarray]:
    """Return Hessian and Gauss-Newton matrix, in float64: second derivatives of the loss, and those of PyTorch's J."""
    torch = pytest.importorskip("torch")
    Y = torch.tensor(problem.Y)
    theta = torch.tensor(oracle.flatten(problem.weights, problem.biases))

    def value(flat):
        error = _torch_forward(problem, flat) - Y
        loss = {
            "half_sum": 0.5 * torch.nn.functional.mse_loss(error, torch.zeros_like(error), reduction="sum"),
            "sum": torch.nn.functional.mse_loss(error, torch.zeros_like(error), reduction="sum"),
            "mean": torch.nn.functional.mse_loss(error, torch.zeros_like(error)),
        }[problem.kind]
        return loss + 0.5 * problem.weight_decay * (flat**2).sum()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for matrices as small as these, waking a second one takes ten times as long
    try:
        hessian = torch.autograd.functional.hessian(value, theta, vectorize=True).numpy()
        jacobian = torch.func.jacrev(lambda flat: _torch_forward(problem, flat).ravel())(theta).numpy()
    finally:
        torch.set_num_threads(threads)
    scale = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[problem.kind]
    return hessian, scale * jacobian.T @ jacobian


@functools.cache
def of_general(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what autograd says about ``problems.general(seed)``; several backends ask for it."""
    return autograd(problems.general(seed))


def dense(problem: problems.Problem) -> dict[str, np.ndarray]:
    """Return the full Hessian, its Gauss-Newton part and its functional part by the oracle's differentiation.

    Without a residual only the Gauss-Newton part is left: it is the Hessian for targets that equal the predictions.
    """
    theta = oracle.flatten(problem.weights, problem.biases)
    full = oracle.hessian(theta, problem)
    reached = oracle.forward(problem.weights, problem.biases, problem.X)
    plain = oracle.hessian(theta, dataclasses.replace(problem, Y=reached, weight_decay=0.0))
    functional = full - plain
    for layer in oracle.layer_slices(problem.weights, problem.biases):
        functional[layer, layer] = 0.0  # predictions are linear in the parameters of one layer
    return {"full": full, "gauss_newton": plain, "functional": functional}


def positions(problem: problems.Problem, names: Sequence[str]) -> np.ndarray:
    """Return where the parameters of these names are in the flat vector."""
    where, at = {}, 0
    for layer, (weight, bias) in enumerate(zip(problem.weights, problem.biases, strict=True)):
        where[f"{layer}.weight"] = np.arange(at, at + weight.size)
        at += weight.size
        if bias is not None:
            where[f"{layer}.bias"] = np.arange(at, at + bias.size)
            at += bias.size
    return np.concatenate([where[name] for name in names])


@functools.cache
def _stencil(points: int) -> np.ndarray:
    """Weights of ``f(k) - f(-k)``, k = 1..points, that give f'(0) exactly for polynomials of degree 2 * points."""
    k = np.arange(1, points + 1)
    odd = 2.0 * k[None, :] ** (2 * np.arange(points)[:, None] + 1)  # k-th difference of t, t^3, t^5, ...
    return np.linalg.solve(odd, np.eye(points)[0])


def finite_differences(problem: problems.Problem) -> np.ndarray:
    """Return the Hessian by central differences of the package's gradient, without truncation error.

    Along a line the gradient of a network of depth L is a polynomial of degree 2L - 1, so L central differences
    determine its slope, whatever the step: a step near one keeps the rounding errors small as well.
    """
    loss, net = problem.loss(), problem.network()
    theta = net.flatten()
    weights = _stencil(len(problem.weights))
    step = 0.5
    rows = []
    for unit in np.eye(len(theta)):
        differences = [
            loss.gradient(net.unflatten(theta + k * step * unit))
            - loss.gradient(net.unflatten(theta - k * step * unit))
            for k in range(1, len(weights) + 1)
        ]
        rows.append(weights @ np.array(differences) / step)
    return np.array(rows)


def exact_gauss_newton(problem: problems.Problem) -> np.ndarray:
    """Return scale times J.T J; predictions are linear in each parameter, so that differences are J."""
    theta = oracle.flatten(problem.weights, problem.biases)

    def predictions(flat):
        weights, biases, at = [], [], 0
        for weight, bias in zip(problem.weights, problem.biases, strict=True):
            weights.append(flat[at : at + weight.size].reshape(weight.shape))
            at += weight.size
            biases.append(None if bias is None else flat[at : at + bias.size])
            at += 0 if bias is None else bias.size
        return oracle.forward(weights, biases, problem.X).ravel()

    here = predictions(theta)
    jacobian = np.array([predictions(theta + unit) - here for unit in np.eye(len(theta), dtype=int)])
    scale = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[problem.kind]
    return scale * (jacobian @ jacobian.T)
