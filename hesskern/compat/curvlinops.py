"""curvlinops' ``HessianLinearOperator`` and ``GGNLinearOperator`` for linear networks, exact and without autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hesskern._base import checks
from hesskern._base.progress import with_progress
from hesskern.backends.data import Data
from hesskern.compat.live_parameters import CountedBatches, LiveProblem, compared, keep, split, traced
from hesskern.compat.tensor_lists import TensorOperator
from hesskern.torch import function_tracing
from hesskern.torch.losses import LossScale
from hesskern.torch.model_problem import ModelProblem, RequestedParameter
from hesskern.torch.reduced_loss import ReducedLoss


class HessianLinearOperator(TensorOperator):
    """The Hessian of ``loss_func(model(X), Y)`` over all data, like curvlinops' operator of the same name.

    The signature follows curvlinops 3.0.1; the dict form of `params` and the argument `mc_samples` come from its later
    main branch. Products are computed in float64 and rounded once to the parameters' dtype.

    Parameters
    ----------
    model_func : torch.nn.Module or callable
        A chain of linear layers. With a dict as `params` also a function ``(params, X) -> predictions``.
    loss_func : callable
        ``nn.MSELoss()``, with any reduction to a number, or another multiple of the squared error. With a mean, all
        samples have the same weight, as in curvlinops.
    params : list of Parameter, or dict of str to tensor
        They determine the order of the results. The tensors of a dict replace the module's tensors.
    data : iterable of (X, Y)
        It is moved to the parameters' device, reduced when the operator is made, and not read again; curvlinops reads
        it at every product. Later changes of the parameters are taken into account.
    progressbar : bool
        A bar for each product.
    check_deterministic : bool
        Whether `data` is read twice, to check that it holds the same samples both times. A list is read once.
    num_data : int, optional
        Divisor of a mean; default: the number of samples.
    block_sizes : list of int, optional
        Numbers of parameters in each diagonal block; the rest of the matrix is zero. Default: one block.
    batch_size_fn : callable, optional
        Ignored: X is a tensor.

    Attributes
    ----------
    shape : tuple of int
    dtype : torch.dtype
    device : torch.device

    Raises
    ------
    TypeError, ValueError
        If the model is not a chain of linear layers or the loss not a squared loss (the message names what does not
        fit), or if an argument does not fit.
    RuntimeError
        If the data are different when they are read again.
    ImportError
        If `progressbar` is True and tqdm is not installed.

    Notes
    -----
    ``H @ v``, ``v @ H``, ``H.adjoint()``, ``H.to_scipy()``, `gradient_and_loss`, sums, products with numbers and of
    operators are as in curvlinops, and curvlinops' own inverses, submatrices and estimators take these operators.
    O(N (i + o)²) once for the data; a product takes the time of two passes of i + 1 samples. For all eigenvalues at
    once use `hesskern.torch.spectrum`.

    Examples
    --------
    >>> import torch
    >>> from hesskern.compat.curvlinops import HessianLinearOperator
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> data = [(torch.eye(2), torch.zeros(2, 1))]
    >>> H = HessianLinearOperator(model, torch.nn.MSELoss(reduction="sum"), list(model.parameters()), data)
    >>> H @ torch.tensor([1.0, 3.0])
    tensor([2., 6.])
    >>> H @ [torch.ones(1, 2)]
    [tensor([[2., 2.]])]
    >>> H.to_scipy() @ [1.0, 3.0]
    array([2., 6.])
    """

    SELF_ADJOINT = True
    _GAUSS_NEWTON = False

    def __init__(
        self,
        model_func: nn.Module | Callable[..., Tensor],
        loss_func: Any,
        params: Sequence[Tensor] | dict[str, Tensor],
        data: Iterable[tuple[Tensor, Tensor]],
        progressbar: bool = False,
        check_deterministic: bool = True,
        num_data: int | None = None,
        block_sizes: Sequence[int] | None = None,
        batch_size_fn: Callable[..., int] | None = None,
    ) -> None:
        name = type(self).__name__
        self._bar = _shown if checks.boolean(progressbar, "progressbar") else _silent
        self._label = f"{name}._matmat"
        tensors = _listed(params)
        sizes = _blocks(block_sizes, len(tensors))
        count = None if num_data is None else checks.integer(num_data, "num_data", 1)
        again = checks.boolean(check_deterministic, "check_deterministic") and not isinstance(data, list | tuple)
        make: Callable[[Sequence[Tensor]], LiveProblem]
        if isinstance(model_func, nn.Module):
            make = self._of_module(model_func, loss_func, params, data, count, again)
        else:
            make = self._of_function(model_func, loss_func, params, data, count)
        self._parts, self._sizes = [], sizes
        at = 0
        for size in sizes:
            self._parts.append(make(tensors[at : at + size]))
            at += size
        first, shapes = tensors[0], [tensor.shape for tensor in tensors]
        super().__init__(shapes, shapes, first.dtype, first.device)

    def gradient_and_loss(self) -> tuple[list[Tensor], Tensor]:
        """Return the gradient, in the shapes of `params`, and the loss over all data."""
        gradients: list[Tensor] = []
        for part, size in zip(self._parts, self._sizes, strict=True):
            loss, gradient = part.problem.value_and_gradient()
            gradients += split(gradient, self._in_shape[len(gradients) : len(gradients) + size])
        return gradients, loss

    def _of_module(
        self, model: nn.Module, loss_func: Any, params: Any, data: Any, count: int | None, again: bool
    ) -> Callable[[Sequence[Tensor]], LiveProblem]:
        original = f"curvlinops.{type(self).__name__}"
        chain, scale = traced(model, loss_func, original)
        parameters = dict(model.named_parameters())
        replacements: dict[str, Tensor] = {}
        if isinstance(params, dict):
            unknown = [name for name in params if name not in parameters]
            if unknown:
                raise ValueError(f"params holds {unknown[0]!r}; the model has {', '.join(parameters)}.")
            for name, tensor in params.items():
                if tensor.shape != parameters[name].shape:
                    shape = tuple(parameters[name].shape)
                    raise ValueError(f"params[{name!r}] has shape {tuple(tensor.shape)}; expected {shape}.")
            replacements = dict(params)
            chain = chain.replaced(replacements)
        names = {id(tensor): name for name, tensor in (replacements or parameters).items()}
        samples = CountedBatches(data, chain.reference.device)
        reduced_data, number = samples.reduced(chain, compared(loss_func, scale, original))
        if again:
            _compare((reduced_data, number), samples.reduced(chain))
        loss = ReducedLoss(reduced_data, number, _scaled(loss_func, scale, number if count is None else count))

        def make(chosen: Sequence[Tensor]) -> LiveProblem:
            for tensor in chosen:
                if id(tensor) not in names:
                    raise ValueError(
                        f"params holds a tensor of shape {tuple(tensor.shape)} that is not a parameter of the model."
                    )
            requested = [RequestedParameter(names[id(tensor)], tensor.shape) for tensor in chosen]
            return LiveProblem(
                lambda: ModelProblem(chain, loss, requested, gauss_newton=self._GAUSS_NEWTON),
                model,
                list(replacements.values()),
            )

        return make

    def _of_function(
        self, function: Any, loss_func: Any, params: Any, data: Any, count: int | None
    ) -> Callable[[Sequence[Tensor]], LiveProblem]:
        if not callable(function) or not isinstance(params, dict):
            raise TypeError(
                f"model_func is a {type(function).__name__} and params a {type(params).__name__}; expected a "
                "torch.nn.Module, or a function (params, X) -> predictions and a dict."
            )
        pairs = list(CountedBatches(data, next(iter(params.values())).device))
        if not pairs:
            raise ValueError("data holds no samples; expected at least one.")
        X, Y = (torch.cat(batches) for batches in zip(*pairs, strict=True))
        mean = getattr(loss_func, "reduction", None) == "mean"
        factor = len(X) / count if mean and count is not None else 1.0
        names = {id(tensor): name for name, tensor in params.items()}

        def make(chosen: Sequence[Tensor]) -> LiveProblem:
            keys = [names[id(tensor)] for tensor in chosen]

            def of(leaf_names: Sequence[str]) -> ModelProblem | None:
                def loss(leaves: list[Tensor]) -> Any:
                    return factor * loss_func(function({**params, **dict(zip(leaf_names, leaves, strict=True))}, X), Y)

                leaves = [params[key] for key in leaf_names]
                return function_tracing.trace_loss(
                    loss, leaves, leaf_names, gauss_newton=self._GAUSS_NEWTON, chosen=keys
                ).problem

            def problem() -> ModelProblem:
                with keep(f"curvlinops.{type(self).__name__}"):
                    current = of(keys) or of(list(params))  # a block that is not used is zero
                    if current is None:
                        raise ValueError(
                            f"model_func does not depend on {', '.join(keys)}: it uses tensors of its own; pass params "
                            "on to it, for instance with torch.func.functional_call."
                        )
                    return current

            return LiveProblem(problem, tensors=list(params.values()))

        return make

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        products: list[Tensor] = []
        for part, size in zip(self._bar(self._parts, f"{self._label} (on {self.device})"), self._sizes, strict=True):
            chosen = slice(len(products), len(products) + size)
            columns = torch.cat([tensor.reshape(-1, X[0].shape[-1]) for tensor in X[chosen]])
            products += split(part.problem.product(columns), self._in_shape[chosen])
        return products


class GGNLinearOperator(HessianLinearOperator):
    """The generalised Gauss-Newton matrix, with the call of curvlinops' operator of that name.

    For a squared loss ``J.T J`` times the second derivative of the loss, exact; see `HessianLinearOperator`.

    Parameters
    ----------
    model_func, loss_func, params, data, progressbar, check_deterministic, num_data, block_sizes, batch_size_fn
        As in `HessianLinearOperator`. curvlinops takes one block only; here any `block_sizes` work.
    mc_samples : int
        0: the exact matrix. Estimates of it from random samples are refused.
    seed : int
        Ignored: seed of those samples.

    Examples
    --------
    >>> import torch
    >>> from hesskern.compat.curvlinops import GGNLinearOperator
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> data = [(torch.eye(2), torch.zeros(2, 1))]
    >>> GGNLinearOperator(model, torch.nn.MSELoss(), {"weight": model.weight}, data) @ torch.eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """

    _GAUSS_NEWTON = True

    def __init__(
        self,
        model_func: nn.Module | Callable[..., Tensor],
        loss_func: Any,
        params: Sequence[Tensor] | dict[str, Tensor],
        data: Iterable[tuple[Tensor, Tensor]],
        progressbar: bool = False,
        check_deterministic: bool = True,
        num_data: int | None = None,
        block_sizes: Sequence[int] | None = None,
        batch_size_fn: Callable[..., int] | None = None,
        mc_samples: int = 0,
        seed: int = 2147483647,
    ) -> None:
        if checks.integer(mc_samples, "mc_samples", 0):
            raise ValueError(f"mc_samples is {mc_samples}; expected 0: the matrix is exact here, without samples.")
        super().__init__(
            model_func, loss_func, params, data, progressbar, check_deterministic, num_data, block_sizes, batch_size_fn
        )


def _listed(params: Any) -> list[Tensor]:
    if not isinstance(params, list | tuple | dict) or not len(params):
        raise TypeError(
            f"params is {params!r:.60}; expected a list of parameters, or a dict of tensors by their names."
        )
    tensors = list(params.values() if isinstance(params, dict) else params)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"params holds a {type(tensor).__name__}; expected tensors.")
    if len(set(map(id, tensors))) < len(tensors):
        raise ValueError("params holds a parameter twice; expected each parameter once.")
    return tensors


def _blocks(sizes: Any, count: int) -> list[int]:
    if sizes is None:
        return [count]
    if callable(sizes):  # the argument's place in curvlinops' main branch
        raise TypeError("block_sizes is a function; expected a list of int: pass batch_size_fn by its name.")
    counts = [checks.integer(size, "block_sizes", 1) for size in sizes]
    if sum(counts) != count:
        raise ValueError(f"block_sizes is {counts}; expected numbers that sum to {count}, the number of parameters.")
    return counts


def _scaled(loss_func: Any, scale: LossScale, count: int) -> float:
    """Return the factor of the half-sum loss; curvlinops relies on the reduction that the loss states."""
    said = getattr(loss_func, "reduction", None)
    if said in ("mean", "sum") and (said == "mean") != scale.per_sample:
        verb = "divides" if scale.per_sample else "does not divide"
        raise ValueError(
            f"loss_func.reduction is {said!r}, but it {verb} by the number of samples; expected both to be the same."
        )
    return scale.of(count)


def _compare(one: tuple[Data, int], other: tuple[Data, int]) -> None:
    """Refuse data that are different when they are read again; the order of the samples does not matter."""
    (first, count), (second, again) = one, other
    left, right = _moments(first), _moments(second)
    if count != again or (left - right).abs().max() > 5e-5 * left.abs().max():
        raise RuntimeError(
            "data holds other samples when it is read again (drop_last with shuffle, or random changes); expected the "
            "same, or check_deterministic=False."
        )


def _moments(data: Data) -> Tensor:
    parts = [torch.as_tensor(part) for part in (data.X, data.Y)]
    if data.ones is not None:
        parts.append(torch.as_tensor(data.ones).reshape(-1, 1))
    rows = torch.cat(parts, dim=1)
    return rows.T @ rows


def _silent(parts: Sequence[LiveProblem], label: str) -> Iterable[LiveProblem]:
    return parts


def _shown(parts: Sequence[LiveProblem], label: str) -> Iterable[LiveProblem]:
    return with_progress(parts, label=label, argument="progressbar")
