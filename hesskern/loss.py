"""Squared loss of a linear network on data: value, gradient, and the door to its curvature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hesskern import backends, checks
from hesskern._array import Array
from hesskern.network import LinearNetwork, check_inputs
from hesskern.problem import Data, reduce_samples

if TYPE_CHECKING:  # SciPy's sparse package is not needed before the first Hessian
    from hesskern.hessian import Hessian

KINDS = ("half_sum", "sum", "mean")


class SquaredLoss:
    r"""Squared loss of a network's predictions for X against Y.

    With the residual ``E = net.forward(X) - Y`` (samples in rows):

    - ``"half_sum"``: ``‖E‖²/2``
    - ``"sum"``: ``‖E‖²``, ``nn.MSELoss(reduction="sum")``
    - ``"mean"``: ``‖E‖²/(N·o)``, ``nn.MSELoss()``

    plus ``weight_decay/2 · ‖θ‖²`` over all weights and biases, whose gradient is that of ``torch.optim.SGD``'s
    ``weight_decay``.

    Parameters
    ----------
    X : (N, i) array, float32 or float64
        Inputs, samples in **rows**, as ``nn.Linear`` takes them. C-contiguous arrays are not copied: leave them as they
        are while the loss is in use.
    Y : (N, o) array
        Targets, same dtype.
    kind : {"half_sum", "sum", "mean"}
    weight_decay : float, >= 0
    backend : str, optional
        "cpp", "numba" or "numpy" for everything that is computed from this loss; default: see `use_backend`.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or their dtypes differ.
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
        self.X = checks.as_array(X, "X", 2)
        self.Y = checks.as_array(Y, "Y", 2)
        checks.same_dtype(self.X, "X", self.Y, "Y")
        if len(self.X) != len(self.Y):
            raise ValueError(
                f"Y has {len(self.Y)} rows, but X has {len(self.X)}; expected one row for each sample in both "
                f"(shapes {self.X.shape} and {self.Y.shape}: samples are rows)."
            )
        self.kind = checks.one_of(kind, "kind", KINDS)
        self.weight_decay = checks.non_negative(weight_decay, "weight_decay")
        self.backend = None if backend is None else backends.resolve(backend)
        self._reduced: dict[tuple[bool, str], Data] = {}

    @property
    def scale(self) -> float:
        """What the half-sum loss, its gradient and Hessian are multiplied by: 1, 2, or 2/(N·o)."""
        return {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / self.Y.size}[self.kind]

    def data(self, *, bias: bool, reduced: bool) -> Data:
        """Return the samples, or their exact reduction to at most i (+1 with biases) rows, computed once."""
        if not reduced:
            return Data(self.X, None, self.Y, 0.0)
        key = bias, backends.resolve(self.backend)
        if key not in self._reduced:
            triangular_factor = backends.get(self.backend).triangular_factor
            self._reduced[key] = reduce_samples(self.X, self.Y, bias=bias, triangular_factor=triangular_factor)
        return self._reduced[key]

    def check_network(self, net: LinearNetwork) -> None:
        """Refuse a network that does not fit the data."""
        if not isinstance(net, LinearNetwork):
            raise TypeError(f"net is a {type(net).__name__}; expected a hesskern.LinearNetwork.")
        checks.same_dtype(net.weights[0], "the network", self.X, "X")
        check_inputs(self.X, net)
        if self.Y.shape[1] != net.widths[-1]:
            raise ValueError(
                f"Y has shape {self.Y.shape}; expected (N, {net.widths[-1]}) for a network with {net.widths[-1]} "
                "outputs."
            )

    def __call__(self, net: LinearNetwork) -> float:
        """Return the loss, computed from the residual itself. O(N·o·i) or O(N·Σ m_l·m_{l-1}), whichever is less."""
        self.check_network(net)
        squared = backends.get(self.backend).squared_residual(net, self.data(bias=net.has_bias, reduced=False))
        return self._value(net, squared)

    def gradient(self, net: LinearNetwork) -> Array:
        """Return the gradient as one vector in `named_parameters()` order; ``net.unflatten`` splits it by layers."""
        return self.value_and_gradient(net)[1]

    def value_and_gradient(self, net: LinearNetwork) -> tuple[float, Array]:
        """Return the loss and its gradient (P,)."""
        self.check_network(net)
        data = self.data(bias=net.has_bias, reduced=False)
        squared, gradient = backends.get(self.backend).gradient(net, data, self.scale)
        if self.weight_decay:
            gradient += self.X.dtype.type(self.weight_decay) * net.flatten()
        return self._value(net, squared), gradient

    def hessian(self, net: LinearNetwork, params: Sequence[int | str] | None = None) -> Hessian:
        """Return the Hessian at `net` as an operator; see `Hessian`.

        Parameters
        ----------
        net : LinearNetwork
        params : sequence of int or str, optional
            With respect to which parameters: layer numbers counted from 0 and names, ``[1]`` or ``["1.weight"]``.
            Default: all. The order is that of `named_parameters()`, whatever order is given.

        Returns
        -------
        Hessian
            A `KroneckerHessian` where the parameters belong to one layer.

        Raises
        ------
        TypeError, ValueError
            If the network does not fit the data or `params` names something it does not have.
        """
        from hesskern.hessian import made  # noqa: PLC0415 - loads scipy.sparse.linalg
        from hesskern.selection import select  # noqa: PLC0415

        self.check_network(net)
        return made(self, net, select(net, params), "full")

    def _value(self, net: LinearNetwork, squared: float) -> float:
        value = 0.5 * self.scale * squared
        if self.weight_decay:
            value += 0.5 * self.weight_decay * float(np.sum(np.square(net.flatten(), dtype=np.float64)))
        return value

    def __repr__(self) -> str:
        decay = f", weight_decay={self.weight_decay:g}" if self.weight_decay else ""
        return f"SquaredLoss(X {self.X.shape}, Y {self.Y.shape}, kind={self.kind!r}{decay}, {self.X.dtype})"
