"""The quantities that a training run can record: one table, `QUANTITIES`.

To record something new, add one entry to the table. It has

- the name that users write in ``record=``,
- its cost, in words, as docs/training.md says it,
- how it is taken, in one of three ways:

  - ``between``: a function of the present networks, `MeasuredNetworks`, called between two steps. It returns one value
    for each network. It is written once for main memory and for a GPU: there, arrays are tensors with one more
    dimension in front, so ``W.mT`` is right and ``W.T`` is not. This is the way for anything new.
  - ``of_block``: the same with the parts of a block of the Hessian, for names like "condition[1.weight]".
  - ``column``: one of `ColumnName`, which the backends' kernels fill while they take steps, and ``of_column``, a
    function of it. This costs almost nothing, but the kernels must know the quantity.

Write it in three places too: the table of docs/training.md (with the cost word for word), the table of docs/cuda.md,
and the docstring of `hesskern.fit`; a test compares them. Everything else follows: `hesskern.fit` accepts the name,
groups of networks on the CPU and on a GPU measure it, checkpoints hold it. If an entry has a column and another way,
the column is taken if the group's loop can fill it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hesskern._base import checks, devices
from hesskern._base.array_types import AnyArray
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import Part, select

Parts = tuple[Part, ...]
#: What is recorded of one network; on a GPU, of all of them, with one more dimension in front.
Values = float | NDArray[Any]
Column = NDArray[np.float64]
#: What kernels tell of each step, and its learning rate; the names of `hesskern.backends.protocol.Job`.
ColumnName = Literal["rates", "losses", "batch_losses", "gradient_norms", "sharpness"]

#: Eigenvalues below this come from products that have lost digits in subnormal numbers.
_LEAST = 1e-290


class MeasuredNetworks(Protocol):
    """The networks that are trained, as they are between two steps: one in main memory, or all of them on a GPU.

    Each method returns what it says of each network. On a GPU arrays are tensors and have one more dimension in front.
    """

    def layers(self) -> tuple[Sequence[AnyArray], Sequence[AnyArray | None]]:
        """Return weights and biases in float64, of the reduced networks where widths were reduced."""

    def lifted(self) -> AnyArray:
        """Return the parameters of the networks given, flat."""

    def distance(self) -> Values:
        """Return ``‖θ - θ_0‖``."""

    def sharpness(self) -> Values:
        """Return the largest eigenvalue of the full Hessian."""

    def condition(self, parts: Parts) -> Values:
        """Return the condition number of the Hessian's block of these parts."""

    def smallest(self, parts: Parts) -> Values:
        """Return its smallest nonzero eigenvalue in absolute value, NaN where it has none."""

    def rank(self, parts: Parts) -> Values:
        """Return its rank."""


def in_range(sharpness: Column) -> Column:
    """Return a sharpness that products with the Hessian gave, NaN where their entries leave the range of float64."""
    size = np.abs(sharpness)
    return np.where((size < np.inf) & ((size > _LEAST) | (size == 0)), sharpness, np.nan)


def _as_it_is(column: Column) -> Column:
    return column


def _two_over(rates: Column) -> Column:
    with np.errstate(divide="ignore", over="ignore"):  # a rate may be 0
        return np.divide(2.0, rates)


class Quantity(NamedTuple):
    """An entry of the table; see the head of this module."""

    name: str
    cost: str
    between: Callable[[MeasuredNetworks], Values] | None = None
    of_block: Callable[[MeasuredNetworks, Parts], Values] | None = None
    column: ColumnName | None = None
    of_column: Callable[[Column], Column] = _as_it_is
    #: The shape of a record of one network; None: one number.
    shape: Callable[[LinearNetwork], tuple[int, ...]] | None = None
    #: Whether it is a whole number.
    whole: bool = False
    #: Whether the loop needs all samples for it, also with minibatches.
    of_all_samples: bool = False
    #: Whether it needs minibatches.
    of_minibatches: bool = False
    #: What is recorded along with it.
    brings: str | None = None


def _balance(networks: MeasuredNetworks) -> Values:
    """Return ``‖W_{l+1}.T W_{l+1} - W_l W_l.T - b_l b_l.T‖`` (Frobenius) of each hidden layer."""
    weights, biases = networks.layers()
    norms = []
    for lower, upper, bias in zip(weights[:-1], weights[1:], biases[:-1], strict=True):
        difference = upper.mT @ upper - lower @ lower.mT
        if bias is not None:
            difference = difference - bias[..., :, None] * bias[..., None, :]
        norms.append(devices.matrix_norm(difference))
    return np.array(norms).T if norms else np.empty((*weights[0].shape[:-2], 0))


