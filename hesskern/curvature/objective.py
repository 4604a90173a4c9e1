"""The function that curvature operators differentiate, as they see it.

An objective is half a squared norm of the residual of a linear network's predictions, times `scale`, plus weight decay.
Operators are written against this class; each loss derives from it (`hesskern.losses`) and makes its operators.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from hesskern._base.formatting import widths_in_words
from hesskern.backends.data import Data
from hesskern.backends.protocol import Backend
from hesskern.network.linear_network import LinearNetwork


class Objective(ABC):
    """``scale/2 ‖net.forward(X) - Y‖² + weight_decay/2 ‖θ‖²``, as a function of the parameters of a network."""

    #: Coefficient of the penalty ``weight_decay/2 ‖θ‖²``.
    weight_decay: float

    @property
    @abstractmethod
    def kernels(self) -> Backend:
        """The backend that computes from this objective."""

    @property
    @abstractmethod
    def num_samples(self) -> int:
        """Number of samples, N."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """The factor of the half-sum loss, its gradient and its Hessian."""

    @property
    @abstractmethod
    def description(self) -> str:
        """The chosen options as keyword arguments: "kind='half_sum', weight_decay=0.1"."""

    @abstractmethod
    def cpu(self) -> Objective:
        """Return the objective with its samples in main memory and the default backend; itself if they are there."""

    @abstractmethod
    def data(self, *, bias: bool, reduced: bool) -> Data:
        """Return the samples, or their exact reduction to at most i (+1 with biases) rows, in the samples' dtype."""

    @abstractmethod
    def reduction(self, *, bias: bool) -> Data:
        """Return the exact reduction of the samples to at most i (+1 with biases) rows, computed once.

        The curvature is computed from it. It is in float64 if anything was reduced.
        """

    @abstractmethod
    def reach(self, *, bias: bool) -> float:
        """Return the largest absolute exponent of the reduced samples plus the largest of the targets."""

    @abstractmethod
    def remember(self, data: Data, *, bias: bool, backend: str) -> None:
        """Store a reduction of these samples that a backend has computed in another process."""

    @abstractmethod
    def check_network(self, net: LinearNetwork, *, on_cpu: str | None = None) -> None:
        """Refuse a network that does not fit the data; with `on_cpu`, the name of a CPU function, one on a GPU too."""


def setting(objective: Objective, net: LinearNetwork) -> str:
    """Return the setting of a Hessian in words: "in 5-100-5, kind='half_sum', dtype=float64"."""
    device = "" if net.device == "cpu" else f" on {net.device}"
    return f"in {widths_in_words(net.widths)}{device}, {objective.description}, dtype={net.dtype}"
