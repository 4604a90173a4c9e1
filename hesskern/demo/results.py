"""The results of the demo: its numbers, and the comparisons behind its verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern.linalg.condition import Condition
from hesskern.training.network_group import Status

#: Relative difference up to which two condition numbers agree. Rounding grows about a thousandfold while the loss
#: climbs, to 1e-13, and the published values have eight digits; the mistake of the post is a factor of 30.
AGREE = 1e-6

#: Difference of two dense Hessians at the same weights, relative to their largest entry: sums of five products each.
AGREE_DENSE = 1e-12


class NumberCheck(NamedTuple):
    """One comparison: two numbers that must agree."""

    name: str
    value: float
    expected: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether they differ by at most `tolerance`, relative to `expected` (absolute where that is 0)."""
        return abs(self.value - self.expected) <= self.tolerance * (abs(self.expected) or 1.0)


class DenseCondition(NamedTuple):
    """Condition number of a dense matrix as the post takes it: SVD, and NumPy's rule for the rank."""

    cond: float
    rank: int
    values: NDArray[np.float64]  # all singular values, descending
    seconds: float


class AutogradResult(NamedTuple):
    """The post's own PyTorch code on the same data."""

    version: str
    threads: int
    epochs: int
    train_seconds: float
    hessian_seconds: float
    dense: DenseCondition
    difference: float  # from hesskern's dense Hessian at the same weights, relative to its largest entry


@dataclass(frozen=True, slots=True)
class Demo:
    """All results of the demo.

    Attributes
    ----------
    backend, isa : str
        The backend, and the instruction set of the compiled kernels.
    repeats : int
        Each time is the shortest of this many runs.
    status, steps, losses
        How training ended, after how many epochs, and the loss at the start of each.
    lr, stable_lr : float
        The learning rate, and 2/λ_max of the full Hessian at the start, beyond which descent is unstable there.
    condition : Condition
        Of the Hessian with respect to W_2, from its factors.
    values, multiplicities
        Its nonzero eigenvalues, descending, and how often each occurs.
    numpy_cond : float
        Result of ``numpy.linalg.cond`` for the dense matrix.
    as_posted, fixed : DenseCondition
        The formula with ``w1.dot(x)``, and with ``w1.dot(x.T)``.
    autograd : AutogradResult or None
    autograd_missing : str
        Why `autograd` is None; empty otherwise.
    expected : dict
        Independently checked results for this case, to compare with; see `Case`.
    train_seconds, hessian_seconds, cond_seconds : float
        Times of hesskern: training, the dense Hessian, its condition number.
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
    as_posted: DenseCondition
    fixed: DenseCondition
    autograd: AutogradResult | None
    autograd_missing: str
    expected: dict[str, float]
    train_seconds: float
    hessian_seconds: float
    cond_seconds: float

    @property
    def checks(self) -> tuple[NumberCheck, ...]:
        """Every comparison for the verdict."""
        condition_number, rank = self.condition.value, self.condition.rank
        checks = [
            NumberCheck("the number of epochs", self.steps, self.expected["epochs"], 0.0),
            NumberCheck("hesskern's condition number", condition_number, self.expected["cond"], AGREE),
            NumberCheck("hesskern's rank", rank, self.expected["rank"], 0.0),
            NumberCheck(
                "the spectrum's condition number", float(self.values[0] / self.values[-1]), condition_number, AGREE
            ),
            NumberCheck("the number of nonzero eigenvalues", int(self.multiplicities.sum()), rank, 0.0),
            NumberCheck("the posted formula's number", self.as_posted.cond, self.expected["cond_as_posted"], AGREE),
            NumberCheck("the fixed formula's condition number", self.fixed.cond, condition_number, AGREE),
            NumberCheck("the fixed formula's rank", self.fixed.rank, rank, 0.0),
        ]
        if self.autograd is not None:
            checks += [
                NumberCheck("PyTorch's number of epochs", self.autograd.epochs, self.steps, 0.0),
                NumberCheck("autograd's condition number", self.autograd.dense.cond, condition_number, AGREE),
                NumberCheck("autograd's rank", self.autograd.dense.rank, rank, 0.0),
                NumberCheck("the difference of the dense Hessians", self.autograd.difference, 0.0, AGREE_DENSE),
            ]
        return tuple(checks)

    @property
    def ok(self) -> bool:
        """Whether training converged and all comparisons agree."""
        return self.status == "converged" and all(check.ok for check in self.checks)

    @property
    def failures(self) -> tuple[str, ...]:
        """The comparisons that do not agree, one sentence each."""
        failures = [] if self.status == "converged" else [f"training {self.status} after {self.steps} epochs"]
        for name, value, expected, tolerance in (check for check in self.checks if not check.ok):
            near = f" to {tolerance:g}" if tolerance else ""
            failures.append(f"{name} is {value:.10g}; expected {expected:.10g}{near}")
        return tuple(failures)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain dicts, lists and numbers; None where a number is infinite or NaN."""
        plain: dict[str, Any] = _plain(
            {name: getattr(self, name) for name in self.__slots__}
            | {"ok": self.ok, "failures": self.failures}
            | {"checks": [_in_json(check) for check in self.checks]}
        )
        return plain


def _in_json(check: NumberCheck) -> dict[str, Any]:
    fields = check._asdict()
    return {"what": fields.pop("name")} | fields | {"ok": check.ok}


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
