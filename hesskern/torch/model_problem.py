"""A PyTorch model with its loss and data as a linear network with a reduced loss; results in PyTorch's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hesskern._base import checks, devices
from hesskern._base.cached import cached_property
from hesskern.curvature.hessian import Hessian
from hesskern.linalg.condition import Condition
from hesskern.linalg.spectrum import Spectrum
from hesskern.linalg.symmetric_operator import CurvatureOperator, Which
from hesskern.network.linear_network import LinearNetwork
from hesskern.torch.data import reduced
from hesskern.torch.losses import comparison, recognised
from hesskern.torch.reduced_loss import ReducedLoss
from hesskern.torch.reparametrised import Reparametrisation, ReparametrisedHessian
from hesskern.torch_modules import tracing


class RequestedParameter(NamedTuple):
    """A parameter that derivatives are taken with respect to."""

    name: str
    shape: torch.Size

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.shape.numel()


def slices(requested: Sequence[RequestedParameter]) -> dict[str, slice]:
    """Return the slice of each parameter in a vector of all of them."""
    places: dict[str, slice] = {}
    start = 0
    for parameter in requested:
        places[parameter.name] = slice(start, start + parameter.size)
        start += parameter.size
    return places


def network_of(chain: tracing.Chain, dtype: torch.dtype | None = None) -> LinearNetwork:
    """Return the network of a chain, with copies of its parameters, in their dtype or another."""
    weights, biases, names = tracing.network_arrays(chain, dtype)
    return LinearNetwork(weights, biases, names=names)


class ModelProblem:
    """A model, its loss and its data: the start of every function of `hesskern.torch`.

    Results are computed in float64 from the model's numbers; `tensor` rounds once, to the model's dtype.

    Parameters
    ----------
    chain : Chain
        The model as a chain of layers; its parameters are read again.
    loss : ReducedLoss
        In float64.
    requested : sequence of RequestedParameter
        The parameters, in the order of the results. Parameters that the chain does not have get zeros, as in PyTorch.
    gauss_newton : bool
        Whether to take the Gauss-Newton part instead of the Hessian.

    Raises
    ------
    ValueError
        If weights are computed from requested parameters in a way that PyTorch cannot differentiate twice.
    """

    def __init__(
        self,
        chain: tracing.Chain,
        loss: ReducedLoss,
        requested: Sequence[RequestedParameter],
        *,
        gauss_newton: bool = False,
    ) -> None:
        chain = chain.current()
        if chain.origin is not None:
            chain.origin.require(parameter.name for parameter in requested)
        self.requested, self._chain, self._loss, self._gauss_newton = tuple(requested), chain, loss, gauss_newton
        self.reference = chain.reference
        self.size = sum(parameter.size for parameter in requested)
        names = {parameter.name for parameter in requested}
        self._used = [parameter for parameter in chain.parameters if parameter.name in names]
        #: Names of the requested parameters that weights are computed from.
        self._sources = names & chain.origin.sources() if chain.origin and chain.origin.computed else set()
        #: Weights as functions of the requested parameters; None if the weights are these parameters.
        self._weights = self._reparametrisation() if self._sources or not self._used else None

    @classmethod
    def of(cls, model: nn.Module, loss_fn: Any, data: Any, params: Any) -> ModelProblem:
        """Return the problem of a user's model, loss and data."""
        chain = tracing.trace(model)
        scale = recognised(loss_fn, [chain.outputs], chain.reference.device)
        requested = _selected(model, chain, params)
        reduced_data, samples = reduced(data, chain, comparison(loss_fn, scale))
        return cls(chain, ReducedLoss(reduced_data, samples, scale.of(samples)), requested)

    def _reparametrisation(self) -> Reparametrisation:
        """Return all weights as functions of the requested parameters."""
        self._used = list(self._chain.parameters)
        origin = self._chain.origin
        if origin is None:  # parameters that are not used: the weights are constants
            constants = [parameter.matrix.detach().double().cpu() for parameter in self._used]
            zeros = [torch.zeros(parameter.shape) for parameter in self.requested]
            return Reparametrisation(lambda leaves: constants, zeros)
        parameters, names = origin.parameters(), [parameter.name for parameter in self.requested]

        def weights(leaves: list[Tensor]) -> list[Tensor]:
            tensors = origin.float64_tensors_at(dict(zip(names, leaves, strict=True)))
            return [replace(parameter, tensor=tensors[parameter.name]).matrix for parameter in self._used]

        return Reparametrisation(weights, [parameters[name].detach().double().cpu() for name in names])

    # Tensors in the order of the results ------------------------------------------------------------------------------

    def tensor(self, result: Any) -> Tensor:
        """Return a result as a tensor of the model's dtype on its device."""
        return torch.as_tensor(result, dtype=self.reference.dtype, device=self.reference.device)

    @cached_property
    def _order(self) -> tuple[Tensor, Tensor] | None:
        """The positions of the network's entries in the results, and the index in the network of each of them.

        None if both orders are the same, or if results are computed in their own order.
        """
        if self._weights is not None:
            return None
        sources: dict[str, Tensor] = {}
        start = 0
        for parameter in self._used:
            stop = start + parameter.tensor.numel()
            index = torch.arange(start, stop, device="cpu").reshape(parameter.matrix.shape)
            start = stop
            sources[parameter.name] = (index.T if parameter.transposed else index).reshape(-1)
        device, places = self.reference.device, slices(self.requested)
        used = [name for name in places if name in sources]
        rows = torch.cat([torch.arange(places[name].start, places[name].stop, device="cpu") for name in used])
        source = torch.cat([sources[name] for name in used])
        if len(rows) == self.size and torch.equal(source, rows):
            return None
        return rows.to(device), source.to(device)

    # Results ----------------------------------------------------------------------------------------------------------

    @cached_property
    def operator(self) -> CurvatureOperator:
        """The Hessian over those parameters that the network has, in the network's order, in float64.

        If weights are computed from the parameters, it is over all parameters in the order of the results, on the CPU.
        """
        if self._weights is not None:
            return self._reparametrised(torch.float64)
        return self._operator(self._loss, torch.float64)

    def _reparametrised(self, precision: torch.dtype) -> ReparametrisedHessian:
        assert self._weights is not None
        loss = self._loss.cpu()
        gradient = None
        if not self._gauss_newton:
            _, pieces = self._value_and_pieces(loss)
            gradient = torch.cat([pieces[parameter.name].reshape(-1) for parameter in self._used])
        inner = self._operator(loss, torch.float64)
        return ReparametrisedHessian(inner, self._weights, gradient, np.dtype(str(precision).removeprefix("torch.")))

    def _network(self, loss: ReducedLoss, dtype: torch.dtype) -> LinearNetwork:
        net = network_of(self._chain, dtype)
        return net.cpu() if loss.device == "cpu" else net

    def _operator(self, loss: ReducedLoss, dtype: torch.dtype) -> Hessian:
        hessian = loss.hessian(self._network(loss, dtype), [parameter.name for parameter in self._used])
        return hessian.gauss_newton() if self._gauss_newton else hessian

    def _on_host(self) -> CurvatureOperator:
        operator: Any = self.operator
        is_on_host = self._loss.device == "cpu" or self._weights is not None
        on_host: CurvatureOperator = operator if is_on_host else operator.cpu()
        return on_host

    def value_and_gradient(self) -> tuple[Tensor, Tensor]:
        """Return the loss, 0-dimensional, and its gradient (P,)."""
        value, pieces = self._value_and_pieces(self._loss)
        if self._weights is not None:
            columns = torch.cat([pieces[parameter.name].reshape(-1, 1) for parameter in self._used])
            return self.tensor(value), self.tensor(self._weights.pulled(columns.cpu())[:, 0])
        flat: dict[str, Tensor] = {}
        for used in self._used:
            piece = pieces[used.name]
            flat[used.name] = (piece.T if used.transposed else piece).reshape(-1)
        zeros = torch.zeros(self.size, dtype=torch.float64, device=self.reference.device)
        parts = [flat.get(parameter.name, zeros[: parameter.size]) for parameter in self.requested]
        return self.tensor(value), self.tensor(torch.cat(parts))

    def _value_and_pieces(self, loss: ReducedLoss) -> tuple[float, dict[str, Tensor]]:
        """Return the loss, and its gradient with respect to each matrix (out, in) and bias."""
        value, gradient = loss.value_and_gradient(self._network(loss, torch.float64))
        pieces: dict[str, Tensor] = {}
        flat = torch.as_tensor(gradient)
        for parameter in self._chain.parameters:
            piece, flat = flat[: parameter.tensor.numel()], flat[parameter.tensor.numel() :]
            pieces[parameter.name] = piece.reshape(parameter.matrix.shape)
        return value, pieces

    def dense(self) -> Tensor:
        """Return the matrix (P, P)."""
        matrix = self.tensor(self.operator.toarray())
        if self._order is None:
            return matrix
        rows, source = self._order
        if len(rows) == self.size:
            return matrix[source[:, None], source]
        out = matrix.new_zeros(self.size, self.size)
        out[rows[:, None], rows] = matrix[source[:, None], source]
        return out

    def product(self, vectors: Tensor) -> Tensor:
        """Return the products with the columns of (P, k) vectors."""
        columns = vectors.double()
        if self._order is not None:
            rows, source = self._order
            moved = columns.new_empty(len(source), columns.shape[1])
            moved[source] = columns[rows]
            out = columns.new_zeros(columns.shape)
            out[rows] = self._times(moved)[source]
            return self.tensor(out)
        return self.tensor(self._times(columns))

    def _times(self, columns: Tensor) -> Tensor:
        operator: Any = self.operator
        if devices.on_device(columns) and self._weights is None:
            product: Tensor = operator @ columns
            return product
        return torch.from_numpy(operator @ columns.cpu().contiguous().numpy())

    def spectrum(self) -> Spectrum:
        """Return all P eigenvalues with their multiplicities."""
        spectrum = self._on_host().spectrum()
        unused = self.size - spectrum.size
        if not unused:
            return spectrum
        return Spectrum(np.append(spectrum.values, 0.0), np.append(spectrum.multiplicities, unused))

    def eigenvalues(self) -> Tensor:
        """Return all eigenvalues (P,), ascending."""
        return self.tensor(self.spectrum().expand())

    def eigenpairs(self, k: int, which: Which) -> tuple[Tensor, Tensor]:
        """Return k eigenvalues (k,), ascending, and their orthonormal eigenvectors in the columns of (P, k)."""
        operator = self._on_host()
        few = min(k, operator.shape[0])
        values, lifted = operator.eigh(few, which)
        if self._order is None and few == k:
            return self.tensor(values), self.tensor(lifted)
        every = torch.arange(self.size, device="cpu")
        rows, source = (index.cpu() for index in self._order or (every, every))
        # Each entry of a parameter that forward does not use gives an eigenvector with the eigenvalue 0.
        unused = np.setdiff1d(every.numpy(), rows.numpy())[:k]
        vectors = torch.zeros(self.size, few + len(unused), dtype=torch.float64, device="cpu")
        vectors[rows, :few] = torch.from_numpy(lifted)[source]
        vectors[unused, few + np.arange(len(unused))] = 1.0
        values = np.append(values, np.zeros(len(unused)))
        order = np.argsort(np.abs(values) if which in ("LM", "SM") else values, kind="stable")
        chosen = order[:k] if which in ("SA", "SM") else order[len(order) - k :]
        chosen = chosen[np.argsort(values[chosen], kind="stable")]
        return self.tensor(values[chosen]), self.tensor(vectors[:, chosen])

    def largest(self) -> Tensor:
        """Return the largest eigenvalue."""
        operator = self._on_host()
        values, _ = operator.eigh(1, dense=False)
        return self.tensor(max(values[0], 0.0) if self.size > operator.shape[0] else values[0])

    def trace(self) -> float:
        """Return the trace."""
        return float(self._on_host().trace())

    def condition(self) -> Condition:
        """Return the condition number, in the precision of the model's numbers, which decides what counts as zero."""
        dtype = self.reference.dtype
        if self._weights is not None:
            return self._reparametrised(dtype).condition()
        single = dtype == torch.float32
        operator = self._operator(self._loss.cpu().astype(np.dtype(np.float32)), dtype) if single else self._on_host()
        return replace(operator.condition(), size=self.size)


