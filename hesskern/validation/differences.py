r"""The third witness: exact differences, in extended precision if the processor has it.

The loss of a linear network is a polynomial. In a single parameter both the loss and its gradient have degree 2, so
central differences with *any* step are derivatives, without truncation error. Along a line the gradient has degree 2L -
1, and L central differences determine its slope. Steps are about as large as the weights, so little cancels. They are
differences of the definition itself, written out here: the residual, its squares, and the chain rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base.cached import cached_property
from hesskern.validation.case import Matrix, Training, Trajectory, ValidationCase
from hesskern.validation.rounding import Bounds, factor_bound, norm, square

Extended = NDArray[Any]

#: Most multiply-adds of one pass in extended precision; above, float64 is used, for which there is a BLAS.
_EXTENDED_WORK = 1_000_000
#: Most multiply-adds for a dense matrix, about half a second; above, differences go along a few directions only.
_DENSE_WORK = {True: 2e7, False: 1e9}
#: Numbers in one batch of networks.
_BATCH = 20_000


class DifferenceWitness:
    """Values and derivatives of one problem by exact differences."""

    name = "differences"

    def __init__(self, problem: ValidationCase, *, thorough: bool = True) -> None:
        self.problem, self._thorough = problem, thorough
        self._extended = problem.work <= _EXTENDED_WORK
        kind = np.longdouble if self._extended else np.float64
        self.unit = float(np.finfo(kind).eps) / 2
        self._theta: Extended = problem.theta.astype(kind)
        self._X: Extended = problem.X.astype(kind)
        self._Y: Extended = problem.Y.astype(kind)
        half = {"half_sum": 0.5, "sum": 1.0}
        self._half = kind(half[problem.kind]) if problem.kind in half else kind(1) / kind(problem.Y.size)
        self._decay = kind(problem.decay)
        # Powers of two, so that adding a step rounds only in extreme cases.
        self._steps = np.empty(problem.size, dtype=kind)
        for where in problem.layers:
            typical = norm(problem.theta[where]) / math.sqrt(where.stop - where.start)
            self._steps[where] = 2.0 ** np.clip(np.round(np.log2(typical)), -60, 1000) if typical else 1.0

    # The definition ---------------------------------------------------------------------------------------------------

    def _layers(self, thetas: Extended) -> Iterator[tuple[Extended, Extended | None]]:
        for layer, weight in enumerate(self.problem.weights):
            where = self.problem.names[f"{layer}.weight"]
            bias = self.problem.names.get(f"{layer}.bias")
            yield (
                thetas[:, where].reshape(len(thetas), *weight.shape),
                None if bias is None else thetas[:, None, bias],
            )

    def _activations(self, thetas: Extended, X: Extended) -> list[Extended]:
        activations = [np.broadcast_to(X, (len(thetas), *X.shape))]
        for weight, bias in self._layers(thetas):
            activation = activations[-1] @ weight.transpose(0, 2, 1)
            activations.append(activation if bias is None else activation + bias)
        return activations

    def _losses(self, thetas: Extended) -> Extended:
        residual = self._activations(thetas, self._X)[-1] - self._Y
        losses: Extended = self._half * np.sum(residual**2, axis=(1, 2)) + self._decay / 2 * np.sum(thetas**2, axis=1)
        return losses

    def _gradients(self, thetas: Extended, rows: Any = slice(None)) -> Extended:
        """Return one gradient for each row of parameters, by the chain rule."""
        Y = self._Y[rows]
        activations = self._activations(thetas, self._X[rows])
        half = self._half * self._Y.size / Y.size if self.problem.kind == "mean" else self._half
        return self._pulled(thetas, activations, 2 * half * (activations[-1] - Y)) + self._decay * thetas

    def _pulled(self, thetas: Extended, activations: list[Extended], delta: Extended) -> Extended:
        """Return ``J.T delta``."""
        pieces: list[Extended] = []
        for layer, (weight, bias) in reversed(list(enumerate(self._layers(thetas)))):
            if bias is not None:
                pieces.append(delta.sum(axis=1))
            product = delta.transpose(0, 2, 1) @ activations[layer]
            pieces.append(product.reshape(len(thetas), -1))
            delta = delta @ weight
        return np.concatenate(pieces[::-1], axis=1)

    # Differences ------------------------------------------------------------------------------------------------------

    def _around(self) -> Iterator[tuple[NDArray[np.intp], Extended, Extended]]:
        """Yield, some at a time, positions and the parameters with a step up and a step down at each."""
        numbers = self.problem.size + self.problem.samples * max(self.problem.net.widths)
        count = max(1, _BATCH // numbers)
        for start in range(0, self.problem.size, count):
            at = np.arange(start, min(start + count, self.problem.size))
            shift = np.zeros((len(at), self.problem.size), dtype=self._theta.dtype)
            shift[np.arange(len(at)), at] = self._steps[at]
            yield at, self._theta + shift, self._theta - shift

    def affordable(self, passes: int) -> bool:
        """Whether this number of passes of the samples takes no more than about half a second."""
        return passes * self.problem.work <= _DENSE_WORK[self._extended]

    @property
    def dense(self) -> bool:
        """Whether a dense Hessian is affordable."""
        return self.affordable(6 * self.problem.size)

    @property
    def _differenced(self) -> bool:
        return self._thorough and self.affordable(2 * self.problem.size)

    def prediction(self) -> Matrix:
        """Return the predictions (N, o)."""
        return self._plain(self._activations(self._theta[None], self._X)[-1][0])

    def loss(self) -> float:
        """Return the loss."""
        return float(self._losses(self._theta[None])[0])

    @cached_property
    def _gradient(self) -> Matrix:
        if not self._differenced:
            return self._plain(self._gradients(self._theta[None])[0])
        gradient = np.empty_like(self._theta)
        for at, up, down in self._around():
            gradient[at] = (self._losses(up) - self._losses(down)) / (2 * self._steps[at])
        return self._plain(gradient)

    def gradient(self) -> Matrix:
        """Return the gradient (P,): differences of the loss, or the chain rule if these would take too long."""
        return self._gradient

    @cached_property
    def _hessian(self) -> Matrix:
        hessian = np.empty((self.problem.size,) * 2, dtype=np.float64)
        for at, up, down in self._around():
            hessian[at] = (self._gradients(up) - self._gradients(down)) / (2 * self._steps[at])[:, None]
        return hessian

    def hessian(self) -> Matrix:
        """Return the dense Hessian: differences of the gradient."""
        return self._hessian

    @cached_property
    def _gauss_newton(self) -> Matrix:
        jacobian = np.empty((self.problem.size, self._Y.size), dtype=self._theta.dtype)
        for at, up, down in self._around():
            moved = self._activations(up, self._X)[-1] - self._activations(down, self._X)[-1]
            jacobian[at] = moved.reshape(len(at), -1) / (2 * self._steps[at])[:, None]
        return self._plain(2 * self._half * (jacobian @ jacobian.T))

    def gauss_newton(self) -> Matrix:
        """Return ``J.T J`` times the scale of the loss; predictions are affine in each parameter."""
        return self._gauss_newton

    def product(self, vector: Matrix) -> Matrix:
        """Return H v, the slope of the gradient along v."""
        step, weights, thetas = self._line(vector)
        slopes = weights @ np.array([self._gradients(row[None])[0] for row in thetas])
        return self._plain(slopes / step)

    def gauss_newton_product(self, vector: Matrix) -> Matrix:
        """Return the product with the Gauss-Newton part."""
        step, weights, thetas = self._line(vector)
        moved = np.tensordot(weights, [self._activations(row[None], self._X)[-1][0] for row in thetas], 1) / step
        point = self._theta[None]
        return self._plain(self._pulled(point, self._activations(point, self._X), 2 * self._half * moved[None])[0])

    def _line(self, vector: Matrix) -> tuple[Any, Extended, Extended]:
        """Return step, weights and points along a line that give the slope of a polynomial of degree 2L exactly."""
        kind, depth = self._theta.dtype.type, len(self.problem.weights)
        step = kind(2.0 ** np.floor(np.log2(self._reach / depth / norm(vector))))
        # sum_k 2 w_k k = 1, and sum_k w_k k^j = 0 for j = 3, 5, ...; even powers cancel between k and -k.
        half = [
            kind((-1) ** (k + 1) * math.factorial(depth) ** 2)
            / kind(k * math.factorial(depth - k) * math.factorial(depth + k))
            for k in range(1, depth + 1)
        ]
        points = np.arange(1, depth + 1).astype(kind)
        both = np.concatenate([points, -points])
        weights = np.array([*half, *(-weight for weight in half)])
        return step, weights, self._theta + step * both[:, None] * vector

    def train(self, how: Training) -> Trajectory:
        """Return the trajectory of gradient descent, step by step."""
        kind = self._theta.dtype.type
        theta, velocity = self._theta[None], np.zeros_like(self._theta[None])
        thetas, losses = [theta[0]], []
        for rows in how.batches(self.problem.samples):
            losses.append(float(self._losses(theta)[0]))
            gradient = self._gradients(theta, rows)
            velocity = kind(how.momentum) * velocity + gradient
            change = gradient + kind(how.momentum) * velocity if how.nesterov else velocity
            theta = theta - kind(how.lr) * change
            thetas.append(theta[0])
        return Trajectory([self._plain(vector) for vector in thetas], losses)

    @staticmethod
    def _plain(array: Extended) -> Matrix:
        return array.astype(np.float64, copy=False)

    # Errors -----------------------------------------------------------------------------------------------------------

    @cached_property
    def _reach(self) -> float:
        """How far, in norm, weights move along a line: less than the smallest nonzero norm of a layer."""
        norms = [factor_bound(weight).norm for weight in self.problem.weights]
        return min((length for length in norms if length > 0), default=1.0) / len(norms)

    @cached_property
    def _near(self) -> Bounds:
        """Bounds at the points one parameter away."""
        return Bounds(self.problem, self.unit, rotated=False, margin=float(self._steps.max()))

    @cached_property
    def _inverse_steps(self) -> float:
        return norm(1.0 / self._steps.astype(np.float64))

    @property
    def gradient_error(self) -> float:
        """Bound on the error of the gradient."""
        if not self._differenced:
            return Bounds(self.problem, self.unit, rotated=False).whole_gradient.error
        near = self._near
        largest = 0.5 * near.scale * square(near.residual.size) + 0.5 * self.problem.decay * square(near.theta)
        return near.loss(largest) * self._inverse_steps

    @property
    def curvature_error(self) -> float:
        """Bound on the error of a dense matrix of second derivatives."""
        return 2.0 * self._near.whole_gradient.error * self._inverse_steps

    @cached_property
    def product_error(self) -> float:
        """Bound on the error of a product with a vector of length 1.

        The weights of the differences along a line add up to less than 4, for any depth.
        """
        moved = Bounds(self.problem, self.unit, rotated=False, margin=self._reach)
        shortest = self._reach / len(self.problem.weights) / 2
        return 4.0 * moved.whole_gradient.error / shortest
