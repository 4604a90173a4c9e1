"""The protocol of a backend: the kernels of the package behind one set of signatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Array
from hesskern.backends.data import Data

Stop = Literal["running", "converged", "diverged"]

#: How many times larger than ``|W_{l+1}| |W_l|``, which bounds the rounding errors of the network as it is, the product
#: of the norms, which bounds those of the reduced one, may be. Gaussian weights have about 2.
UNBALANCED = 30.0


class Layers(Protocol):
    """A network as backends see it."""

    @property
    def weights(self) -> tuple[Array, ...]:
        """Weights, each (out, in)."""

    @property
    def biases(self) -> tuple[Array | None, ...]:
        """Biases, each (out,) or None."""


class PlainLayers(NamedTuple):
    """Weights and biases, nothing else."""

    weights: tuple[Array, ...]
    biases: tuple[Array | None, ...]


class ProductSvd(NamedTuple):
    """Singular values of a product of factors, with the decision about its rank."""

    values: NDArray[np.float64]  # descending, each times two to the power of its exponent: of any size
    exponents: NDArray[np.int64]
    rank: int
    kept: float  # smallest pivot counted, relative to the magnitudes it was summed from
    dropped: float  # largest entry taken for zero, likewise
    amplification: float  # relative error of a value, in units of the rounding unit
    lost: float  # size of what was taken for zero, relative to the smallest value counted, in the same units


class Update(NamedTuple):
    """The rule of ``torch.optim.SGD`` without dampening."""

    momentum: float
    nesterov: bool
    decay: float


class Watch(NamedTuple):
    """The quantities that a descent records, and how often."""

    every: int  # steps 0, every, 2 every, ... are recorded
    loss: bool  # whether the full-batch loss is recorded; with minibatches it costs extra
    sharpness: bool  # whether a job may ask for the largest eigenvalue of the Hessian; float64 only
    leak_layers: tuple[int, ...]  # hidden layers, counted from 1, across which rounding errors are followed


class Job(NamedTuple):
    """Some steps: their inputs, and arrays for the records, NaN for steps that are not recorded.

    With minibatches ``order[ends[k-1]:ends[k]]`` are the samples of step k, of a loss ``scales[k]/2 ‖E‖²``.
    """

    rates: NDArray[np.float64]
    scales: NDArray[np.float64]
    order: NDArray[np.int64] | None
    ends: NDArray[np.int64] | None
    losses: NDArray[np.float64]  # of all samples; always taken where the steps use all samples or can converge
    batch_losses: NDArray[np.float64] | None
    gradient_norms: NDArray[np.float64] | None
    sharpness: NDArray[np.float64] | None


def _empty(*shape: int) -> NDArray[np.float64]:
    empty = np.empty(shape)
    empty.flags.writeable = False
    return empty


class State(NamedTuple):
    """The state of a descent: all that it needs to continue bit for bit.

    This is the one description of it. Backends, checkpoints and the GPU use these names. A quantity that a backend does
    not keep has the value given here.
    """

    steps: int  # updates taken
    target: float  # a loss at which it has converged; below 0: none
    parameters: Array  # (P,)
    previous: Array  # (P,) before the last update: where it goes back to if the next loss is not finite
    velocity: Array  # (P,), empty without momentum
    # Log of the growth of rounding errors across each layer watched, up to `growth_step`.
    growth: NDArray[np.float64] = _empty(0)
    growth_rate: NDArray[np.float64] = _empty(0)  # of `growth` in that step
    growth_step: int = -1  # -1: not looked at yet
    search: Array = _empty(0, 0)  # (k, P) vectors from which the search for the largest eigenvalue goes on
    search_step: int = -1  # what is known of the other eigenvalues, where a backend keeps that: since which step,
    search_rest: float = 0.0  # a bound on them,
    search_drift: float = 0.0  # and how much the Hessian has changed since


class Descent(Protocol):
    """(Stochastic) gradient descent that runs some steps at a time; see `HostBackend.advance`."""

    @property
    def steps(self) -> int:
        """Steps taken."""

    @property
    def growth(self) -> list[float]:
        """Log of the growth of rounding errors across each of the layers watched, up to the present step."""

    def parameters(self) -> Array:
        """Return the current parameters, flat."""

    def step_back(self) -> None:
        """Return to the parameters before the last update."""

    def save(self) -> State:
        """Return its state."""

    def restore(self, state: State) -> None:
        """Continue from the result of `save`."""


class Side(NamedTuple):
    """The parameters of one layer on one side of a dense block: ``outer * (inner + bias)`` of them."""

    outer: int
    inner: int
    bias: bool  # a last inner index, the constant input, whose parameters come after all others


class Block(NamedTuple):
    """``H[(r,s),(p,q)] = U[r,p] V[s,q] + B[s,p] W[r,q]``, r and p outer, s and q inner indices."""

    U: Array
    V: Array
    B: Array | None = None
    W: Array | None = None


class Softmax(NamedTuple):
    """``Σ_n scale_n (diag(p_n) - p_n p_n.T) ⊗ f_n f_n.T``, f with a last entry 1 for a bias, whose rows are last."""

    features: Array  # (N, d)
    probabilities: Array  # (N, C)
    scale: Array  # (N,)
    bias: bool


class HessianProduct(Protocol):
    """Products with a Hessian; everything that does not depend on the vector is computed once."""

    def apply(self, v: Array, out: Array) -> None:
        """Write H v into `out`; both (P,) or (P, k), C-contiguous, in `named_parameters()` order."""


class Backend(Protocol):
    """The operations of every backend, on NumPy arrays or on tensors of a GPU.

    Arguments are checked, C-contiguous, of one dtype, and where the backend computes.
    """

    name: str
    #: What besides the name decides the last bits of a result: the instruction set of compiled kernels.
    instructions: str
    #: Relative error allowed against exact arithmetic, by dtype: rounding of sums of length n grows like sqrt(n).
    tolerance: dict[str, float]

    def forward(self, net: Layers, X: Array) -> Array:
        """Return the predictions (N, o)."""

    def squared_residual(self, net: Layers, data: Data) -> float:
        """Return ``‖E‖²`` for the residual ``E = prediction - Y``."""

    def gradient(self, net: Layers, data: Data, scale: float) -> tuple[float, Array]:
        """Return ``‖E‖²`` and the flat gradient of ``scale/2 ‖E‖²``."""

    def assemble(self, rows: Sequence[Side], columns: Sequence[Side], blocks: Sequence[Block], out: Array) -> None:
        """Write a dense block of the Hessian, one `Block` for each pair of sides (row-major), into `out`."""

    def hessian_product(
        self, net: Layers, data: Data, *, scale: float, decay: float, gauss_newton: bool, functional: bool
    ) -> HessianProduct:
        """Return products with ``scale * (the parts asked for) + decay * I`` at these weights."""

    def triangular_factor(self, parts: Sequence[Array]) -> NDArray[np.float64]:
        """Return R (n, n) of the thin QR of these matrices side by side.

        Any strides, columns of any scale; rows of zeros if there are few.
        """


class HostBackend(Backend, Protocol):
    """A backend that computes on the CPU.

    On a GPU, PyTorch differentiates by itself, many networks are trained at once
    (`hesskern.backends.cuda.operations.CudaBackend.descents`), and small matrices go to the CPU.
    """

    #: What a step of a small network costs, in seconds, roughly.
    step_seconds: float

    def backward(
        self, net: Layers, X: Array, delta: Array, *, parameters: bool, samples: bool
    ) -> tuple[Array | None, Array | None]:
        """Return the gradients of ``Σ delta * prediction``: of the parameters, flat, and of X; None: not asked for."""

    def descent(
        self,
        net: Layers,
        data: Data,
        samples: Data | None,
        largest_batch: int,
        *,
        scale: float,
        rtol: float,
        update: Update,
        watch: Watch,
        ensemble: bool,
    ) -> Descent:
        """Return a descent on ``scale/2 ‖E‖² + decay/2 ‖θ‖² + scale * data.constant``.

        It converges on the loss of `data`: at most `rtol` times the first one (< 0: never). The steps use `data` too,
        or minibatches of `samples`. `ensemble`: other descents of the same shape run at the same time. The last bits of
        its results may depend on whether there are others, but not on which.
        """

    def advance(self, descents: Sequence[Descent], jobs: Sequence[Job], threads: int) -> list[tuple[Stop, int]]:
        """Run each job with its descent; return how it stopped and how many steps had a finite loss.

        Stops before a step whose loss is not finite ("diverged"), and restores the parameters before the last update.
        Also stops after a step whose loss was small enough ("converged"). The results do not depend on `threads`.
        """

    def krylov_steps(
        self,
        product: HessianProduct,
        inside: NDArray[np.float64] | None,
        vectors: NDArray[np.float64],
        images: NDArray[np.float64],
        start: int,
        stop: int,
        block: int,
    ) -> int:
        """Take steps of the Lanczos method with a product of this backend; see `hesskern._base.lanczos.steps`."""

    def softmax_dense(self, problem: Softmax, out: Array) -> None:
        """Write the dense matrix (P, P) into `out`, symmetric to the bit."""

    def softmax_product(self, problem: Softmax, v: Array, out: Array) -> None:
        """Write its product with v, (P,) or (P, k), into `out`."""

    def wide_layer(self, below: Sequence[Array], above: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return R of the thin QR of ``[*below, above]``, as `triangular_factor` does, and ``above.T [*below]``.

        `below` and `above` are the weights into and out of many hidden units, one row each; both in one pass.
        """

    def mixes_units(self, stack: NDArray[np.float64], outputs: int) -> bool:
        """Return whether a rotation of the hidden units, the columns, loses digits of the product of both sides.

        The last `outputs` rows are weights out of the units, the others weights into them. Digits are lost where the
        product of two rows' norms is more than `UNBALANCED` times the sum of the absolute terms of their product. Where
        that sum is zero, the smaller of the largest sums in its row and in its column counts.
        """

    def product_svd(
        self,
        first: NDArray[np.float64],
        weights: Sequence[NDArray[np.float64]],
        tolerance: float,
        *,
        rotated: bool = False,
    ) -> ProductSvd:
        """Return the singular values of ``first @ W_1.T @ W_2.T ...`` and its rank.

        `rotated`: `first` is a triangular factor, whose small rows may be only rounding errors.
        """
