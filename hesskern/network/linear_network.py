"""A linear network: a stack of `nn.Linear` layers without activations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from hesskern import backends
from hesskern._base import checks, devices, powers
from hesskern._base.array_types import AnyArray, Array
from hesskern._base.flat_layout import count, join, split_as
from hesskern._base.formatting import widths_in_words
from hesskern.network import network_file


class LinearNetwork:
    """Weights and biases of a linear network, in the layout of PyTorch.

    The prediction is ``X @ W_1.T @ W_2.T ... @ W_L.T`` (plus biases), with samples in the rows of `X`. The arrays of a
    network are read-only copies, so its Hessian remains valid. The exception is a read-only ``numpy.memmap``, which
    joblib uses to pass large arrays to its workers. It is not copied: do not change its file.

    Arrays on a GPU (tensors of PyTorch, arrays of CuPy, anything with ``__cuda_array_interface__`` or DLPack) give a
    network on that GPU, whose arrays are tensors.

    Parameters
    ----------
    weights : sequence of (out, in) arrays, float32 or float64
        One matrix for each layer, as ``nn.Linear.weight``: layer l has shape ``(m_l, m_{l-1})``.
    biases : sequence of (out,) arrays or None, optional
        One entry for each layer; ``None`` for a layer (or for all layers) without bias.
    names : sequence of str, optional
        Names of the weights and biases, in the order of `flatten`; default: "0.weight", "0.bias", "1.weight", ... as in
        an ``nn.Sequential``. `from_torch` takes the names of the module.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or the arrays have several dtypes or devices.
    ValueError
        If shapes do not fit each other, an array is empty or holds NaN or infinities, or `names` does not hold one
        different name for each weight and bias.

    Examples
    --------
    >>> import numpy as np, hesskern as hk
    >>> net = hk.LinearNetwork([np.ones((3, 2)), np.ones((1, 3))])
    >>> net.widths, net.depth, net.num_parameters
    ((2, 3, 1), 2, 9)
    >>> net.forward(np.array([[1.0, 2.0]]))
    array([[9.]])
    """

    __slots__ = ("_biases", "_names", "_reach", "_weights")

    _reach: float

    def __init__(
        self,
        weights: Sequence[AnyArray],
        biases: Sequence[AnyArray | None] | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        if isinstance(weights, np.ndarray) or not isinstance(weights, Sequence):
            raise TypeError(f"weights is a {type(weights).__name__}; expected a list of matrices, one for each layer.")
        if len(weights) == 0:
            raise ValueError("weights is empty; expected at least one matrix.")
        arrays: list[Array] = []
        for layer, weight in enumerate(weights):
            name = f"weights[{layer}]"
            array = checks.as_data(weight, name, 2)
            if layer > 0:
                checks.same_kind(arrays[0], "weights[0]", array, name)
                if array.shape[1] != arrays[-1].shape[0]:
                    raise ValueError(
                        f"{name} has shape {tuple(array.shape)}, but weights[{layer - 1}] has "
                        f"{tuple(arrays[-1].shape)}; expected shape (out, {arrays[-1].shape[0]}): "
                        "weights are (out, in), as nn.Linear.weight, and each layer takes the outputs of the one "
                        "before."
                    )
            arrays.append(checks.frozen(array, weight))
        self._weights = tuple(arrays)
        self._biases = self._checked_biases(biases)
        self._names = self._checked_names(names)

    def _checked_biases(self, biases: Sequence[AnyArray | None] | None) -> tuple[Array | None, ...]:
        if biases is None:
            return (None,) * self.depth
        if isinstance(biases, np.ndarray) or not isinstance(biases, Sequence) or len(biases) != self.depth:
            actual = f"has {len(biases)} entries" if isinstance(biases, Sequence) else f"is {checks.shown(biases)}"
            raise ValueError(f"biases {actual}; expected {self.depth} entries, an array or None for each layer.")
        checked: list[Array | None] = []
        for layer, bias in enumerate(biases):
            if bias is None:
                checked.append(None)
                continue
            name = f"biases[{layer}]"
            array = checks.as_data(bias, name, 1)
            checks.same_kind(self._weights[0], "weights[0]", array, name)
            if array.shape != (self.widths[layer + 1],):
                raise ValueError(f"{name} has shape {array.shape}; expected ({self.widths[layer + 1]},).")
            checked.append(checks.frozen(array, bias))
        return tuple(checked)

    def _checked_names(self, names: Sequence[str] | None) -> tuple[str, ...]:
        usual = usual_names(self._biases)
        if names is None:
            return usual
        if isinstance(names, str) or not isinstance(names, Sequence) or len(names) != len(usual):
            raise ValueError(
                f"names is {checks.shown(names)}; expected {len(usual)} names, one for each weight and bias in the "
                f"order of {', '.join(usual)}."
            )
        for index, name in enumerate(names):
            if not isinstance(name, str) or not all(name.split(".")) or name in names[:index]:
                raise ValueError(
                    f"names[{index}] is {name!r}; expected a different name for each weight and bias, for instance "
                    "'0.weight'."
                )
        return tuple(names)

    @classmethod
    def from_torch(cls, module: Any) -> LinearNetwork:
        """Return a network with the parameters of a PyTorch module that is a chain of linear layers.

        The module may contain linear layers, ``nn.Sequential``, ``nn.Identity``, ``nn.Flatten``, dropout in eval mode
        and nested modules. It may also be your own module, if its forward only chains linear layers (also with
        ``F.linear`` and ``x @ self.W.T``). The forward is traced with ``torch.fx``. A parametrised layer gives its
        effective weight. Frozen layers are included; parameters that forward does not use are not. On a GPU the network
        stays there.

        Parameters
        ----------
        module : torch.nn.Module
            Its parameters are copied. Their names become `parameter_names`, in the order in which forward applies the
            layers, which may differ from the order of ``named_parameters()``.

        Raises
        ------
        TypeError
            If it is not a module, or its parameters are not all float32 or all float64.
        ValueError
            If it is not a chain of linear layers, or a parameter is used twice; the message names the first operation
            that does not fit.
        ImportError
            If PyTorch is not installed.

        Examples
        --------
        >>> import torch, hesskern as hk
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 4, bias=False), torch.nn.Linear(4, 2))
        >>> net = hk.LinearNetwork.from_torch(module)
        >>> net.widths, net.parameter_names
        ((6, 4, 2), ('1.weight', '2.weight', '2.bias'))
        """
        from hesskern.torch_modules import tracing  # noqa: PLC0415 - loads PyTorch

        weights, biases, names = tracing.imported(module)
        return cls(weights, biases, names=names)

    def to_torch(self) -> Any:
        """Return a PyTorch module with copies of the parameters, on the network's device, under its `parameter_names`.

        Its ``state_dict()`` has the keys of the module that `from_torch` took, without buffers and without parameters
        that forward does not use. If the module had neither, each of the two modules can load the other's
        ``state_dict()``. The result is an ``nn.Sequential`` of ``nn.Linear``, nested like the names, if the names allow
        that (an ``nn.Linear`` for the names "weight" and "bias"), and a `hesskern.torch.LinearChain` otherwise. It
        takes samples in rows, and all its parameters require grad.

        Examples
        --------
        >>> import hesskern as hk
        >>> hk.LinearNetwork.random([3, 5, 2], seed=0).to_torch()
        Sequential(
          (0): Linear(in_features=3, out_features=5, bias=False)
          (1): Linear(in_features=5, out_features=2, bias=False)
        )
        """
        from hesskern.torch_modules.export import module_of  # noqa: PLC0415 - loads PyTorch

        return module_of(self._weights, self._biases, self._names)

    @classmethod
    def random(
        cls,
        widths: Sequence[int],
        *,
        seed: int | None = None,
        bias: bool = False,
        dtype: type[np.floating] = np.float64,
    ) -> LinearNetwork:
        """Return a network with normally distributed weights (and biases) of variance 1/in.

        Parameters
        ----------
        widths : sequence of int
            ``(m_0, m_1, ..., m_L)``: inputs, hidden widths, outputs.
        seed : int, optional
            Seed of ``numpy.random.default_rng``.
        bias : bool
            Whether every layer has a bias.
        dtype : numpy.float64 or numpy.float32
            The dtype of the parameters.

        Examples
        --------
        >>> import hesskern as hk
        >>> hk.LinearNetwork.random([5, 100, 5], seed=0)
        LinearNetwork(5-100-5, no bias, float64, 1000 parameters)
        """
        sizes = checks.widths(widths)
        kind = checks.float_dtype(dtype, "dtype")
        checks.boolean(bias, "bias")
        rng = np.random.default_rng(None if seed is None else checks.seed(seed))
        weights: list[Array] = []
        biases: list[Array | None] = []
        for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
            weights.append((rng.standard_normal((outputs, inputs)) / np.sqrt(inputs)).astype(kind))
            biases.append((rng.standard_normal(outputs) / np.sqrt(inputs)).astype(kind) if bias else None)
        return cls(weights, biases)

    @property
    def weights(self) -> tuple[Array, ...]:
        """The weights (out, in), read-only."""
        return self._weights

    @property
    def biases(self) -> tuple[Array | None, ...]:
        """The biases (out,), read-only; None for a layer without one."""
        return self._biases

    @property
    def widths(self) -> tuple[int, ...]:
        """``(m_0, m_1, ..., m_L)``: inputs, hidden widths, outputs."""
        return (self._weights[0].shape[1], *(weight.shape[0] for weight in self._weights))

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self._weights)

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """float32 or float64."""
        return devices.numpy_dtype(self._weights[0])

    @property
    def device(self) -> str:
        """The device of the parameters: "cpu", or a GPU by PyTorch's name, "cuda:0"."""
        return devices.place(self._weights[0])

    def cpu(self) -> LinearNetwork:
        """Return the network in main memory; the network itself if it is already there."""
        if self.device == "cpu":
            return self
        biases = [None if bias is None else devices.to_host(bias) for bias in self._biases]
        return LinearNetwork([devices.to_host(weight) for weight in self._weights], biases, names=self._names)

    @property
    def num_parameters(self) -> int:
        """Number of weights and biases."""
        return count(self._weights, self._biases)

    @property
    def has_bias(self) -> bool:
        """Whether any layer has a bias."""
        return any(bias is not None for bias in self._biases)

    @property
    def reach(self) -> float:
        """The sum over weights and biases of the largest distance of an entry's exponent from 0."""
        try:
            return self._reach
        except AttributeError:  # computed on first use
            self._reach = powers.reach([part for part in (*self._weights, *self._biases) if part is not None])
            return self._reach

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names in the order of `flatten`: those passed to the network, or "0.weight", "0.bias", "1.weight", ..."""
        return self._names

    def forward(self, X: Array, *, backend: str | None = None) -> Array:
        """Return the predictions (N, o) of the samples in the rows of X (N, i).

        The cheaper order of multiplication is used: layer by layer, or by the product of the weights.

        Raises
        ------
        TypeError, ValueError
            If X has the wrong dtype or shape, is empty or not finite.
        """
        array = checks.as_data(X, "X", 2)
        checks.same_kind(self._weights[0], "the network", array, "X")
        check_inputs(array, self)
        return backends.get_for(backend, self.device, "the network is").forward(self, array)

    def flatten(self) -> Array:
        """Return all parameters as one vector, in `named_parameters()` order, each row-major."""
        flat: Array = join(self._weights, self._biases)
        return flat

    def unflatten(self, vector: Array) -> LinearNetwork:
        """Return a network of this shape whose parameters are `vector` (the inverse of `flatten`).

        Use it for any vector with one number for each parameter, for instance a gradient.
        """
        flat = checks.as_data(vector, "vector", 1)
        if flat.shape != (self.num_parameters,):
            raise ValueError(f"vector has shape {flat.shape}; expected ({self.num_parameters},).")
        checks.same_kind(self._weights[0], "the network", flat, "vector")
        return self._with(checks.frozen(flat, vector))

    def _with(self, flat: Array) -> LinearNetwork:
        """Return a network of this shape on a vector that is already checked and that no other code will change."""
        if isinstance(flat, np.ndarray):
            flat.flags.writeable = False
        weights, biases = split_as(self._weights, self._biases, flat)
        net = object.__new__(LinearNetwork)
        net._weights, net._biases, net._names = tuple(weights), tuple(biases), self._names
        return net

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to an ``.npz`` file: "format", "names" (of all parameters), "0.weight", "0.bias", ...

        The file is replaced as a whole: if writing fails, an existing file stays as it was. No suffix is added to the
        path.

        Raises
        ------
        TypeError
            If `path` is not a path.
        OSError
            If the file cannot be written.
        """
        net = self.cpu()
        network_file.write(path, net.weights, net.biases, net.parameter_names)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LinearNetwork:
        """Read a network from a file of `save`, or from a file with the same arrays without "format" and "names".

        Raises
        ------
        TypeError
            If `path` is not a path.
        OSError
            If the file cannot be read.
        ValueError
            If it is damaged, or does not hold a network.
        """
        name = checks.path(path, "path")
        with network_file.naming(name):
            weights, biases, names = network_file.read(name)
            return cls(weights, biases, names=names)

    def __repr__(self) -> str:
        count = sum(bias is not None for bias in self._biases)
        bias = "no bias" if count == 0 else "bias" if count == self.depth else f"bias in {count} of {self.depth} layers"
        device = "" if self.device == "cpu" else f" on {self.device}"
        parameters = f"{self.num_parameters} parameters"
        return f"LinearNetwork({widths_in_words(self.widths)}, {bias}, {self.dtype}{device}, {parameters})"

    def __getstate__(self) -> tuple[tuple[Array, ...], tuple[Array | None, ...], tuple[str, ...]]:
        return self._weights, self._biases, self._names

    def __setstate__(self, state: tuple[tuple[Array, ...], tuple[Array | None, ...], tuple[str, ...]]) -> None:
        # No other code holds arrays that come out of a pickle: no copy, so joblib's memory maps stay memory maps.
        weights, biases, self._names = state
        self._weights = tuple(devices.unwrapped(weight) for weight in weights)
        self._biases = tuple(None if bias is None else devices.unwrapped(bias) for bias in biases)
        for array in (*self._weights, *self._biases):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False


def usual_names(biases: Sequence[Array | None]) -> tuple[str, ...]:
    """Return the names of the parameters in an ``nn.Sequential`` of only these layers."""
    kinds = (("weight",) if bias is None else ("weight", "bias") for bias in biases)
    return tuple(f"{layer}.{kind}" for layer, names in enumerate(kinds) for kind in names)


def check_inputs(X: Array, net: LinearNetwork) -> None:
    """Refuse X if its number of columns is not the network's number of inputs."""
    if X.shape[1] != net.widths[0]:
        hint = " It looks transposed: samples are rows, so pass X.T." if X.shape[0] == net.widths[0] else ""
        raise ValueError(
            f"X has shape {tuple(X.shape)}; expected (N, {net.widths[0]}) for a network with {net.widths[0]} "
            f"inputs.{hint}"
        )
