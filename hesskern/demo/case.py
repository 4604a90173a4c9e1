"""The case this package started with, computed afresh: ``hesskern demo``.

A researcher trained a 5-100-5 linear network and got two condition numbers for the Hessian with respect to W_2: 174
from PyTorch autograd, 5345 from a formula. `run` trains the network, takes the Hessian in every way that was in play
and says which of them agree. Nothing here is stored: each number and each time comes from that run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hesskern import _core, backends, datasets
from hesskern._base.array_types import Array
from hesskern.demo import posted
from hesskern.demo.text import describe
from hesskern.linalg import decompositions
from hesskern.linalg.condition import Condition
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.training.fit import Run, fit
from hesskern.training.network_group import Status

#: Relative difference up to which two condition numbers agree. Rounding grows about a thousandfold while the loss
#: climbs, to 1e-13, and the published values have eight digits; the mistake in question is a factor of 30.
AGREE = 1e-6

#: Difference of two dense Hessians at the same weights, relative to their largest entry: sums of five products each.
AGREE_DENSE = 1e-12

#: Each time is the shortest of this many runs: what else the machine does only ever adds to it.
REPEATS = 3

_MOST_STEPS = 10_000

T = TypeVar("T")


class Check(NamedTuple):
    """One comparison: two numbers that have to agree."""

    what: str
    value: float
    expected: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether they differ by at most `tolerance`, relative to `expected` (absolute where that is 0)."""
        return abs(self.value - self.expected) <= self.tolerance * (abs(self.expected) or 1.0)


class Dense(NamedTuple):
    """Condition number of a dense matrix as the post takes it: SVD, and NumPy's rule for the rank."""

    cond: float
    rank: int
    values: NDArray[np.float64]  # all singular values, descending
    seconds: float


class Autograd(NamedTuple):
    """The post's own PyTorch code on the same data."""

    version: str
    threads: int
    epochs: int
    train_seconds: float
    hessian_seconds: float
    dense: Dense
    difference: float  # from hesskern's dense Hessian at the same weights, relative to its largest entry


