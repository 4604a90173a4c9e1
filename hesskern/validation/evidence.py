"""The two sides of a comparison: the results of hesskern and of the witnesses, each computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from hesskern._base import decompositions
from hesskern._base.cached import cached_property
from hesskern.curvature.hessian import Hessian
from hesskern.losses.squared import SquaredLoss
from hesskern.validation.autograd import AutogradWitness
from hesskern.validation.case import Matrix, Training, Trajectory, ValidationCase
from hesskern.validation.differences import DifferenceWitness
from hesskern.validation.rounding import Bounds, ErrorBound, norm, square

Witness = AutogradWitness | DifferenceWitness
T = TypeVar("T")

#: Most multiply-adds of a Lanczos iteration on autograd's products, some seconds.
_LANCZOS_WORK = 5e9
#: Most parameters after all reductions for which hesskern's eigenproblem takes less than about a second.
_LARGEST_EIGENPROBLEM = 1200


class Subject:
    """The results of one backend of hesskern for a problem."""

    def __init__(self, problem: ValidationCase, backend: str) -> None:
        self.problem, self.backend, self.net = problem, backend, problem.net
        original = problem.loss
        self.loss = SquaredLoss(original.X, original.Y, original.kind, original.weight_decay, backend=backend)

    def decayed(self, decay: float) -> SquaredLoss:
        """Return the loss with another weight decay."""
        original = self.problem.loss
        return SquaredLoss(original.X, original.Y, original.kind, decay, backend=self.backend)

    @cached_property
    def hessian(self) -> Hessian:
        """The Hessian of all parameters."""
        return self.loss.hessian(self.net)

    @cached_property
    def gauss_newton(self) -> Hessian:
        """Its Gauss-Newton part."""
        return self.hessian.gauss_newton()

    @cached_property
    def functional(self) -> Hessian:
        """Its functional part."""
        return self.hessian.functional()

    @cached_property
    def eigenpairs(self) -> tuple[Matrix, Matrix]:
        """All eigenvalues and eigenvectors of the Hessian."""
        values, vectors = self.hessian.eigh()
        return values, vectors

    def mode(self, name: str) -> Hessian:
        """Return the operator of "block" (all of the Hessian), "gauss_newton" or "functional"."""
        return {"block": self.hessian, "gauss_newton": self.gauss_newton, "functional": self.functional}[name]


class Evidence:
    """The results of the witnesses for a problem, with bounds on everybody's rounding.

    Parameters
    ----------
    problem : ValidationCase
    directions : int
        Number of random vectors that sample a matrix that is not formed.
    dense_size : int
        The most parameters for which matrices are formed; with 0 the third witness takes products only.
    seed : int
        Seed of the vectors.
    """

    def __init__(self, problem: ValidationCase, directions: int, dense_size: int, seed: int) -> None:
        self.problem = problem
        self.autograd, self.differences = AutogradWitness(problem), DifferenceWitness(problem, thorough=dense_size > 0)
        small = problem.size <= dense_size
        self.dense = small and self.autograd.dense
        self.dense_jacobian = self.dense and self.autograd.dense_jacobian
        self.dense_differences = self.dense_jacobian and self.differences.dense
        rng = np.random.default_rng([seed, problem.size])
        drawn = rng.standard_normal((directions, problem.size)).astype(np.float32).astype(np.float64)
        self.vectors: list[Matrix] = list(drawn)  # float32 numbers, so that hesskern in float32 gets the same ones
        self.positions = np.sort(rng.choice(problem.size, min(problem.size, 2 * directions), replace=False))
        self._kept: dict[Any, Any] = {}

    # Rounding ---------------------------------------------------------------------------------------------------------

    @cached_property
    def hesskern_bounds(self) -> Bounds:
        """Bounds for hesskern."""
        return Bounds(self.problem, self.problem.unit, rotated=True)

    @cached_property
    def autograd_bounds(self) -> Bounds:
        """Bounds for autograd."""
        return Bounds(self.problem, self.autograd.unit, rotated=False)

    def part(self, bounds: Bounds, mode: str, row: int | None = None, column: int | None = None) -> ErrorBound:
        """Return size and error of a part, or of a block of it, as hesskern or the witnesses compute it."""
        if bounds is self.autograd_bounds:
            return bounds.difference(mode, row, column)
        return bounds.whole(mode) if row is None or column is None else getattr(bounds, mode)(row, column)

    @cached_property
    def reach(self) -> float:
        """Return the size of the largest numbers that the computation goes through; infinite beyond float64."""
        bounds = self.hesskern_bounds
        loss = 0.5 * bounds.scale * square(bounds.residual.size)
        decay = square(norm(self.problem.theta))  # some checks have weight decay
        sizes = bounds.prediction.size, loss, bounds.whole_gradient.size, bounds.whole("block").size, decay
        return max(sizes) if np.isfinite(sizes).all() else np.inf

    # Derived quantities -----------------------------------------------------------------------------------------------

    def kept(self, key: Any, make: Callable[[], T]) -> T:
        """Return the result of `make`, which is called once: several backends need it."""
        if key not in self._kept:
            self._kept[key] = make()
        value: T = self._kept[key]
        return value

    def matrix(self, witness: Witness, mode: str) -> Matrix:
        """Return the dense "block" (all of the Hessian), "gauss_newton" or "functional" part."""

        def make() -> Matrix:
            if mode == "block":
                return witness.hessian()
            if mode == "gauss_newton":
                return witness.gauss_newton()
            functional = witness.hessian() - witness.gauss_newton()
            functional.reshape(-1)[:: len(functional) + 1] -= self.problem.decay
            return functional

        return self.kept((witness.name, "matrix", mode), make)

    def product(self, witness: Witness, mode: str, vector: Matrix) -> Matrix:
        """Return the product of a part with a vector."""

        def make() -> Matrix:
            if mode == "block":
                return witness.product(vector)
            if mode == "gauss_newton":
                return witness.gauss_newton_product(vector)
            return witness.product(vector) - witness.gauss_newton_product(vector) - self.problem.decay * vector

        return self.kept((witness.name, "product", mode, hashlib.blake2b(vector.tobytes()).digest()), make)

    def restricted(self, layer: int) -> list[Matrix]:
        """Return the random vectors, set to zero outside one layer's parameters."""
        where = self.problem.layers[layer]
        vectors = []
        for vector in self.vectors:
            part = np.zeros_like(vector)
            part[where] = vector[where]
            vectors.append(part)
        return vectors

    def eigenvalues(self, witness: Witness, mode: str, layer: int | None = None) -> Matrix:
        """Return the eigenvalues of a dense matrix, ascending; of one layer's block."""

        def make() -> Matrix:
            where = slice(None) if layer is None else self.problem.layers[layer]
            matrix = self.matrix(witness, mode)[where, where]
            return decompositions.eigvalsh(((matrix + matrix.T) / 2).astype(np.float64, copy=False))

        return self.kept((witness.name, "eigenvalues", mode, layer), make)

    def trajectory(self, witness: Witness, how: Training) -> Trajectory:
        """Return a training by a witness, with its own weight decay."""

        def make() -> Trajectory:
            if how.decay == self.problem.decay:
                return witness.train(how)
            return type(witness)(self.problem.with_loss(self.problem.kind, how.decay)).train(how)

        return self.kept((witness.name, how), make)

    # The largest eigenvalue -------------------------------------------------------------------------------------------

    @property
    def lanczos_affordable(self) -> bool:
        """Whether a Lanczos iteration on autograd's products takes seconds at most."""
        return 600.0 * self.problem.work <= _LANCZOS_WORK

    @cached_property
    def reduced_size(self) -> int:
        """Size of hesskern's eigenproblem: parameters after each wide layer is reduced to the widths next to it."""
        widths, biases = list(self.problem.net.widths), [bias is not None for bias in self.problem.biases]
        changed = True
        while changed:
            changed = False
            for k in range(1, len(widths) - 1):
                kept = widths[k - 1] + biases[k - 1] + widths[k + 1]
                if widths[k] > kept:
                    widths[k], changed = kept, True
        return sum(b * (a + bias) for a, b, bias in zip(widths, widths[1:], biases, strict=False))

    @property
    def eigenproblem_affordable(self) -> bool:
        """Whether hesskern's spectrum takes about a second at most."""
        return self.reduced_size <= _LARGEST_EIGENPROBLEM

    def largest(self) -> tuple[float, float]:
        """Return autograd's largest eigenvalue, and the residual of its Ritz vector."""

        def make() -> tuple[float, float]:
            if self.dense:
                return float(self.eigenvalues(self.autograd, "block")[-1]), 0.0
            size = self.problem.size
            operator = LinearOperator((size, size), matvec=self.autograd.product, dtype=np.float64)
            values, vectors = eigsh(operator, k=1, which="LA", v0=self.vectors[0], tol=1e-13)
            ritz = vectors[:, 0]
            return float(values[0]), norm(self.autograd.product(ritz) - values[0] * ritz)

        return self.kept("largest", make)

    def norm(self) -> float:
        """Return roughly the spectral norm of the Hessian, for learning rates and dampings; NaN if it overflowed."""

        def make() -> float:
            if self.dense:
                if not np.isfinite(self.matrix(self.autograd, "block")).all():
                    return np.nan  # called while the checks are planned; most of them are still possible
                return float(np.abs(self.eigenvalues(self.autograd, "block")).max())
            vector, size = self.vectors[0] / norm(self.vectors[0]), 0.0
            for _ in range(8):
                vector = self.autograd.product(vector)
                size = norm(vector)
                if size == 0.0:
                    return 0.0
                vector /= size
            return 1.5 * size

        return self.kept("norm", make)
