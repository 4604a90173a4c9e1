r"""Curvature with respect to parameters that weights are computed from: weight norm, orthogonal weights, pruning.

With the weights ``w = φ(θ)``, the Jacobian ``J`` of φ and the gradient ``g`` with respect to the weights:

    ``gradient = J.T g``,  ``H_θ = J.T H_w J + Σ_k g_k ∇²φ_k``,

without the second term for the Gauss-Newton matrix. ``H_w`` is exact, from hesskern; φ is differentiated by autograd.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hesskern._base import decompositions, memory
from hesskern._base.array_types import Array
from hesskern._base.lanczos import steps
from hesskern.curvature.hessian import Hessian
from hesskern.linalg.certificate import DenseOperator
from hesskern.linalg.eigenbasis import DenseBasis, Eigenbasis, ValuesOnly
from hesskern.linalg.extreme_pairs import NOT_ASKED, FewPairs, ToFactorise, searched, worthwhile
from hesskern.linalg.symmetric_operator import CurvatureOperator, Which, dense_target

#: Number of random vectors in an estimate of a norm.
_VECTORS = 3
#: Up to this size a few eigenvalues are verified by the dense matrix, each column of which takes backward passes.
_MOST_COLUMNS = 2000


@contextmanager
def differentiating() -> Iterator[None]:
    """Record a graph, also in the caller's no_grad or inference mode."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        yield


