"""Parameters that a function cuts out of one vector, and where they stand in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hesskern.torch.model_problem import Wanted
from hesskern.torch_modules.chain import Parameter


class Piece(NamedTuple):
    """Where the numbers of a parameter stand: in which leaf, and from which number on."""

    leaf: str
    start: int

    def of(self, leaves: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
        """Return the parameter's numbers at other leaves."""
        return leaves[self.leaf].reshape(-1)[self.start : self.start + shape.numel()].reshape(shape)


def offset(name: str, args: Sequence[Any], length: int) -> int | None:
    """Return where an operation begins to cut a vector; None: it is no operation that cuts one."""
    if name == "getitem" and isinstance(args[1], slice) and args[1].step in (None, 1):
        return args[1].indices(length)[0]
    if name == "narrow" and len(args) == 4:
        return int(args[2]) % length
    return 0 if name == "split" else None


def in_pieces(leaf: Wanted, pieces: Mapping[str, Piece], parameters: Sequence[Parameter]) -> Iterator[Wanted]:
    """Return the parameters that a leaf was taken apart into, and what nobody uses before, between and behind them.

    Raises
    ------
    ValueError
        If two of them overlap.
    """
    mine = [each for each in parameters if each.name in pieces and pieces[each.name].leaf == leaf.name]
    at = 0
    for parameter in sorted(mine, key=lambda each: pieces[each.name].start):
        start = pieces[parameter.name].start
        if start < at:
            raise ValueError(
                f"func uses {parameter.name}, a part of which it uses elsewhere: its Hessian is not that of a stack of "
                "independent layers."
            )
        yield Wanted(f"{leaf.name} from {at}", torch.Size([start - at]))
        yield Wanted(parameter.name, parameter.tensor.shape)
        at = start + parameter.tensor.numel()
    yield Wanted(f"{leaf.name} from {at}", torch.Size([leaf.size - at]))
