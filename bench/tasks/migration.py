"""What a line of somebody's script costs, and what it costs with the import changed to `hesskern.compat`."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from scipy.sparse.linalg import eigsh

from bench.closed_form import ClosedForm
from bench.contest import Contestant, TimedProblem
from bench.loops import torch_module
from bench.outcomes import ProblemResult
from bench.peers import with_library, with_torch
from bench.problems import Array, Size, relative_error

NAME = "migration"
SUMMARY = "The same line of a script with another import: the libraries of `hesskern.compat`, everything included."
BATCHES = 5


class Script:
    """A model, its loss and its data in torch, as scripts have them."""

    def __init__(self, torch: Any, size: Size) -> None:
        X, Y, weights = size.draw()
        self.torch, self.x, self.y = torch, torch.tensor(X), torch.tensor(Y)
        self.model, self.loss = torch_module(torch, weights), torch.nn.MSELoss()
        self.data = list(zip(self.x.chunk(BATCHES), self.y.chunk(BATCHES), strict=True))
        self.weights = [parameter.detach() for parameter in self.model.parameters()]


Job = Callable[[Any, Script], Callable[[], object]]


def func_hessian(module: Any, script: Script) -> Callable[[], object]:
    call, params = script.torch.func.functional_call, dict(zip(("0.weight", "1.weight"), script.weights, strict=True))
    return lambda: module.hessian(lambda p: script.loss(call(script.model, p, (script.x,)), script.y))(params)


def functional_hessian(module: Any, script: Script) -> Callable[[], object]:
    x, y = script.x, script.y
    return lambda: module.hessian(lambda first, last: script.loss(x @ first.T @ last.T, y), tuple(script.weights))


def curvlinops_product(module: Any, script: Script) -> Callable[[], object]:
    parameters = list(script.model.parameters())
    H = module.HessianLinearOperator(script.model, script.loss, parameters, script.data)
    v = script.torch.ones(H.shape[0], dtype=script.x.dtype)
    return lambda: H @ v


def curvlinops_eigenvalue(module: Any, script: Script) -> Callable[[], object]:
    def run() -> object:
        parameters = list(script.model.parameters())
        H = module.HessianLinearOperator(script.model, script.loss, parameters, script.data)
        return eigsh(H.to_scipy(), k=1, which="LA", return_eigenvectors=False)

    return run


def pyhessian_eigenvalue(module: Any, script: Script) -> Callable[[], object]:
    return lambda: module.hessian(script.model, script.loss, dataloader=script.data, cuda=False).eigenvalues()[0]


def pyhessian_trace(module: Any, script: Script) -> Callable[[], object]:
    return lambda: np.mean(module.hessian(script.model, script.loss, dataloader=script.data, cuda=False).trace())


def _eigenthings(module: Any, script: Script) -> Any:
    return module.HessianOperator(script.model, script.data, module.supervised_loss(script.loss))


def eigenthings_lanczos(module: Any, script: Script) -> Callable[[], object]:
    return lambda: module.lanczos(_eigenthings(module, script), k=1, max_iter=30, seed=0).eigenvalues


def eigenthings_trace(module: Any, script: Script) -> Callable[[], object]:
    return lambda: module.trace(_eigenthings(module, script), seed=0).estimate


@dataclass(frozen=True)
class Line:
    """A line of a script.

    Attributes
    ----------
    text : str
    theirs, ours : str
        Modules that have what it calls; ours is one of `hesskern.compat`.
    job : callable
        Makes its run from a module.
    wanted : str
        What it gives: "matrix", "product", "largest", "trace".
    tolerance : float
        What may be asked of it, where it is an estimate.
    """

    text: str
    theirs: str
    ours: str
    job: Job
    wanted: str
    tolerance: float


LINES = (
    Line("torch.func.hessian(loss)(params)", "torch.func", "torch_func", func_hessian, "matrix", 1e-10),
    Line(
        "torch.autograd.functional.hessian(loss, weights)",
        "torch.autograd.functional",
        "autograd_functional",
        functional_hessian,
        "matrix",
        1e-10,
    ),
    Line("curvlinops, H @ v", "curvlinops", "curvlinops", curvlinops_product, "product", 1e-10),
    Line("curvlinops, eigsh(H.to_scipy(), 1)", "curvlinops", "curvlinops", curvlinops_eigenvalue, "largest", 1e-8),
    Line("PyHessian, eigenvalues()", "pyhessian", "pyhessian", pyhessian_eigenvalue, "largest", 0.2),
    Line("PyHessian, trace()", "pyhessian", "pyhessian", pyhessian_trace, "trace", 0.5),
    Line(
        "hessian-eigenthings, lanczos(H, k=1)",
        "hessian_eigenthings",
        "hessian_eigenthings",
        eigenthings_lanczos,
        "largest",
        0.01,
    ),
    Line(
        "hessian-eigenthings, trace(H)",
        "hessian_eigenthings",
        "hessian_eigenthings",
        eigenthings_trace,
        "trace",
        0.2,
    ),
)


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    size = Size(20, (5, 8, 3)) if quick else Size(500, (20, 50, 10))
    exact = cache(partial(_matrix, size))
    return [partial(_problem, line, size, exact) for line in LINES]


def _matrix(size: Size) -> Array:
    X, Y, weights = size.draw()
    return ClosedForm(X, Y, weights).matrix() * (2.0 / Y.size)  # MSELoss


def _problem(line: Line, size: Size, exact: Callable[[], Array]) -> TimedProblem:
    @cache
    def reference() -> Array:
        H = exact()
        found: dict[str, Callable[[], Any]] = {
            "matrix": lambda: H,
            "product": lambda: H.sum(axis=1),
            "largest": lambda: np.linalg.eigvalsh(H)[-1:],
            "trace": lambda: np.trace(H),
        }
        return np.atleast_1d(found[line.wanted]())

    def error(result: Any) -> float:
        expected = reference()
        values = _dense(result) if line.wanted == "matrix" else np.asarray(result)
        return relative_error(values.reshape(expected.shape), expected)

    def ours(torch: Any) -> Callable[[], object]:
        return line.job(importlib.import_module(f"hesskern.compat.{line.ours}"), Script(torch, size))

    def theirs(_: Any) -> Callable[[], object]:
        torch, module = importlib.import_module("torch"), importlib.import_module(line.theirs)
        return line.job(module, Script(torch, size))

    contestants: list[Contestant] = [
        replace(with_torch("hesskern", ours, note=f"hesskern.compat.{line.ours}"), role="ours", context=quiet),
        replace(with_library(line.theirs.partition(".")[0], "the library", theirs, note=line.theirs), context=quiet),
    ]
    return TimedProblem(
        label=f"{size.label}: {line.text}", contestants=contestants, error=error, tolerance=line.tolerance
    )


def _dense(blocks: Any) -> Array:
    """Return a matrix from blocks by rows, in a dict of dicts or a tuple of tuples."""
    rows = [[np.asarray(block) for block in _values(row)] for row in _values(blocks)]
    return np.block([[block.reshape(np.prod(block.shape[:2]), -1) for block in row] for row in rows])


def _values(blocks: Any) -> list[Any]:
    return list(blocks.values()) if isinstance(blocks, dict) else list(blocks)


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of PyHessian's backward(create_graph=True)
        yield


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return [
        "Everything from the model on is in the times, except that of `H @ v` the operator is there. PyHessian and "
        "`trace` of hessian-eigenthings give estimates, whose errors are those of the tables; hesskern's are exact."
    ]