class Reparametrisation:
    """Weights as a function of parameters, at one point.

    Parameters
    ----------
    function : callable
        Takes a list of parameters, returns a list of weights.
    parameters : sequence of tensors
        The point, in float64.

    Raises
    ------
    ValueError
        If PyTorch cannot differentiate the function twice, or its first or second derivative is wrong.
    """

    def __init__(self, function: Callable[[list[Tensor]], list[Tensor]], parameters: Sequence[Tensor]) -> None:
        self.size = sum(parameter.numel() for parameter in parameters)
        self._function = function
        with differentiating():
            self._parameters = [parameter.clone().requires_grad_() for parameter in parameters]
            self._weights = torch.cat([weight.reshape(-1) for weight in function(self._parameters)]).double()
            self._seed = torch.zeros_like(self._weights, requires_grad=True)
            self._pulled = self._gradient(self._weights, self._seed)  # J.T seed, which is linear in the seed
        self._check()

    def _check(self) -> None:
        """Compare derivatives with finite differences: PyTorch's are wrong for a few functions.

        Entries whose first derivative is zero are not changed: the weights may jump with them (signs, masks).
        """
        generator = torch.Generator("cpu").manual_seed(0)
        direction = torch.randn(len(self._weights), generator=generator, dtype=torch.float64, device="cpu")
        step = torch.randn(self.size, 1, generator=generator, dtype=torch.float64, device="cpu")
        largest = [parameter.detach().abs().max() for parameter in self._parameters if parameter.numel()]
        sizes = [parameter.numel() for parameter in self._parameters if parameter.numel()]
        # The unit of each entry is the largest entry of its parameter.
        unit = torch.stack(largest).double().repeat_interleave(torch.tensor(sizes))
        with differentiating():
            slope = self._gradient(self._weights, direction).detach()
        step[:, 0] *= unit * (slope != 0)
        width = 1e-6
        steps = torch.split(width * step[:, 0], [parameter.numel() for parameter in self._parameters])
        slopes, values = [], []
        for sign in (1.0, -1.0):
            with differentiating():
                moved = [
                    (parameter.detach() + sign * part.reshape(parameter.shape)).requires_grad_()
                    for parameter, part in zip(self._parameters, steps, strict=True)
                ]
                weights = torch.cat([weight.reshape(-1) for weight in self._function(moved)]).double()
                slopes.append(self._gradient(weights, direction, moved).detach())
            values.append(weights.detach())
        moved_by, pushed = (values[0] - values[1]) / (2 * width), self.pushed(step)[:, 0]
        if not (moved_by - pushed).abs().max() <= 1e-5 * (pushed.abs().max() + self._weights.detach().abs().max()):
            raise ValueError(
                "PyTorch's derivative of the function that computes the weights differs from its finite difference; "
                "expected a function that is smooth here and detaches nothing, or params without the parameters that "
                "weights are computed from."
            )
        expected = unit * (slopes[0] - slopes[1]) / (2 * width)
        product = unit * self.curvature(direction)(step)[:, 0]
        allowed = 1e-5 * (float(expected.abs().max()) + float((unit * slope).abs().max()))
        if not (product - expected).abs().max() <= allowed:
            raise ValueError(
                "PyTorch's second derivative of the function that computes the weights differs from the finite "
                "difference of its first derivative; expected a function that is smooth here, or params without the "
                "parameters that weights are computed from."
            )

    def _gradient(self, value: Tensor, direction: Tensor, parameters: Sequence[Tensor] | None = None) -> Tensor:
        """Return the derivative of ``value @ direction`` with respect to the parameters, with its graph."""
        leaves = self._parameters if parameters is None else parameters
        if not value.requires_grad:
            return torch.zeros(self.size, dtype=torch.float64)
        try:
            slopes = torch.autograd.grad(
                value, leaves, direction, create_graph=True, retain_graph=True, allow_unused=True
            )
        except RuntimeError as error:
            raise ValueError(
                f"PyTorch cannot differentiate twice the function that computes the weights ({error}); expected params "
                "without the parameters that weights are computed from."
            ) from error
        parts = [
            torch.zeros_like(parameter) if slope is None else slope
            for slope, parameter in zip(slopes, leaves, strict=True)
        ]
        return torch.cat([part.reshape(-1) for part in parts]).double()

    def pulled(self, columns: Tensor) -> Tensor:
        """Return ``J.T columns``."""
        return _by_columns(lambda u: self._gradient(self._weights, u), columns)

    def pushed(self, columns: Tensor) -> Tensor:
        """Return ``J columns``."""
        if not self._pulled.requires_grad:
            return torch.zeros(len(self._weights), columns.shape[1], dtype=torch.float64)

        def along(v: Tensor) -> Tensor:
            try:
                return torch.autograd.grad(self._pulled, self._seed, v, retain_graph=True)[0]
            except RuntimeError as error:
                raise ValueError(
                    f"PyTorch cannot differentiate twice the function that computes the weights ({error}); expected "
                    "params without the parameters that weights are computed from."
                ) from error

        return _by_columns(along, columns)

    def curvature(self, gradient: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the product with ``Σ_k gradient_k ∇²φ_k`` as a function of columns."""
        with differentiating():
            slope = self._gradient(self._weights, gradient)
        return lambda columns: _by_columns(lambda v: self._gradient(slope, v), columns)


def _by_columns(product: Callable[[Tensor], Tensor], columns: Tensor) -> Tensor:
    with differentiating():
        return torch.stack([product(column).detach() for column in columns.clone().T], dim=1)


class ReparametrisedHessian(CurvatureOperator):
    """The Hessian with respect to parameters that weights are computed from, in float64.

    A product takes a few backward passes through the function that computes the weights; the dense matrix takes the
    same number of passes for each parameter.

    Parameters
    ----------
    inner : Hessian
        The Hessian with respect to the weights.
    weights : Reparametrisation
        The weights, in the order of `inner`.
    gradient : (W,) tensor, optional
        The gradient of the loss with respect to the weights; None for the Gauss-Newton matrix.
    precision : numpy.dtype
        The precision of the model's numbers, which decides which eigenvalues count as zero.
    """

    _shift = 0.0

    def __init__(
        self, inner: Hessian, weights: Reparametrisation, gradient: Tensor | None, precision: np.dtype[Any]
    ) -> None:
        super().__init__(np.dtype(np.float64), (weights.size, weights.size))
        self._inner, self._weights = inner, weights
        self._functional = None if gradient is None else weights.curvature(gradient)
        self._epsilon = float(np.finfo(precision).eps)

    def _apply(self, V: Array) -> Array:
        columns = torch.from_numpy(V.reshape(len(V), -1).astype(np.float64))
        moved = self._inner @ self._weights.pushed(columns).contiguous().numpy()
        product = self._weights.pulled(torch.from_numpy(moved))
        if self._functional is not None:
            product = product + self._functional(columns)
        return np.ascontiguousarray(product.numpy().reshape(V.shape), dtype=V.dtype)

    def toarray(self, out: Array | None = None) -> Array:
        """Return the dense matrix (P, P), symmetric to the bit."""
        out = dense_target(out, self.shape, self.dtype, "Hessian of parametrised layers")
        np.copyto(out, 0.5 * (self._dense + self._dense.T))
        return out

    @cached_property
    def _dense(self) -> NDArray[np.float64]:
        size = self.shape[0]
        memory.require(
            4 * 8 * size * size,
            f"the dense {size} x {size} Hessian of parametrised layers",
            "use products with it, or its largest eigenvalue.",
        )
        return self._apply(np.eye(size)).astype(np.float64, copy=False)

    def diagonal(self) -> Array:
        """Return the diagonal (P,)."""
        return self._dense.diagonal().copy()

    def trace(self) -> float:
        """Return the trace."""
        return float(np.trace(self._dense))

    def _few_pairs(self, k: int, which: Which, *, sure: bool) -> FewPairs | None:
        size = self.shape[0]
        if which == "SM" or not worthwhile(size, size, k):
            return None
        refusal = f"it takes all {size} columns of the Hessian" if size > _MOST_COLUMNS else ""

        def apply(v: Array, out: Array) -> None:
            out[...] = self._apply(v)

        test = ToFactorise(size, lambda: DenseOperator(self.toarray, size))
        take = functools.partial(steps, apply, None)
        return searched(take, size, k, which, [test], refusal=refusal if sure else NOT_ASKED)

    def _eigenbasis(self, *, lift: bool) -> Eigenbasis:
        dense = self.toarray().astype(np.float64, copy=False)
        return DenseBasis(*decompositions.eigh(dense)) if lift else ValuesOnly(decompositions.eigvalsh(dense))

    def _tolerances(self, basis: Eigenbasis) -> tuple[float, float]:
        unit = basis.dense_size * float(np.finfo(np.float64).eps)
        error = unit * float(np.abs(basis.groups.values).max(initial=0.0)) + self._carried
        error *= self._epsilon / float(np.finfo(np.float64).eps)
        return error, error

    @cached_property
    def _carried(self) -> float:
        """The norm of the rounding error of the network's Hessian and gradient here: ``J.T dH_w J + Σ_k dg_k ∇²φ_k``.

        Norms of J and of second derivatives are estimated, layer by layer, with a few random vectors.
        """
        generator = torch.Generator("cpu").manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")

        blocks, slopes = self._inner._rounding()
        layers = torch.split(torch.arange(self._inner.shape[0]), self._inner._part_sizes)
        pushed = self._weights.pushed(normal(self.shape[0], _VECTORS)) / math.sqrt(_VECTORS)
        sizes = np.array([float(torch.linalg.norm(pushed[layer])) for layer in layers])
        used = sizes > 0  # bounds of other layers may be infinite
        error = 2.0 * float(np.linalg.norm(np.outer(sizes, sizes)[np.ix_(used, used)] * blocks[np.ix_(used, used)]))
        if self._functional is not None:
            for layer, slope in zip(layers, slopes, strict=True):
                direction = torch.zeros(self._inner.shape[0], dtype=torch.float64, device="cpu")
                direction[layer] = normal(len(layer)).sign()
                image = self._weights.curvature(direction)(normal(self.shape[0], _VECTORS)) / math.sqrt(_VECTORS)
                error += 2.0 * slope * float(torch.linalg.norm(image))
        return error