@dataclass(frozen=True, slots=True)
class Demo:
    """Everything the demo found.

    Attributes
    ----------
    backend, isa : str
        Which backend computed, and the instruction set of the compiled kernels.
    repeats : int
        Each time is the shortest of so many runs.
    status, steps, losses
        How training ended, after how many epochs, and the loss at the start of each.
    lr, stable_lr : float
        The learning rate, and 2/λ_max of the full Hessian at the start, beyond which descent is unstable there.
    condition : Condition
        Of the Hessian with respect to W_2, from its factors.
    values, multiplicities
        Its nonzero eigenvalues, descending, and how often each occurs.
    numpy_cond : float
        What ``numpy.linalg.cond`` says of the dense matrix.
    as_posted, mended : Dense
        The formula with ``w1.dot(x)``, and with ``w1.dot(x.T)``.
    autograd : Autograd or None
    autograd_missing : str
        Why there is no `autograd`; empty where there is.
    expected : dict
        Independently checked results for this case, to compare with; see `Case`.
    train_seconds, hessian_seconds, cond_seconds : float
        Of hesskern: training, the dense Hessian, its condition number.
    """

    backend: str
    isa: str
    repeats: int
    status: Status
    steps: int
    losses: NDArray[np.float64]
    lr: float
    stable_lr: float
    condition: Condition
    values: NDArray[np.float64]
    multiplicities: NDArray[np.int64]
    numpy_cond: float
    as_posted: Dense
    mended: Dense
    autograd: Autograd | None
    autograd_missing: str
    expected: dict[str, float]
    train_seconds: float
    hessian_seconds: float
    cond_seconds: float

    @property
    def checks(self) -> tuple[Check, ...]:
        """Return every comparison the verdict rests on."""
        ours, rank = self.condition.value, self.condition.rank
        checks = [
            Check("the number of epochs", self.steps, self.expected["epochs"], 0.0),
            Check("hesskern's condition number", ours, self.expected["cond"], AGREE),
            Check("hesskern's rank", rank, self.expected["rank"], 0.0),
            Check("the spectrum's condition number", float(self.values[0] / self.values[-1]), ours, AGREE),
            Check("the number of nonzero eigenvalues", int(self.multiplicities.sum()), rank, 0.0),
            Check("the posted formula's number", self.as_posted.cond, self.expected["cond_as_posted"], AGREE),
            Check("the fixed formula's condition number", self.mended.cond, ours, AGREE),
            Check("the fixed formula's rank", self.mended.rank, rank, 0.0),
        ]
        if self.autograd is not None:
            checks += [
                Check("PyTorch's number of epochs", self.autograd.epochs, self.steps, 0.0),
                Check("autograd's condition number", self.autograd.dense.cond, ours, AGREE),
                Check("autograd's rank", self.autograd.dense.rank, rank, 0.0),
                Check("the difference of the dense Hessians", self.autograd.difference, 0.0, AGREE_DENSE),
            ]
        return tuple(checks)

    @property
    def ok(self) -> bool:
        """Whether training converged and everything agrees that should."""
        return self.status == "converged" and all(check.ok for check in self.checks)

    @property
    def failures(self) -> tuple[str, ...]:
        """What does not agree, one sentence each."""
        failures = [] if self.status == "converged" else [f"training {self.status} after {self.steps} epochs"]
        for what, value, expected, tolerance in (check for check in self.checks if not check.ok):
            near = f" to {tolerance:g}" if tolerance else ""
            failures.append(f"{what} is {value:.10g}; expected {expected:.10g}{near}")
        return tuple(failures)

    def describe(self) -> str:
        """Return what the researcher should have been told, as text."""
        return describe(self)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain dicts, lists and numbers; None where a number is infinite or NaN."""
        plain: dict[str, Any] = _plain(
            {name: getattr(self, name) for name in self.__slots__}
            | {"ok": self.ok, "failures": self.failures}
            | {"checks": [check._asdict() | {"ok": check.ok} for check in self.checks]}
        )
        return plain


def run(backend: str | None = None, *, repeats: int = REPEATS, say: Callable[[str], None] = lambda doing: None) -> Demo:
    """Compute the case from its data on.

    Parameters
    ----------
    backend : str, optional
        Which backend of hesskern to use; default: see `hesskern.use_backend`.
    repeats : int, >= 1
        How often to run what is timed.
    say : callable
        Called with a few words before each thing that may take a while.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, also during training.
    """
    case = datasets.two_layer_case()
    loss = SquaredLoss(case.X, case.Y, backend=backend)
    say("training by hesskern")
    trained, train_seconds = _timed(lambda: _train(case, loss), repeats)
    condition, cond_seconds = _timed(lambda: loss.hessian(trained.network, params=[1]).condition(), repeats)
    hessian, hessian_seconds = _timed(lambda: loss.hessian(trained.network, params=[1]).toarray(), repeats)
    spectrum = loss.hessian(trained.network, params=[1]).spectrum()
    nonzero = spectrum.values > 0  # structural zeros are exact

    say("taking condition numbers of dense 500 x 500 matrices")
    W1 = trained.network.weights[0]
    as_posted = _dense(_formula(W1.dot(case.X), case.Y.shape[1]), repeats)
    mended = _dense(_formula(W1.dot(case.X.T), case.Y.shape[1]), repeats)

    autograd, missing = None, ""
    try:
        say("loading PyTorch, which takes seconds")
        torch = posted.load_torch()
    except posted.TorchUnavailableError as error:
        missing = str(error)
    else:
        say("running the code of the post in PyTorch")
        autograd = _autograd(torch, case, loss, repeats)

    return Demo(
        backend=loss.backend or backends.resolve(),
        isa=_core.isa,
        repeats=repeats,
        status=trained.status,
        steps=trained.steps,
        losses=trained.history["loss"],
        lr=case.lr,
        stable_lr=2.0 / loss.hessian(case.network).spectrum().max,
        condition=condition,
        values=spectrum.values[nonzero][::-1],
        multiplicities=spectrum.multiplicities[nonzero][::-1],
        numpy_cond=decompositions.condition_number(hessian),
        as_posted=as_posted,
        mended=mended,
        autograd=autograd,
        autograd_missing=missing,
        expected=case.expected,
        train_seconds=train_seconds,
        hessian_seconds=hessian_seconds,
        cond_seconds=cond_seconds,
    )


def _train(case: datasets.Case, loss: SquaredLoss) -> Run:
    trained = fit(case.network, loss, lr=case.lr, max_steps=_MOST_STEPS, rtol=case.rtol)
    if trained.status == "interrupted":  # `fit` keeps what was reached; here half a training is of no use
        raise KeyboardInterrupt
    return trained


def _autograd(torch: Any, case: datasets.Case, loss: SquaredLoss, repeats: int) -> Autograd:
    script = posted.run(torch, case, repeats)
    ours = loss.hessian(LinearNetwork([script.W1, script.W2]), params=[1]).toarray()
    return Autograd(
        version=script.version,
        threads=script.threads,
        epochs=script.epochs,
        train_seconds=script.train_seconds,
        hessian_seconds=script.hessian_seconds,
        dense=_dense(script.hessian, repeats),
        difference=float(np.abs(script.hessian - ours).max() / np.abs(ours).max()),
    )


def _formula(factor: Array, outputs: int) -> Array:
    """Return ``(factor factor.T) ⊗ I``, the last lines of the post."""
    return np.kron(factor.dot(factor.T), np.eye(outputs))


def _dense(matrix: Array, repeats: int) -> Dense:
    def compute() -> tuple[NDArray[np.float64], int]:
        values = decompositions.svdvals(matrix.astype(np.float64, copy=False))
        return values, int(np.sum(values > values[0] * len(matrix) * np.finfo(values.dtype).eps))

    (values, rank), seconds = _timed(compute, repeats)
    return Dense(float(values[0] / values[rank - 1]), rank, values, seconds)


def _timed(compute: Callable[[], T], repeats: int) -> tuple[T, float]:
    best = math.inf
    for _ in range(repeats):
        began = time.perf_counter()
        result = compute()
        best = min(best, time.perf_counter() - began)
    return result, best


def _plain(value: Any) -> Any:
    if isinstance(value, Condition):
        value = {name: getattr(value, name) for name in value.__slots__}
    elif isinstance(value, np.ndarray):
        value = value.tolist()
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
