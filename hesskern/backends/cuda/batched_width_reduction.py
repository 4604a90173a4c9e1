"""The exact reduction of hidden layers that are wider than their neighbours together, for many networks at once.

`hesskern.reductions.widths` does the same for one network in main memory; here the QR decompositions are of a
batch of matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hesskern._base.array_types import AnyArray
from hesskern._base.flat_layout import FlatLayout
from hesskern.backends.cuda.layers import TensorLayers
from hesskern.backends.hidden_units import LOWER_RANK, reducible, replaced, stacked
from hesskern.backends.protocol import UNBALANCED


class _Stage(NamedTuple):
    """One hidden layer reduced; stacks have one row for each unit."""

    layer: int
    basis: Tensor  # Q, (networks, units, kept)
    before: Tensor  # (networks, units, weights of a unit)
    after: Tensor  # (networks, kept, weights of a unit)


class ReducedStack:
    """The small networks that are trained instead of these.

    Parameters
    ----------
    layers : TensorLayers
        Weights (networks, out, in).
    reduce : bool
        Whether widths are reduced at all.
    """

    def __init__(self, layers: TensorLayers, *, reduce: bool) -> None:
        self.original = layers
        self._stages: list[_Stage] = []
        for layer in reducible(layers) if reduce else ():
            stack = stacked(layers, layer)
            basis, triangle = _qr(stack)
            self._stages.append(_Stage(layer, basis, stack, triangle))
            layers = TensorLayers(*replaced(layers, layer, triangle))
        unbalanced = [_unbalanced(stage, self.original.weights[stage.layer + 1].shape[-2]) for stage in self._stages]
        #: How many networks have hidden units of too different sizes. If any has, nothing is reduced: all networks
        #: are trained at one width.
        self.unbalanced = int(torch.stack(unbalanced).any(0).sum()) if unbalanced else 0
        if self.unbalanced:
            self._stages, layers = [], self.original
        self.layers = layers

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the small networks."""
        return FlatLayout.of(*self.layers).widths

    @property
    def suspicious(self) -> Tensor:
        """Which networks have a stack of lower rank, where rounding errors would be trained: (networks,) bool."""
        first = self.original.weights[0]
        suspicious = torch.zeros(len(first), dtype=torch.bool, device=first.device)
        for stage in self._stages:
            pivots = stage.after.diagonal(dim1=-2, dim2=-1).abs()
            suspicious |= pivots.amin(1) < LOWER_RANK * pivots.amax(1)
        return suspicious

    def replace(self, index: int, bases: list[AnyArray], triangles: list[AnyArray]) -> None:
        """Use other bases for one `suspicious` network: NumPy arrays, one for each stage."""
        layers = self.original
        for stage, basis, triangle in zip(self._stages, bases, triangles, strict=True):
            stage.before[index] = stacked(layers, stage.layer)[index]
            stage.basis[index] = torch.as_tensor(basis.copy(), device=stage.basis.device)
            stage.after[index] = torch.as_tensor(triangle.copy(), device=stage.after.device)
            layers = TensorLayers(*replaced(layers, stage.layer, stage.after))
        self.layers = layers

    def lift(self, layers: TensorLayers) -> TensorLayers:
        """Return the full networks for these parameters of the small ones: the start plus the change."""
        for stage in reversed(self._stages):
            moved = stacked(layers, stage.layer) - stage.after
            layers = TensorLayers(*replaced(layers, stage.layer, stage.before + stage.basis @ moved))
        return layers


def _qr(stacks: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q (networks, units, columns) and R of thin QR decompositions, by Gram and Schmidt's method done twice.

    Libraries compute Q for one matrix of a batch after the other. Twice is enough for Q to be orthogonal up to
    rounding. The exception is columns that become zero; `ReducedStack.suspicious` reports them.
    """
    basis = torch.zeros_like(stacks)
    triangle = stacks.new_zeros(len(stacks), stacks.shape[2], stacks.shape[2])
    for k in range(stacks.shape[2]):
        column, previous = stacks[:, :, k : k + 1].clone(), basis[:, :, :k]
        for _ in range(2):
            shares = previous.mT @ column
            column -= previous @ shares
            triangle[:, :k, k : k + 1] += shares
        length = column.norm(dim=1, keepdim=True)
        triangle[:, k : k + 1, k : k + 1] = length
        basis[:, :, k : k + 1] = torch.where(length > 0, column / length, 0.0)
    return basis, triangle


def _unbalanced(stage: _Stage, outputs: int) -> Tensor:
    """Return which networks would lose digits, (networks,) bool; see `HostBackend.mixes_units`."""
    sizes, norms = stage.before.abs(), stage.after.norm(dim=1)
    inputs = sizes.shape[2] - outputs
    terms = sizes[:, :, inputs:].mT @ sizes[:, :, :inputs]
    bounds = norms[:, inputs:, None] * norms[:, None, :inputs]
    around = torch.minimum(terms.amax(2, keepdim=True), terms.amax(1, keepdim=True))
    balanced: Tensor = (bounds <= UNBALANCED * torch.where(terms > 0, terms, around)).flatten(1).all(1)
    return ~balanced