#: Whatever a run can record, by name.
QUANTITIES = {
    quantity.name: quantity
    for quantity in (
        Quantity(
            "loss",
            "nothing with full batches; with minibatches a pass over the reduced data",
            column="losses",
            of_all_samples=True,
        ),
        Quantity("batch_loss", "nothing", column="batch_losses", of_minibatches=True),
        Quantity(
            "gradient_norm",
            "a norm; with minibatches a gradient",
            column="gradient_norms",
            of_all_samples=True,
        ),
        Quantity(
            "sharpness",
            "products with the Hessian, started from the previous record",
            column="sharpness",
            of_column=in_range,
            between=lambda networks: networks.sharpness(),
            of_all_samples=True,
            brings="2/lr",
        ),
        Quantity("2/lr", "nothing", column="rates", of_column=_two_over),
        Quantity(
            "balance",
            "a return to Python and small products",
            between=_balance,
            shape=lambda net: (net.depth - 1,),
        ),
        Quantity(
            "distance",
            "a return to Python and small products",
            between=lambda networks: networks.distance(),
        ),
        Quantity(
            "weights",
            "lifting, and P numbers of memory",
            between=lambda networks: networks.lifted(),
            shape=lambda net: (net.num_parameters,),
        ),
        Quantity(
            "condition",
            "all eigenvalues of the reduced network's Hessian",
            of_block=lambda networks, parts: networks.condition(parts),
        ),
        Quantity(
            "rank",
            "all eigenvalues of the reduced network's Hessian",
            of_block=lambda networks, parts: networks.rank(parts),
            whole=True,
        ),
        Quantity(
            "smallest",
            "all eigenvalues of the reduced network's Hessian",
            of_block=lambda networks, parts: networks.smallest(parts),
        ),
    )
}
_WITH_COLUMN = [name for name, quantity in QUANTITIES.items() if quantity.column is not None]
_OF_BLOCKS = [name for name, quantity in QUANTITIES.items() if quantity.of_block is not None]
_BLOCK = re.compile(rf"({'|'.join(_OF_BLOCKS)})(?:\[(.*)\])?")


class Records:
    """The names asked for, checked, and how each is taken.

    Parameters
    ----------
    record : sequence of str
        See `hesskern.fit`.
    net : LinearNetwork
    minibatches : bool
    sharpness_in_loop : bool
        Whether the group's loop can take the sharpness; it is taken between steps otherwise, and for float32.

    Attributes
    ----------
    in_loop : dict
        The column of a quantity and the function of it, by name.
    columns : set of str
        The columns that are needed.
    between : dict
        How the other quantities are measured, by name.
    blocks : dict
        For a quantity of a block the quantity and the parts, by name.
    shapes : dict
        The shape of a record that is not one number, by name.
    """

    def __init__(
        self, record: Sequence[str], net: LinearNetwork, *, minibatches: bool, sharpness_in_loop: bool
    ) -> None:
        if isinstance(record, str) or not isinstance(record, Sequence):
            shown = record if isinstance(record, str) and len(record) < 60 else "loss"
            raise TypeError(f'record is {checks.shown(record)}; expected a list of names, for instance ("{shown}",).')
        self.blocks: dict[str, tuple[str, Parts]] = {}
        quantities: dict[str, Quantity] = {}
        for name in record:
            quantity = self._quantity(name, net)
            if quantity.of_minibatches and not minibatches:
                raise ValueError(f'record holds "{name}", but batch_size is None; "loss" is the loss of all samples.')
            quantities[name] = quantity
        for quantity in [*quantities.values()]:
            if quantity.brings is not None:
                quantities.setdefault(quantity.brings, QUANTITIES[quantity.brings])
        # The backends' loops work in the network's own precision, which must not be that of a sharpness.
        slow = "" if sharpness_in_loop and net.dtype == np.float64 else "sharpness"
        self.in_loop: dict[str, tuple[ColumnName, Callable[[Column], Column]]] = {}
        for name in _WITH_COLUMN:
            if name in quantities and name != slow:
                column = QUANTITIES[name].column
                assert column is not None
                self.in_loop[name] = column, QUANTITIES[name].of_column
        self.columns = {column for column, _ in self.in_loop.values()}
        self.of_all_samples = False
        self.between: dict[str, Callable[[MeasuredNetworks], Values]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._whole: set[str] = set()
        for name, quantity in quantities.items():
            if quantity.of_all_samples:
                self.of_all_samples = True
            if name not in self.in_loop:
                self.between[name] = self._between(name, quantity)
            if quantity.shape is not None:
                self.shapes[name] = quantity.shape(net)
            if quantity.whole:
                self._whole.add(name)

    def _quantity(self, name: object, net: LinearNetwork) -> Quantity:
        """Return the entry for a name, and keep which block it is of."""
        match = _BLOCK.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            if not isinstance(name, str) or name not in QUANTITIES:
                names = ", ".join(map(repr, QUANTITIES))
                raise ValueError(
                    f"record holds {checks.shown(name)}; expected names of {names}; "
                    f'{", ".join(map(repr, _OF_BLOCKS))} also of a block, for instance "condition[1.weight]".'
                )
            return QUANTITIES[name]
        params: list[int | str] | None = None
        if match[2] is not None:
            params = [int(part) if part.isdecimal() else part for part in map(str.strip, match[2].split(","))]
        try:
            self.blocks[match[0]] = match[1], select(net, params)
        except (TypeError, ValueError) as error:
            raise ValueError(f"record holds {name!r}: {error}") from error
        return QUANTITIES[match[1]]

    def _between(self, name: str, quantity: Quantity) -> Callable[[MeasuredNetworks], Values]:
        if quantity.of_block is not None:
            return partial(_with_parts, quantity.of_block, self.blocks[name][1])
        assert quantity.between is not None
        return quantity.between

    @property
    def curvature(self) -> bool:
        """Whether a quantity of the Hessian is recorded."""
        return bool(self.blocks) or "sharpness" in self.between or "sharpness" in self.in_loop

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one network's record."""
        return self.shapes.get(name, ())

    def is_whole(self, name: str) -> bool:
        """Return whether it is a whole number."""
        return name in self._whole


def _with_parts(how: Callable[[MeasuredNetworks, Parts], Values], parts: Parts, networks: MeasuredNetworks) -> Values:
    return how(networks, parts)
