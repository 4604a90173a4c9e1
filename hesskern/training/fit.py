"""Training one network: gradient descent, its stochastic and accelerated forms, and recorded quantities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import checks
from hesskern.losses.least_squares import LeastSquaresLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.training.driver import train
from hesskern.training.learning_rate import LearningRate
from hesskern.training.network_group import NetworkGroup, Status
from hesskern.training.options import StrPath, TrainingOptions
from hesskern.training.reduction import Reduction


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """The result of `fit`.

    Attributes
    ----------
    network : LinearNetwork
        The network at the end. After a divergence: the last network with a finite loss.
    steps : int
        Number of updates. After a divergence: the updates up to `network`.
    status : {"converged", "max_steps", "diverged", "interrupted"}
    history : dict of arrays
        "step": the number of updates before each record; and one array for each name in `record`.
    reduction : Reduction
        Size of the data and the network after the reductions; ``str(run.reduction)`` describes it. It is empty if
        nothing was reduced, and nothing looked reducible.
    execution : str
        On a GPU, the method: many steps in one launch, or several launches for each step and the reason; else empty.
    """

    network: LinearNetwork
    steps: int
    status: Status
    history: dict[str, NDArray[Any]]
    reduction: Reduction
    execution: str = ""

    def __repr__(self) -> str:
        losses = self.history.get("loss", np.empty(0))
        losses_text = f", loss {losses[0]:.6g} -> {losses[-1]:.6g}" if len(losses) else ""
        return f"Run({self.status} after {self.steps} steps{losses_text})"


def fit(
    net: LinearNetwork,
    loss: LeastSquaresLoss,
    *,
    lr: LearningRate,
    max_steps: int,
    rtol: float | None = None,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    momentum: float = 0.0,
    nesterov: bool = False,
    record: Sequence[str] = ("loss",),
    record_every: int = 1,
    reduce: str = "auto",
    backend: str | None = None,
    progress: bool = False,
    checkpoint: StrPath | None = None,
    checkpoint_every: int | None = None,
    resume: StrPath | None = None,
) -> Run:
    r"""Train by (stochastic) gradient descent, with exactly the update of ``torch.optim.SGD``.

    A step is the same as in a PyTorch loop: compute the loss and the gradient at the current weights, then update. With
    ``g`` the gradient of the loss (weight decay included):

    - plain: ``θ ← θ - lr g``
    - heavy ball: ``v ← momentum v + g``, ``θ ← θ - lr v`` (v = 0 at the start)
    - Nesterov: ``v ← momentum v + g``, ``θ ← θ - lr (g + momentum v)``

    Parameters
    ----------
    net : LinearNetwork
        The network at the start; it is not changed.
    loss : SquaredLoss
        On a GPU with the network, or both in main memory.
    lr : float, array or callable
        Learning rate: a number > 0, an array with at least `max_steps` of them, or a function of the step, counted from
        0.
    max_steps : int, >= 1
    rtol : float, >= 0, optional
        The run has converged when the loss of all samples is at most `rtol` times the first loss; the update of that
        step is still made. Default: run all `max_steps`.
    batch_size : int, optional
        Samples in a step; default: all. Epoch e goes through the samples in the order ``numpy.random.default_rng([seed,
        e]).permutation(N)``, in consecutive batches; the last may be shorter. The loss of a batch is the sum over its
        samples alone, or with kind "mean" their mean.
    shuffle : bool
        False: every epoch takes the samples in their given order.
    seed : int, >= 0
    momentum : float, >= 0
    nesterov : bool
    record : sequence of str
        What to keep in `history`, at the weights before each recorded step:

        - "loss": of all samples, also with minibatches; "batch_loss": of the step's batch
        - "gradient_norm": of the gradient of "loss"
        - "sharpness": largest eigenvalue of the full Hessian, to 1e-10; "2/lr" comes with it
        - "condition", "rank", "smallest" (nonzero eigenvalue in absolute value) of the full Hessian, or of a block:
          "condition[1.weight]", "rank[0]"; the brackets hold an entry of ``params`` in ``loss.hessian(net, params)``
        - "balance": ``‖W_{l+1}.T W_{l+1} - W_l W_l.T - b_l b_l.T‖`` (Frobenius) for each hidden layer, (records, L-1)
        - "distance": ``‖θ - θ_0‖``; "weights": θ, flat, (records, P)
    record_every : int, >= 1
        Record the steps 0, k, 2k, ... only.
    reduce : {"auto", "none"}
        "auto" reduces the problem and transforms the result back; in exact arithmetic the run is the same.
        ``str(run.reduction)`` says what was done. "none" trains the given network on the given samples. The reductions,
        in their order:

        - samples: if there are more than inputs, the QR factor of the data replaces them (full batch only)
        - inputs: if X has rank a < i (fewer samples than inputs, constant or repeated columns), a combinations of them
        - widths: a hidden layer wider than its neighbours together gets their joint width
        - orthogonal start: if all inner layers are square and start as multiples of orthogonal matrices, up to
          rounding, i + o units of each layer are trained, and one for each hidden bias that is not zero
        - rotation: data with a diagonal X, where that makes a step faster (full batch only)
    backend : str, optional
        "cpp", "numba" or "numpy"; default: the backend of the loss, see `use_backend`. On a GPU "cuda", the default
        there.
    progress : bool
        Show a progress bar (needs tqdm, ``pip install "hesskern[progress]"``).
    checkpoint : path, optional
        File for the state of the run, replaced as a whole each time: with `resume` you can continue a killed run. If
        the file cannot be written, the run continues with a RuntimeWarning.
    checkpoint_every : int, optional
        Steps between checkpoints; default: about a minute. A checkpoint is always written at the end, and on Ctrl-C.
    resume : path, optional
        Checkpoint to continue from, with the same result bit for bit. It must come from a run with the same arguments
        (`max_steps` may differ; a function for `lr` is not compared).

    Returns
    -------
    Run
        Ctrl-C does not raise: the run ends with status "interrupted" and holds the result so far.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described above, or `resume` belongs to another run.
    FileNotFoundError
        If `resume` does not exist.
    ImportError
        If `progress` is True and tqdm is not installed.

    Notes
    -----
    A step costs the smaller of ``O(i·o·Σ m)`` and ``O(N·Σ m_l·m_{l-1})``, with N the rows and m the widths after all
    reductions. The loss is the squared norm of the residual itself, because the expansion with ``X.T X`` cancels near a
    minimum. Results depend on the arguments, the backend and the instruction set, but not on the number of threads.
    BLAS results would depend on it, so `fit` limits BLAS to one thread. The reductions hold for these updates (but not
    for Adam, sign updates, clipping by entries or L1). What the reduced network leaves out only decays; its norm is one
    more weight, so that every recorded number is that of the network given.

    Examples
    --------
    >>> import hesskern as hk
    >>> case = hk.datasets.two_layer_case()
    >>> loss = hk.SquaredLoss(case.X, case.Y)
    >>> run = hk.fit(case.network, loss, lr=case.lr, max_steps=10_000, rtol=case.rtol, record=("loss", "sharpness"))
    >>> run.steps, str(run.reduction)
    (608, 'widths 5-100-5 to 5-10-5')
    >>> bool(run.history["sharpness"][0] > run.history["2/lr"][0] > run.history["sharpness"][-1])
    True
    """
    if not isinstance(loss, LeastSquaresLoss):
        raise TypeError(f"loss is a {type(loss).__name__}; expected a hesskern.SquaredLoss.")
    loss.check_network(net)
    options = TrainingOptions(
        lr=lr, max_steps=max_steps, rtol=rtol, batch_size=batch_size, shuffle=shuffle, momentum=momentum,
        nesterov=nesterov, record=record, record_every=record_every, reduce=reduce, backend=backend,
        checkpoint=checkpoint, checkpoint_every=checkpoint_every, resume=resume,
    )  # fmt: skip
    seeds = [checks.seed(seed)]
    progress = checks.boolean(progress, "progress")
    return train(options, [net], [loss], seeds, ensemble=False, threads=1, progress=progress, result=_run)


def _run(group: NetworkGroup) -> Run:
    return Run(
        network=group.network(0),
        steps=group.steps()[0],
        status=group.status()[0],
        history=group.history(0),
        reduction=group.reduction(),
        execution=group.execution(),
    )
