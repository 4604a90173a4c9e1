"""The squared loss of samples that are known only by their exact reduction."""

from __future__ import annotations

import numpy as np

from hesskern._base import devices
from hesskern.backends.data import Data
from hesskern.losses.least_squares import LeastSquaresLoss
from hesskern.network.linear_network import LinearNetwork


class ReducedLoss(LeastSquaresLoss):
    """A multiple of the squared loss of samples that were reduced while they were read.

    Parameters
    ----------
    data : Data
        The reduced samples.
    samples : int
        Number of samples before they were reduced.
    scale : float
        The factor of half the squared norm of the residual.
    """

    def __init__(self, data: Data, samples: int, scale: float) -> None:
        super().__init__(data.X, data.Y)
        self._data, self._samples, self._scale = data, samples, scale

    @property
    def num_samples(self) -> int:
        """Number of samples before they were reduced."""
        return self._samples

    @property
    def options(self) -> dict[str, object]:
        """The scale."""
        return {"scale": self._scale}

    @property
    def scale(self) -> float:
        """The factor of the half-sum loss, its gradient and its Hessian."""
        return self._scale

    def data(self, *, bias: bool, reduced: bool) -> Data:
        """Return the reduced samples in each case: their reduction already fits the model's biases."""
        return self._data.astype(devices.numpy_dtype(self.X))

    def reduction(self, *, bias: bool) -> Data:
        """Return the reduced samples as they are."""
        return self._data

    def _value(self, net: LinearNetwork, squared: float) -> float:
        # The reduction leaves out the part of the residual that no weights can change.
        return super()._value(net, squared) + self._scale * self._data.constant

    def cpu(self) -> ReducedLoss:
        """Return the loss of the samples in main memory; the loss itself on the CPU."""
        if self.device == "cpu":
            return self
        X, ones, Y, constant = self._data
        move = devices.to_host
        data = Data(move(X), None if ones is None else move(ones), move(Y), constant)
        return ReducedLoss(data, self._samples, self._scale)

    def astype(self, dtype: np.dtype[np.floating]) -> ReducedLoss:
        """Return the loss for networks of another dtype; curvature still uses the reduced samples in float64."""
        converted = ReducedLoss(self._data.astype(dtype), self._samples, self._scale)
        converted._data = self._data
        return converted
