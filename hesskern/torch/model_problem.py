"""A PyTorch model with its loss and data as a problem of hesskern's, and results in the order of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, eigsh
from torch import Tensor, nn

from hesskern._base import checks, devices
from hesskern._base.cached import cached_property
from hesskern.backends.data import Data
from hesskern.curvature.hessian import Hessian
from hesskern.linalg.condition import Condition
from hesskern.linalg.spectrum import Spectrum
from hesskern.linalg.symmetric_operator import CurvatureOperator, Which
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.torch.data import reduced
from hesskern.torch.losses import comparing, recognised
from hesskern.torch.reparametrised import Reparametrisation, ReparametrisedHessian
from hesskern.torch_modules import tracing

#: Parameters, after reductions, up to which all eigenvalues are computed to be certain of a few: seconds.
_MOST_EXACT = 2000


class Wanted(NamedTuple):
    """A parameter that derivatives are taken with respect to."""

    name: str
    shape: torch.Size

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return self.shape.numel()


def slices(wanted: Sequence[Wanted]) -> dict[str, slice]:
    """Return where each parameter stands in a vector of all of them."""
    found: dict[str, slice] = {}
    at = 0
    for each in wanted:
        found[each.name] = slice(at, at + each.size)
        at += each.size
    return found


def network_of(chain: tracing.Chain, dtype: torch.dtype | None = None) -> LinearNetwork:
    """Return the network of a chain, with copies of its parameters, in their dtype or another."""
    weights, biases, names = tracing.network_arrays(chain, dtype)
    return LinearNetwork(weights, biases, names=names)


class ReducedLoss(SquaredLoss):
    """The squared loss of samples that were reduced while they were read, times any number.

    Parameters
    ----------
    data : Data
    samples : int
        How many samples it was made of.
    scale : float
        What half the squared norm of the residual is multiplied by.
    """

    def __init__(self, data: Data, samples: int, scale: float) -> None:
        super().__init__(data.X, data.Y)
        self._data, self._samples, self._scale = data, samples, scale

    @property
    def num_samples(self) -> int:
        """Number of samples before they were reduced."""
        return self._samples

    @property
    def scale(self) -> float:
        """What the half-sum loss, its gradient and Hessian are multiplied by."""
        return self._scale

    def data(self, *, bias: bool, reduced: bool) -> Data:
        """Return the reduced samples; they were reduced for networks with, or for those without biases."""
        return self._data.astype(devices.numpy_dtype(self.X))

    def reduction(self, *, bias: bool) -> Data:
        """Return the reduced samples as they are."""
        return self._data

    def _value(self, net: LinearNetwork, squared: float) -> float:
        # What no weights can reach was left out with the rows.
        return super()._value(net, squared) + self._scale * self._data.constant

    def cpu(self) -> ReducedLoss:
        """Return the loss of the samples in main memory; itself if they are there."""
        if self.device == "cpu":
            return self
        X, ones, Y, constant = self._data
        move = devices.to_host
        data = Data(move(X), None if ones is None else move(ones), move(Y), constant)
        return ReducedLoss(data, self._samples, self._scale)

    def astype(self, dtype: np.dtype[np.floating]) -> ReducedLoss:
        """Return the loss for networks of another dtype; curvature is computed from the reduced samples as they are."""
        found = ReducedLoss(self._data.astype(dtype), self._samples, self._scale)
        found._data = self._data
        return found


class Problem:
    """What every function of `hesskern.torch` starts from.

    Computed in float64 from the model's numbers as they are; `tensor` rounds once, to the model's dtype.

    Parameters
    ----------
    chain : Chain
        The model as a chain of layers; its parameters are read again.
    loss : ReducedLoss
        In float64.
    wanted : sequence of Wanted
        The parameters, in the order of the results. Those that the chain does not have get zeros, as in PyTorch.
    gauss_newton : bool
        The Gauss-Newton part in the place of the Hessian.

    Raises
    ------
    ValueError
        If weights are computed from wanted parameters in a way that PyTorch cannot differentiate twice.
    """

    def __init__(
        self, chain: tracing.Chain, loss: ReducedLoss, wanted: Sequence[Wanted], *, gauss_newton: bool = False
    ) -> None:
        chain = chain.current()
        if chain.origin is not None:
            chain.origin.require(each.name for each in wanted)
        self.wanted, self._chain, self._loss, self._gauss_newton = tuple(wanted), chain, loss, gauss_newton
        self.reference = chain.reference
        self.size = sum(each.size for each in wanted)
        names = {each.name for each in wanted}
        self._used = [parameter for parameter in chain.parameters if parameter.name in names]
        #: Names of the wanted parameters that weights are computed from.
        self._sources = names & chain.origin.sources() if chain.origin and chain.origin.computed else set()
        #: Weights as functions of the parameters that are wanted; None where they are these parameters.
        self._weights = self._reparametrisation() if self._sources or not self._used else None

    @classmethod
    def of(cls, model: nn.Module, loss_fn: Any, data: Any, params: Any) -> Problem:
        """Return the problem of a model as the user has it."""
        chain = tracing.trace(model)
        scale = recognised(loss_fn, [chain.outputs], chain.reference.device)
        wanted = _selected(model, chain, params)
        found, samples = reduced(data, chain, comparing(loss_fn, scale))
        return cls(chain, ReducedLoss(found, samples, scale.of(samples)), wanted)

    def _reparametrisation(self) -> Reparametrisation:
        """Return all weights as functions of the wanted parameters."""
        self._used = list(self._chain.parameters)
        origin = self._chain.origin
        if origin is None:  # parameters that are not used: the weights are constants
            constants = [each.matrix.detach().double().cpu() for each in self._used]
            return Reparametrisation(lambda leaves: constants, [torch.zeros(each.shape) for each in self.wanted])
        known, names = origin.parameters(), [each.name for each in self.wanted]

        def weights(leaves: list[Tensor]) -> list[Tensor]:
            found = origin.at_double(dict(zip(names, leaves, strict=True)))
            return [replace(each, tensor=found[each.name]).matrix for each in self._used]

        return Reparametrisation(weights, [known[name].detach().double().cpu() for name in names])

    # Results as tensors -----------------------------------------------------------------------------------------------

    def tensor(self, found: Any) -> Tensor:
        """Return a result as a tensor of the model's dtype on its device."""
        return torch.as_tensor(found, dtype=self.reference.dtype, device=self.reference.device)

    @cached_property
    def _order(self) -> tuple[Tensor, Tensor] | None:
        """Where the network's numbers stand in the results, and which numbers of the network they are.

        None: the results are the network's numbers one after the other, or computed in the order of the results.
        """
        if self._weights is not None:
            return None
        sources: dict[str, Tensor] = {}
        at = 0
        for parameter in self._used:
            index = torch.arange(at, at := at + parameter.tensor.numel(), device="cpu").reshape(parameter.matrix.shape)
            sources[parameter.name] = (index.T if parameter.transposed else index).reshape(-1)
        device, places = self.reference.device, slices(self.wanted)
        used = [name for name in places if name in sources]
        rows = torch.cat([torch.arange(places[name].start, places[name].stop, device="cpu") for name in used])
        source = torch.cat([sources[name] for name in used])
        if len(rows) == self.size and torch.equal(source, rows):
            return None
        return rows.to(device), source.to(device)

    # What is asked for ------------------------------------------------------------------------------------------------

    @cached_property
    def operator(self) -> CurvatureOperator:
        """The Hessian over those parameters that the network has, in the network's order, in float64.

        Where weights are computed from the parameters, over all parameters in the order of the results, on the CPU.
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
            gradient = torch.cat([pieces[each.name].reshape(-1) for each in self._used])
        inner = self._operator(loss, torch.float64)
        return ReparametrisedHessian(inner, self._weights, gradient, np.dtype(str(precision).removeprefix("torch.")))

    def _network(self, loss: ReducedLoss, dtype: torch.dtype) -> LinearNetwork:
        net = network_of(self._chain, dtype)
        return net.cpu() if loss.device == "cpu" else net

    def _operator(self, loss: ReducedLoss, dtype: torch.dtype) -> Hessian:
        found = loss.hessian(self._network(loss, dtype), [parameter.name for parameter in self._used])
        return found.gauss_newton() if self._gauss_newton else found

    def _on_host(self) -> CurvatureOperator:
        operator: Any = self.operator
        there = self._loss.device == "cpu" or self._weights is not None
        found: CurvatureOperator = operator if there else operator.cpu()
        return found

    def value_and_gradient(self) -> tuple[Tensor, Tensor]:
        """Return the loss, 0-dimensional, and its gradient (P,)."""
        value, pieces = self._value_and_pieces(self._loss)
        if self._weights is not None:
            columns = torch.cat([pieces[each.name].reshape(-1, 1) for each in self._used])
            return self.tensor(value), self.tensor(self._weights.pulled(columns.cpu())[:, 0])
        shaped = {
            each.name: (pieces[each.name].T if each.transposed else pieces[each.name]).reshape(-1)
            for each in self._used
        }
        zeros = torch.zeros(self.size, dtype=torch.float64, device=self.reference.device)
        parts = [shaped.get(each.name, zeros[: each.size]) for each in self.wanted]
        return self.tensor(value), self.tensor(torch.cat(parts))

    def _value_and_pieces(self, loss: ReducedLoss) -> tuple[float, dict[str, Tensor]]:
        """Return the loss, and its gradient with respect to each matrix (out, in) and bias."""
        value, found = loss.value_and_gradient(self._network(loss, torch.float64))
        pieces: dict[str, Tensor] = {}
        flat = torch.as_tensor(found)
        for parameter in self._chain.parameters:
            piece, flat = flat[: parameter.tensor.numel()], flat[parameter.tensor.numel() :]
            pieces[parameter.name] = piece.reshape(parameter.matrix.shape)
        return value, pieces

    def dense(self) -> Tensor:
        """Return the matrix (P, P)."""
        found = self.tensor(self.operator.toarray())
        if self._order is None:
            return found
        rows, source = self._order
        if len(rows) == self.size:
            return found[source[:, None], source]
        out = found.new_zeros(self.size, self.size)
        out[rows[:, None], rows] = found[source[:, None], source]
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
            found: Tensor = operator @ columns
            return found
        return torch.from_numpy(operator @ columns.cpu().contiguous().numpy())

    def spectrum(self) -> Spectrum:
        """Return all P eigenvalues with their multiplicities."""
        found = self._on_host().spectrum()
        unused = self.size - found.size
        return Spectrum(np.append(found.values, 0.0), np.append(found.multiplicities, unused)) if unused else found

    def eigenvalues(self) -> Tensor:
        """Return all eigenvalues (P,), ascending."""
        return self.tensor(self.spectrum().expand())

    def eigenpairs(self, k: int, which: Which) -> tuple[Tensor, Tensor]:
        """Return k eigenvalues (k,), ascending, and their orthonormal eigenvectors in the columns of (P, k)."""
        operator = self._on_host()
        few = min(k, operator.shape[0])
        values, lifted = _extreme(operator, few, which, certain=not self._is_large) or operator.eigh(few, which)
        every = torch.arange(self.size, device="cpu")
        rows, source = (each.cpu() for each in self._order or (every, every))
        # A parameter that forward does not use is an eigenvector of 0.
        unused = np.setdiff1d(every.numpy(), rows.numpy())[:k]
        vectors = torch.zeros(self.size, few + len(unused), dtype=torch.float64, device="cpu")
        vectors[rows, :few] = torch.from_numpy(lifted)[source]
        vectors[unused, few + np.arange(len(unused))] = 1.0
        values = np.append(values, np.zeros(len(unused)))
        order = np.argsort(np.abs(values) if which in ("LM", "SM") else values, kind="stable")
        chosen = order[:k] if which in ("SA", "SM") else order[len(order) - k :]
        chosen = chosen[np.argsort(values[chosen], kind="stable")]
        return self.tensor(values[chosen]), self.tensor(vectors[:, chosen])

    @property
    def _is_large(self) -> bool:
        """Whether all eigenvalues would take much longer than a few."""
        if self._weights is not None:
            return self.size > _MOST_EXACT
        layers = [layer.weight.matrix.shape for layer in self._chain.layers]
        return _reduced_size([layers[0][1], *(out for out, _ in layers)]) > _MOST_EXACT

    def largest(self) -> Tensor:
        """Return the largest eigenvalue."""
        operator = self._on_host()
        if self._is_large:
            found = _lanczos(operator, 1, "LA")
            if found is not None:
                return self.tensor(max(found[0][0], 0.0) if self.size > operator.shape[0] else found[0][0])
        return self.tensor(self.spectrum().max)

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


def _extreme(
    operator: CurvatureOperator, k: int, which: Which, *, certain: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return a few extreme eigenpairs by Lanczos' method; None where it does not find those of the exact spectrum.

    All eigenvalues take less than half the time of all eigenvectors. That the k found are the k wanted, copies of
    repeated ones included, is seen from them, unless there are so many that they would take minutes.
    """
    size = operator.shape[0]
    if which == "SM" or 20 * k > size:
        return None
    if not certain:
        return _lanczos(operator, k, which)
    exact = operator.eigvalsh()
    order = np.argsort(np.abs(exact) if which == "LM" else exact, kind="stable")
    wanted = np.sort(exact[order[:k] if which == "SA" else order[size - k :]])
    found = _lanczos(operator, k, which)
    scale = np.abs(exact[[0, -1]]).max()
    if found is None or not np.allclose(found[0], wanted, rtol=0, atol=64 * np.finfo(np.float64).eps * scale):
        return None
    return wanted, found[1]


