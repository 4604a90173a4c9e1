"""The question: the network, the data and everything that may have happened to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import checks
from hesskern.explanation.given.candidate_model import CandidateModel, Curvature
from hesskern.explanation.given.gradient_steps import known_steps
from hesskern.explanation.given.scales import Scales
from hesskern.explanation.given.selections import Selection, selections
from hesskern.explanation.given.variants import data_variants, weight_variants
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork, usual_names
from hesskern.network.parameters import select


class Question:
    """Everything except the candidate, in float64; weight decay is left out and added as a shift."""

    def __init__(
        self,
        net: LinearNetwork,
        loss: SquaredLoss,
        params: Sequence[int | str] | None,
        trajectory: Sequence[LinearNetwork],
        lr: float | None,
        batch_size: int | None,
    ) -> None:
        if type(loss) is not SquaredLoss:  # a derived class may change what is squared
            raise TypeError(f"loss is a {type(loss).__name__}; expected a hesskern.SquaredLoss.")
        loss.check_network(net, on_cpu="explain")
        parts = select(net, params)
        self.epsilon = float(np.finfo(net.dtype).eps)
        self.net = precise(net)
        self.loss = SquaredLoss(float64(loss.X), float64(loss.Y), loss.kind, backend=loss.backend)
        self.decay = loss.weight_decay
        networks: list[LinearNetwork] = []
        if isinstance(trajectory, LinearNetwork):
            trajectory = [trajectory]
        if isinstance(trajectory, str | bytes | memoryview) or not isinstance(trajectory, Sequence):
            raise TypeError(f"trajectory is {checks.shown(trajectory)}; expected a list of hesskern.LinearNetwork.")
        for at, network in enumerate(trajectory):
            if not isinstance(network, LinearNetwork):
                raise TypeError(f"trajectory[{at}] is a {type(network).__name__}; expected a hesskern.LinearNetwork.")
            if usual_names(network.biases) != usual_names(net.biases) or network.widths != net.widths:
                raise ValueError(f"trajectory[{at}] is {network!r}; expected a network like net, {net!r}.")
            networks.append(precise(network))
        if batch_size is not None:
            batch_size = min(checks.integer(batch_size, "batch_size", 1), len(loss.X))
        self.rate = None if lr is None else checks.positive(lr, "lr")
        self.scales = Scales(len(loss.X), loss.Y.shape[1], loss.kind, self.decay, batch_size)
        self.data = data_variants(self.loss, batch_size)
        self.weights = weight_variants(self.net, networks)
        if self.rate is not None:
            self.weights += known_steps(self.net, self.loss, self.decay, self.rate)
        self.selections = selections(self.net, parts, net.parameter_names)

    @property
    def selection(self) -> Selection:
        """The parameters asked for."""
        return self.selections[0]

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.loss.X)

    @property
    def everything(self) -> Selection:
        """All parameters."""
        return max(self.selections, key=lambda selection: selection.size)

    def truth(self) -> Curvature:
        """Return the Hessian asked for, without weight decay."""
        return self.truth_of(self.selection)

    def truth_of(self, selection: Selection) -> Curvature:
        """Return the Hessian with respect to some parameters, without weight decay."""
        return Curvature(self.data[0], self.weights[0], selection.tensors, self.epsilon)

    def true_matrix(self) -> NDArray[np.float64]:
        """Return the Hessian asked for."""
        return CandidateModel(self.truth(), shift=self.decay).toarray()

    def true_spectrum(self) -> NDArray[np.float64]:
        """Return its eigenvalues, ascending."""
        return self.truth().eigenvalues("full") + self.decay


def float64(array: NDArray[Any]) -> NDArray[np.float64]:
    """Return an array in float64."""
    return np.asarray(array, dtype=np.float64)


def precise(net: LinearNetwork) -> LinearNetwork:
    """Return a network in float64 with the usual parameter names, which are used throughout."""
    if net.dtype == np.float64 and net.parameter_names == usual_names(net.biases):
        return net
    return LinearNetwork(
        [float64(weight) for weight in net.weights], [None if b is None else float64(b) for b in net.biases]
    )