def _selected(model: nn.Module, chain: tracing.Chain, params: Any) -> list[RequestedParameter]:
    """Return the parameters asked for, in the order of ``named_parameters()``."""
    parameters = dict(model.named_parameters())
    if params is None:
        names = {name for name, parameter in parameters.items() if parameter.requires_grad}
        if not names:
            raise ValueError("params is None, but no parameter of the model requires grad; expected params=[names].")
    else:
        names = {_name(parameter, parameters) for parameter in _listed(params)}
    used = {parameter.name for parameter in chain.parameters}
    if chain.origin is not None and chain.origin.computed:
        used = used.difference(chain.origin.computed) | chain.origin.sources()
    if not names & used:
        raise ValueError(
            f"params is {sorted(names)}, which forward does not use; expected at least one of {sorted(used)}."
        )
    return [RequestedParameter(name, parameter.shape) for name, parameter in parameters.items() if name in names]


def _listed(params: Any) -> list[Any]:
    expected = "a list of names or parameters, for instance ['0.weight']"
    if isinstance(params, Tensor):
        raise TypeError(f"params is a Tensor; expected {expected}.")
    entries = list(checks.entries(params, "params", expected))
    if not entries:
        raise ValueError("params is empty; expected at least one name or parameter.")
    return entries


def _name(entry: Any, parameters: dict[str, nn.Parameter]) -> str:
    if isinstance(entry, Tensor):
        for name, parameter in parameters.items():
            if parameter is entry:
                return name
        raise ValueError(
            f"params holds a tensor of shape {tuple(entry.shape)} that is not a parameter of the model; expected "
            f"parameters or names: the model has {', '.join(parameters)}."
        )
    if not isinstance(entry, str):
        raise TypeError(f"params holds {checks.shown(entry)}; expected names or parameters of the model.")
    if entry not in parameters:
        raise ValueError(f"params holds {entry!r}; the model has {', '.join(parameters)}.")
    return str(entry)