def _lanczos(
    operator: CurvatureOperator, k: int, which: Which
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return k eigenpairs to rounding, ascending; None if the method does not converge."""
    start = np.random.default_rng(0).standard_normal(operator.shape[0])
    try:
        values, vectors = eigsh(operator, k, which=which, tol=0, v0=start, maxiter=100, ncv=max(2 * k + 1, 40))
    except ArpackError:  # or it is the zero matrix
        return None
    rank = np.argsort(values, kind="stable")
    return values[rank], vectors[:, rank]


def _reduced_size(widths: Sequence[int]) -> int:
    """Return about how many parameters are left when wide layers are reduced, as far as that is exact."""
    left = list(widths)
    for layer in range(1, len(left) - 1):
        left[layer] = min(left[layer], left[layer - 1] + left[layer + 1] + 1)
    return sum(into * out for into, out in zip(left[:-1], left[1:], strict=True))


def _selected(model: nn.Module, chain: tracing.Chain, params: Any) -> list[Wanted]:
    """Return the parameters asked for, in the order of ``named_parameters()``."""
    known = dict(model.named_parameters())
    if params is None:
        names = {name for name, parameter in known.items() if parameter.requires_grad}
        if not names:
            raise ValueError("params is None, but no parameter of the model requires grad; expected params=[names].")
    else:
        names = {_name(each, known) for each in _listed(params)}
    used = {parameter.name for parameter in chain.parameters}
    if chain.origin is not None and chain.origin.computed:
        used = used.difference(chain.origin.computed) | chain.origin.sources()
    if not names & used:
        raise ValueError(f"params is {sorted(names)}, which forward does not use; expected some of {sorted(used)}.")
    return [Wanted(name, parameter.shape) for name, parameter in known.items() if name in names]


def _listed(params: Any) -> list[Any]:
    expected = "a list of names or parameters, for instance ['0.weight']"
    if isinstance(params, Tensor):
        raise TypeError(f"params is a Tensor; expected {expected}.")
    found = list(checks.entries(params, "params", expected))
    if not found:
        raise ValueError("params is empty; expected at least one name or parameter.")
    return found


def _name(given: Any, known: dict[str, nn.Parameter]) -> str:
    if isinstance(given, Tensor):
        for name, parameter in known.items():
            if parameter is given:
                return name
        raise ValueError(f"params holds a tensor of shape {tuple(given.shape)} that is no parameter of the model.")
    if not isinstance(given, str):
        raise TypeError(f"params holds {checks.shown(given)}; expected names or parameters of the model.")
    if given not in known:
        raise ValueError(f"params holds {given!r}; the model has {', '.join(known)}.")
    return str(given)
