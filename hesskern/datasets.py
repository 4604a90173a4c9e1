"""Data shipped with the package."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources

import numpy as np

from hesskern._base.array_types import Array
from hesskern.network.linear_network import LinearNetwork


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Case:
    """A training problem with its known results.

    Attributes
    ----------
    X, Y : (N, i), (N, o) arrays
        Inputs and targets, samples in rows.
    network : LinearNetwork
        The network at the start of training.
    lr, rtol : float
        Learning rate, and the fraction of the first loss at which training stops.
    expected : dict
        Published or independently checked results, for comparison.
    """

    X: Array
    Y: Array
    network: LinearNetwork
    lr: float
    rtol: float
    expected: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        shapes = f"X {self.X.shape}, Y {self.Y.shape}"
        return f"Case({self.network}, {shapes}, lr={self.lr:.6g}, rtol={self.rtol:g}, expected={self.expected})"


def two_layer_case() -> Case:
    """Return the 5-100-5 network whose Hessian started this package.

    A researcher trained it by full-batch SGD until the loss was 1e-20 times the first loss. For the Hessian with
    respect to W_2 there were two condition numbers: 174 by autograd, and 5345 by a formula from a paper that has
    samples in columns. The matrices come from this run (newer SciPy draws other orthogonal matrices from the same
    seed).

    Examples
    --------
    >>> import hesskern as hk
    >>> case = hk.datasets.two_layer_case()
    >>> case.X.shape, case.network.widths
    ((5, 5), (5, 100, 5))
    """
    with (
        resources.files("hesskern").joinpath("data", "two_layer_case.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        return Case(
            X=arrays["x"],
            Y=arrays["y"],
            network=LinearNetwork([arrays["W1"], arrays["W2"]]),
            lr=0.00023400934009340095,
            rtol=1e-20,
            expected={"epochs": 608, "cond": 174.0739405, "cond_as_posted": 5345.8106, "rank": 25},
        )
