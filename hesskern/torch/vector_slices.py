"""Parameters that a function cuts out of one vector, and their positions in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hesskern.torch.model_problem import RequestedParameter
from hesskern.torch_modules.chain import Parameter


class VectorSlice(NamedTuple):
    """The position of a parameter's numbers: the leaf that holds them, and the index of the first one."""

    leaf: str
    start: int

    def of(self, leaves: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
        """Return the parameter with the numbers of other leaves."""
        return leaves[self.leaf].reshape(-1)[self.start : self.start + shape.numel()].reshape(shape)


def offset(name: str, args: Sequence[Any], length: int) -> int | None:
    """Return the index at which an operation starts to cut a vector; None if it does not cut one."""
    if name == "getitem" and isinstance(args[1], slice) and args[1].step in (None, 1):
        return args[1].indices(length)[0]
    if name == "narrow" and len(args) == 4:
        return int(args[2]) % length
    return 0 if name == "split" else None


def split_leaf(
    leaf: RequestedParameter, pieces: Mapping[str, VectorSlice], parameters: Sequence[Parameter]
) -> Iterator[RequestedParameter]:
    """Yield the parameters that a leaf was cut into, and the unused entries before, between and after them.

    Raises
    ------
    ValueError
        If two of them overlap.
    """
    own = [
        parameter for parameter in parameters if parameter.name in pieces and pieces[parameter.name].leaf == leaf.name
    ]
    end = 0
    for parameter in sorted(own, key=lambda parameter: pieces[parameter.name].start):
        start = pieces[parameter.name].start
        if start < end:
            raise ValueError(
                f"func uses a part of {parameter.name} a second time in another parameter: a stack of "
                "independent layers has another Hessian."
            )
        yield RequestedParameter(f"{leaf.name} from {end}", torch.Size([start - end]))
        yield RequestedParameter(parameter.name, parameter.tensor.shape)
        end = start + parameter.tensor.numel()
    yield RequestedParameter(f"{leaf.name} from {end}", torch.Size([leaf.size - end]))
