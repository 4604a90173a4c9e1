"""PyHessian's ``hessian`` for linear networks: the numbers it estimates, exact and without autograd."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hesskern._base import checks
from hesskern.compat.live_parameters import CountedBatches, LiveProblem, compared, per_batch, split, traced, trained
from hesskern.torch.model_problem import ModelProblem, RequestedParameter
from hesskern.torch.reduced_loss import ReducedLoss


class hessian:  # noqa: N801 - its name there
    """Eigenvalues, trace and spectral density of the Hessian of ``criterion(model(X), Y)``, like PyHessian's `hessian`.

    The signatures follow PyHessian 0.1. PyHessian estimates these numbers by power iteration, Hutchinson's method and
    Lanczos quadrature. Here they are exact, so numbers of iterations and tolerances are checked and then ignored.
    Computed in float64 and rounded once to the model's dtype.

    Parameters
    ----------
    model : torch.nn.Module
        A chain of linear layers. It is set to eval mode, as PyHessian does; its gradients do not change.
    criterion : callable
        ``nn.MSELoss()``, or another multiple of the squared error.
    data : (X, Y), optional
        One batch.
    dataloader : iterable of (X, Y), optional
        Batches; either this or `data`. With a mean the loss counts all samples at once, as in PyHessian, which weights
        batches by their sizes. With a sum it is divided by the number of batches, as in PyHessian for batches of equal
        size. The data are read once; later changes of the parameters are taken into account.
    cuda : bool
        Whether the model is on a CUDA device. Data are moved to the model's device.

    Attributes
    ----------
    params : list of Parameter
        The parameters that require grad; results are in their order and shapes.

    Raises
    ------
    TypeError, ValueError
        If the model is not a chain of linear layers or the criterion not a squared loss (the message names what does
        not fit), or if an argument does not fit.

    Notes
    -----
    O(N (i + o)²) once for the data. Eigenvalues and the density come from the eigenproblem that remains after all
    exact reductions, see `hesskern.Hessian.spectrum`. There is no `gradsH`, because no graph is built.

    Examples
    --------
    >>> import torch
    >>> from hesskern.compat.pyhessian import hessian
    >>> data = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
    >>> found = hessian(torch.nn.Linear(2, 1, bias=False), torch.nn.MSELoss(), data=data, cuda=False)
    >>> found.eigenvalues(top_n=2)[0]
    [4.0, 1.0]
    >>> found.trace()
    [5.0]
    >>> values, weights = found.density()
    >>> values[0], weights[0]
    ([1.0, 4.0], [0.5, 0.5])
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Any,
        data: tuple[Tensor, Tensor] | None = None,
        dataloader: Iterable[Any] | None = None,
        cuda: bool = True,
    ) -> None:
        if (data is None) == (dataloader is None):
            problem = "neither is" if data is None else "both are"
            raise ValueError(f"one of data and dataloader is needed, but {problem} given.")
        chain, scale = traced(model.eval() if isinstance(model, nn.Module) else model, criterion, "pyhessian.hessian")
        device = chain.reference.device
        if checks.boolean(cuda, "cuda") != (device.type == "cuda"):
            raise ValueError(f"cuda is {cuda}, but the model is on {device}; expected cuda={device.type == 'cuda'}.")
        self.model, self.criterion, self.device = model, criterion, device.type
        self.data: Any = dataloader if data is None else data
        self.full_dataset = data is None
        source: Any = dataloader if data is None else [data]
        batches = CountedBatches(source, device)
        reduced_data, samples = batches.reduced(chain, compared(criterion, scale, "pyhessian.hessian"))
        loss = ReducedLoss(reduced_data, samples, per_batch(scale, samples, batches.count))
        named = trained(model)
        self.params = list(named.values())
        self._shapes = [parameter.shape for parameter in self.params]
        requested = [RequestedParameter(name, parameter.shape) for name, parameter in named.items()]
        self._live = LiveProblem(lambda: ModelProblem(chain, loss, requested), model)

    def dataloader_hv_product(self, v: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        """Return ``v.T H v`` and the product ``H v``.

        Parameters
        ----------
        v : sequence of tensors
            In the shapes of `params`.

        Raises
        ------
        ValueError
            If the tensors have other shapes.
        """
        shapes = [tuple(part.shape) for part in v]
        if shapes != list(map(tuple, self._shapes)):
            raise ValueError(
                f"v has the shapes {shapes}; expected the shapes of params, {list(map(tuple, self._shapes))}."
            )
        flat = torch.cat([part.detach().reshape(-1) for part in v])
        product = self._live.problem.product(flat[:, None])[:, 0]
        return float(flat @ product), split(product, self._shapes)

    def eigenvalues(self, maxIter: int = 100, tol: float = 1e-3, top_n: int = 1) -> tuple[list[float], Any]:
        """Return the eigenvalues that are largest in magnitude, and their eigenvectors.

        Parameters
        ----------
        maxIter, tol
            Options of PyHessian's power iteration; ignored.
        top_n : int
            Number of eigenvalues.

        Returns
        -------
        values : list of float
            With their signs, largest in magnitude first.
        vectors : list of lists of tensors
            Each eigenvector has the shapes of `params` and norm 1. The signs and the basis of an eigenspace are
            arbitrary.
        """
        _iterations(maxIter, tol)
        problem = self._live.problem
        count = checks.integer(top_n, "top_n", 1)
        if count > problem.size:
            raise ValueError(f"top_n is {count}; expected at most {problem.size}, the number of parameters.")
        values, vectors = problem.eigenpairs(count, "LM")
        order = values.abs().argsort(descending=True, stable=True)
        return values[order].tolist(), [split(vectors[:, column], self._shapes) for column in order]

    def trace(self, maxIter: int = 100, tol: float = 1e-3) -> list[float]:
        """Return the trace, as a list with one number; PyHessian returns several estimates.

        Parameters
        ----------
        maxIter, tol
            Options of PyHessian's random vectors; ignored.
        """
        _iterations(maxIter, tol)
        return [self._live.problem.trace()]

    def density(self, iter: int = 100, n_v: int = 1) -> tuple[list[list[float]], list[list[float]]]:
        """Return the spectral density as eigenvalues and weights, for PyHessian's ``get_esd_plot(values, weights)``.

        Parameters
        ----------
        iter : int
            Option of PyHessian's Lanczos method; ignored.
        n_v : int
            Number of lists: PyHessian's random vectors. Here all lists are the same.

        Returns
        -------
        values : list of lists of float
            All eigenvalues of the Hessian, ascending; eigenvalues that the network's structure repeats are listed once.
        weights : list of lists of float
            How often each occurs, divided by P; they sum to 1.
        """
        checks.integer(iter, "iter", 1)
        runs = checks.integer(n_v, "n_v", 1)
        spectrum = self._live.problem.spectrum()
        weights = spectrum.multiplicities / spectrum.size
        return [spectrum.values.tolist() for _ in range(runs)], [weights.tolist() for _ in range(runs)]


def _iterations(count: Any, tolerance: Any) -> None:
    checks.integer(count, "maxIter", 1)
    checks.non_negative(tolerance, "tol")
