"""The squared loss of a linear network on data: its value, its gradient and its Hessian."""

from __future__ import annotations

from hesskern._base import checks, devices
from hesskern._base.array_types import Array
from hesskern.losses.least_squares import LeastSquaresLoss

KINDS = ("half_sum", "sum", "mean")


class SquaredLoss(LeastSquaresLoss):
    r"""Squared loss of a network's predictions for X against Y.

    With the residual ``E = net.forward(X) - Y`` (samples in rows):

    - ``"half_sum"``: ``‖E‖²/2``
    - ``"sum"``: ``‖E‖²``, ``nn.MSELoss(reduction="sum")``
    - ``"mean"``: ``‖E‖²/(N·o)``, ``nn.MSELoss()``

    plus ``weight_decay/2 · ‖θ‖²`` over all weights and biases. ``torch.optim.SGD(weight_decay=...)`` adds the same
    gradient.

    Parameters
    ----------
    X : (N, i) array, float32 or float64
        Inputs, samples in **rows**, as ``nn.Linear`` takes them. C-contiguous arrays are not copied: do not change them
        while the loss is in use. Arrays on a GPU are used as tensors there, without a copy.
    Y : (N, o) array
        Targets, of the same dtype.
    kind : {"half_sum", "sum", "mean"}
    weight_decay : float, >= 0
    backend : str, optional
        "cpp", "numba" or "numpy" for everything that is computed from this loss; default: see `use_backend`. For arrays
        on a GPU: "cuda", which is their default.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, their dtypes differ, or they are not on the backend's device.
    ValueError
        If shapes do not fit, an array is empty, or holds NaN or infinities.

    Examples
    --------
    >>> import numpy as np, hesskern as hk
    >>> net = hk.LinearNetwork([np.array([[1.0, 2.0]]), np.array([[3.0]])])
    >>> loss = hk.SquaredLoss(np.array([[1.0, 1.0]]), np.array([[8.0]]))
    >>> loss(net)
    0.5
    >>> loss.gradient(net)
    array([3., 3., 3.])
    """

    def __init__(
        self,
        X: Array,
        Y: Array,
        kind: str = "half_sum",
        weight_decay: float = 0.0,
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__(X, Y, weight_decay, backend=backend)
        self.kind = checks.one_of(kind, "kind", KINDS)

    def cpu(self) -> SquaredLoss:
        """Return the loss of the samples in main memory, with the default backend; the loss itself on the CPU."""
        if self.device == "cpu":
            return self
        return SquaredLoss(devices.to_host(self.X), devices.to_host(self.Y), self.kind, self.weight_decay)

    @property
    def scale(self) -> float:
        """The factor of the half-sum loss, its gradient and its Hessian: 1, 2, or 2/(N·o)."""
        if self.kind == "mean":
            return 2.0 / devices.size(self.Y)
        return 1.0 if self.kind == "half_sum" else 2.0

    @property
    def scale_per_sample(self) -> float | None:
        """The scale of a minibatch's loss times its number of samples ("mean"); None: `scale` for every size."""
        return 2.0 / self.Y.shape[1] if self.kind == "mean" else None
