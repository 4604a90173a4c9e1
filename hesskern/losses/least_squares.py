"""Losses that are a multiple of half the squared norm of the residual: everything that they share.

To add one, derive from `LeastSquaresLoss`. What a loss must say of itself is abstract (`cpu`, `scale`). A loss that
changes the samples, as sample weights do, has its own `rows`, and a mean its own `scale_per_sample`. Keep the arrays
and options of the loss in public attributes: checkpoints and ensembles compare them. Hessians, K-FAC, `hesskern.fit`
and `hesskern.fit_ensemble` use nothing else.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from hesskern import backends
from hesskern._base import checks, devices
from hesskern._base.array_types import Array
from hesskern._base.powers import reach
from hesskern.backends.data import Data
from hesskern.backends.protocol import Backend
from hesskern.curvature.objective import Objective
from hesskern.network.linear_network import LinearNetwork, check_inputs
from hesskern.reductions.input_rank import RowSpan
from hesskern.reductions.samples import reduce_samples

if TYPE_CHECKING:  # SciPy's sparse package is not needed before the first Hessian
    from hesskern.curvature.hessian import Hessian


class LeastSquaresLoss(Objective):
    """``scale/2 ‖E‖² + weight_decay/2 ‖θ‖²`` with the residual ``E = net.forward(X) - Y``, samples in rows.

    Parameters
    ----------
    X : (N, i) array, float32 or float64
    Y : (N, o) array
    weight_decay : float, >= 0
    backend : str, optional

    Raises
    ------
    TypeError
        If an array is not float32 or float64, their dtypes differ, or they are not on the backend's device.
    ValueError
        If shapes do not fit, an array is empty, or holds NaN or infinities.
    """

    def __init__(self, X: Array, Y: Array, weight_decay: float = 0.0, *, backend: str | None = None) -> None:
        self.X = checks.as_data(X, "X", 2)
        self.Y = checks.as_data(Y, "Y", 2)
        checks.same_kind(self.X, "X", self.Y, "Y")
        if len(self.X) != len(self.Y):
            raise ValueError(
                f"Y has {len(self.Y)} rows, but X has {len(self.X)}; expected one row for each sample in both "
                f"(shapes {tuple(self.X.shape)} and {tuple(self.Y.shape)}: samples are rows)."
            )
        #: The device of the samples: "cpu", or a GPU by PyTorch's name, "cuda:0".
        self.device = devices.place(self.X)
        self.weight_decay = checks.non_negative(weight_decay, "weight_decay")
        self.backend = None if backend is None else backends.resolve(backend)
        if self.backend is not None and (self.backend == "cuda" or self.device != "cpu"):
            backends.get_for(self.backend, self.device, "X and Y are")
        self._reduced: dict[tuple[bool, str], Data] = {}
        self._reaches: dict[bool, float] = {}
        self._spans: dict[bool, RowSpan] = {}

    # What each loss says of itself ------------------------------------------------------------------------------------

    @abstractmethod
    def cpu(self) -> LeastSquaresLoss:
        """Return the loss of the samples in main memory, with the default backend; the loss itself on the CPU."""

    @property
    def scale_per_sample(self) -> float | None:
        """The scale of a minibatch's loss times its number of samples; None: `scale` for every size."""
        return None

    def rows(self) -> Data:
        """Return the rows whose residual is squared, one for each sample, and the column that biases multiply."""
        return Data(self.X, None, self.Y, 0.0)

    # What follows -----------------------------------------------------------------------------------------------------

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays that it was made of, by name: its public attributes that are arrays; checkpoints compare them."""
        return {name: value for name, value in self._public() if getattr(value, "ndim", 0)}

    @property
    def options(self) -> dict[str, object]:
        """Its own options, by name: its other public attributes, ``{"kind": "mean"}``; checkpoints compare them."""
        return {name: value for name, value in self._public() if not getattr(value, "ndim", 0)}

    def _public(self) -> Iterator[tuple[str, Any]]:
        common = ("device", "weight_decay", "backend")
        return ((name, value) for name, value in vars(self).items() if name[0] != "_" and name not in common)

    def _checked_rows(self) -> Data:
        """Return the rows; refuse those of a derived class that kernels would take in a wrong way."""
        if type(self).rows is LeastSquaresLoss.rows:
            return self.rows()
        data, source = self.rows(), f"{type(self).__name__}.rows()"
        X, Y = checks.as_data(data.X, f"X of {source}", 2), checks.as_data(data.Y, f"Y of {source}", 2)
        checks.same_kind(X, f"X of {source}", Y, f"Y of {source}")
        ones = data.ones
        if ones is not None:
            ones = checks.as_data(ones, f"the column of {source}", 1)
            checks.same_kind(X, f"X of {source}", ones, f"the column of {source}")
        if X.shape != self.X.shape or Y.shape != self.Y.shape or (ones is not None and len(ones) != len(X)):
            raise ValueError(
                f"{source} returns X {tuple(X.shape)} and Y {tuple(Y.shape)}; expected one row for each sample, "
                f"X {tuple(self.X.shape)} and Y {tuple(self.Y.shape)}, and a column of {len(self.X)} numbers or None."
            )
        if data.constant != 0:
            raise ValueError(f"{source} returns the constant {data.constant:g}; expected 0.")
        return Data(X, ones, Y, 0.0)

    @property
    def kernels(self) -> Backend:
        """The backend that computes from this loss."""
        return backends.get_for(self.backend, self.device, "X and Y are")

    @property
    def num_samples(self) -> int:
        """Number of samples, N."""
        return len(self.X)

    def data(self, *, bias: bool, reduced: bool) -> Data:
        """Return the samples, or their exact reduction to at most i (+1 with biases) rows, in the samples' dtype."""
        data = self.reduction(bias=bias) if reduced else self._checked_rows()
        return data.astype(devices.numpy_dtype(self.X))

    def reduction(self, *, bias: bool) -> Data:
        """Return the exact reduction of the samples to at most i (+1 with biases) rows, computed once.

        It is in float64 if it has fewer rows than the samples. The curvature is computed from it.
        """
        kernels = self.kernels
        key = bias, kernels.name
        if key not in self._reduced:
            with self._enough_memory("the reduction of the samples"):
                self._reduced[key] = reduce_samples(
                    self._checked_rows(), bias=bias, triangular_factor=kernels.triangular_factor
                )
        return self._reduced[key]

    def reach(self, *, bias: bool) -> float:
        """Return the sum over reduced inputs and targets of the largest distance of an entry's exponent from 0."""
        if bias not in self._reaches:
            data = self.reduction(bias=bias)
            self._reaches[bias] = reach([data.X, data.Y])
        return self._reaches[bias]

    def row_span(self, *, bias: bool) -> RowSpan:
        """Return the space of the rows of X, computed once; from the reduction of the samples if there is one."""
        if bias not in self._spans:
            samples, inputs = self.X.shape
            X = self.rows().X if samples < inputs else self.reduction(bias=bias).X
            self._spans[bias] = RowSpan.of(X, samples=samples if len(X) < samples else None)
        return self._spans[bias]

    def remember(self, data: Data, *, bias: bool, backend: str) -> None:
        """Store a reduction of these samples that this backend has computed in another process."""
        self._reduced.setdefault((bias, backend), data)

    def check_network(self, net: LinearNetwork, *, on_cpu: str | None = None) -> None:
        """Refuse a network that does not fit the data; `on_cpu` names a function that refuses data on a GPU."""
        scale: object = self.scale
        if not isinstance(scale, float) or not 0 < scale < math.inf:
            raise ValueError(f"scale of {type(self).__name__} is {checks.shown(scale)}; expected a float above 0.")
        if not isinstance(net, LinearNetwork):
            raise TypeError(f"net is a {type(net).__name__}; expected a hesskern.LinearNetwork.")
        checks.same_kind(net.weights[0], "the network", self.X, "X")
        if on_cpu is not None and self.device != "cpu":
            raise TypeError(
                f"{on_cpu} computes on the CPU, but the network and the samples are on {self.device}; "
                "pass net.cpu() and loss.cpu()."
            )
        check_inputs(self.X, net)
        if self.Y.shape[1] != net.widths[-1]:
            raise ValueError(
                f"Y has shape {tuple(self.Y.shape)}; expected (N, {net.widths[-1]}) for a network with "
                f"{net.widths[-1]} outputs."
            )

    def __call__(self, net: LinearNetwork) -> float:
        """Return the loss, computed from the residual. O(N·o·i) or O(N·Σ m_l·m_{l-1}), the smaller of the two."""
        self.check_network(net)
        with self._enough_memory("the loss"):
            squared = self.kernels.squared_residual(net, self.data(bias=net.has_bias, reduced=False))
            return self._value(net, squared)

    def _enough_memory(self, work: str) -> AbstractContextManager[None]:
        if self.device == "cpu":
            return nullcontext()
        words = sum(map(devices.size, (self.X, self.Y)))
        about = f"{work} (about {2 * words * devices.numpy_dtype(self.X).itemsize >> 20} MiB and the activations)"
        return devices.enough_memory(self.X, about, "take fewer samples.")

    def gradient(self, net: LinearNetwork) -> Array:
        """Return the gradient as one vector in `named_parameters()` order; ``net.unflatten`` splits it by layers."""
        return self.value_and_gradient(net)[1]

    def value_and_gradient(self, net: LinearNetwork) -> tuple[float, Array]:
        """Return the loss and its gradient (P,)."""
        self.check_network(net)
        data = self.data(bias=net.has_bias, reduced=False)
        with self._enough_memory("the gradient"):
            squared, gradient = self.kernels.gradient(net, data, self.scale)
            if self.weight_decay:
                gradient += self.weight_decay * net.flatten()
            return self._value(net, squared), gradient

    def hessian(self, net: LinearNetwork, params: Sequence[int | str] | None = None) -> Hessian:
        """Return the Hessian at `net` as an operator; see `Hessian`.

        Parameters
        ----------
        net : LinearNetwork
        params : sequence of int or str, optional
            The parameters to differentiate with respect to: layer numbers counted from 0 or names, ``[1]`` or
            ``["1.weight"]``. Default: all. The Hessian is in the order of `named_parameters()`, for any order of
            `params`.

        Returns
        -------
        Hessian
            A `KroneckerHessian` if the parameters belong to one layer, a `DeviceHessian` on a GPU.

        Raises
        ------
        TypeError, ValueError
            If the network does not fit the data, or `params` names a parameter that it does not have.
        """
        from hesskern.curvature.hessian import hessian_of  # noqa: PLC0415 - loads scipy.sparse.linalg
        from hesskern.network.parameters import select  # noqa: PLC0415

        self.check_network(net)
        parts = select(net, params)
        if self.device != "cpu":
            from hesskern.curvature.gpu_hessian import DeviceHessian  # noqa: PLC0415

            # Types do not know an array's device, and a union would burden all users without a GPU.
            return DeviceHessian(self, net, parts, parts)  # type: ignore[return-value]
        return hessian_of(self, net, parts, "full")

    def _value(self, net: LinearNetwork, squared: float) -> float:
        value = 0.5 * self.scale * squared
        if self.weight_decay:
            value += 0.5 * self.weight_decay * devices.squared_norm(net.flatten())
        return value

    def __getstate__(self) -> dict[str, object]:
        # Without cached results: a loss has the same pickle before and after it was used.
        return {name: value for name, value in vars(self).items() if name not in ("_reduced", "_reaches", "_spans")}

    def __setstate__(self, state: dict[str, object]) -> None:
        values = {name: devices.unwrapped(value) for name, value in state.items()}
        vars(self).update(values, _reduced={}, _reaches={}, _spans={})

    @property
    def description(self) -> str:
        """The options as keyword arguments: "kind='half_sum', weight_decay=0.1"."""
        return ", ".join([*self._in_words(), *([] if self.backend is None else [f"backend={self.backend!r}"])])

    def _in_words(self) -> list[str]:
        decay = [f"weight_decay={self.weight_decay:g}"] if self.weight_decay else []
        return [*(f"{name}={value!r}" for name, value in self.options.items()), *decay]

    def __repr__(self) -> str:
        arrays = [f"{name} {tuple(array.shape)}" for name, array in self.arrays.items()]
        dtype = str(devices.numpy_dtype(self.X)) + ("" if self.device == "cpu" else f" on {self.device}")
        return f"{type(self).__name__}({', '.join([*arrays, *self._in_words(), dtype])})"
