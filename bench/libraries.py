"""Curvature by libraries on top of torch: curvlinops, BackPACK and hessian-eigenthings, each in its own way.

They take an ``nn.Module`` and a loss of it, ``‖E‖²/2`` here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from bench.loops import torch_module
from bench.problems import Array

Run = Callable[[], Any]


class Model:
    """A network, its data and its loss in torch."""

    def __init__(self, X: Array, Y: Array, weights: Sequence[Array]) -> None:
        import torch

        self.torch = torch
        self.x, self.y = torch.tensor(X), torch.tensor(Y)
        self.net = torch_module(torch, weights)
        self.parameters = list(self.net.parameters())

    def half_sum(self) -> Any:
        """Return ``‖E‖²/2`` as a module, with the attribute that curvlinops asks for."""
        torch = self.torch

        class HalfSum(torch.nn.Module):  # type: ignore[misc,name-defined]
            reduction = "sum"

            def forward(self, prediction: Any, target: Any) -> Any:
                return 0.5 * torch.nn.functional.mse_loss(prediction, target, reduction="sum")

        return HalfSum()

    def pieces(self, v: Any) -> list[Any]:
        """Return a flat vector as one tensor for each layer."""
        sizes = [parameter.numel() for parameter in self.parameters]
        return [part.reshape(p.shape) for part, p in zip(v.split(sizes), self.parameters, strict=True)]

    # curvlinops -------------------------------------------------------------------------------------------------------

    def curvlinops(self, library: Any, layers: Sequence[int] | None = None) -> Any:
        """Return its operator of the Hessian, of some layers or of all; what is checked once is not checked again."""
        chosen = self.parameters if layers is None else [self.parameters[layer] for layer in layers]
        data = [(self.x, self.y)]
        return library.HessianLinearOperator(self.net, self.half_sum(), chosen, data, check_deterministic=False)

    def curvlinops_product(self, library: Any, V: Array) -> Run:
        """Return the product with a vector or, vectorised by it, with the columns of a matrix."""
        operator, vectors = self.curvlinops(library), self.torch.tensor(V)
        return lambda: operator @ vectors

    def curvlinops_dense(self, library: Any, layers: Sequence[int] | None = None) -> Run:
        """Return the dense Hessian: the operator times the identity, as its own examples do."""
        operator = self.curvlinops(library, layers)
        identity = self.torch.eye(operator.shape[0], dtype=self.x.dtype)
        return lambda: operator @ identity

    # BackPACK ---------------------------------------------------------------------------------------------------------

    def backpack_product(self, library: Any, v: Array) -> Run:
        """Return its product with a vector, from gradients whose graph is kept."""
        hvp = importlib.import_module("backpack.hessianfree.hvp")
        loss = self.half_sum()(self.net(self.x), self.y)
        gradients = self.torch.autograd.grad(loss, self.parameters, create_graph=True)
        given = self.pieces(self.torch.tensor(v))
        return lambda: hvp.hessian_vector_product(loss, self.parameters, given, grad_params=gradients)

    def backpack_root(self, library: Any, layer: int) -> Run:
        """Return a root V of one layer's block, ``V.T V / 2``, rows counted by outputs and samples.

        The diagonal blocks of a linear network have no part from the residual: they are those of Gauss and Newton,
        which BackPACK gives by SqrtGGNExact in one backward pass.
        """
        extensions = importlib.import_module("backpack.extensions")
        net, loss = library.extend(self.net), library.extend(self.torch.nn.MSELoss(reduction="sum"))
        for number, parameter in enumerate(self.parameters):
            parameter.requires_grad_(number == layer)
        wanted = self.parameters[layer]

        def run() -> Any:
            net.zero_grad()
            with library.backpack(extensions.SqrtGGNExact()):
                loss(net(self.x), self.y).backward()
            return wanted.sqrt_ggn_exact.reshape(-1, wanted.numel())

        return run

    def backpack_block(self, library: Any, layer: int) -> Run:
        """Return one layer's dense block."""
        root = self.backpack_root(library, layer)

        def run() -> Any:
            V = root()
            return 0.5 * (V.T @ V)

        return run

    # hessian-eigenthings ----------------------------------------------------------------------------------------------

    def eigenthings(self, library: Any) -> Any:
        """Return its operator of the Hessian."""
        loss = self.half_sum()
        return library.HessianOperator(self.net, [(self.x, self.y)], lambda net, batch: loss(net(batch[0]), batch[1]))

    def eigenthings_product(self, library: Any, v: Array) -> Run:
        """Return its product with a vector; it builds the graph of the gradient at each call."""
        operator, vector = self.eigenthings(library), self.torch.tensor(v)
        return lambda: operator.matvec(vector)

    def set_weights(self, weights: Sequence[Array]) -> None:
        """Put other weights into the network."""
        with self.torch.no_grad():
            for parameter, weight in zip(self.parameters, weights, strict=True):
                parameter.copy_(self.torch.tensor(weight))
