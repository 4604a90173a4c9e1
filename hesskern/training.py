"""Gradient descent: the driver around the backends' loops."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hesskern import backends, checks
from hesskern._array import Array
from hesskern.backends.protocol import Descent
from hesskern.loss import SquaredLoss
from hesskern.network import LinearNetwork

Status = Literal["converged", "max_steps", "diverged", "interrupted"]

#: The loop returns to Python about this often (seconds), to see Ctrl-C and to move the progress bar.
_SHORTEST, _LONGEST = 0.02, 0.1


@dataclass(frozen=True, slots=True)
class Run:
    """What `fit` did.

    Attributes
    ----------
    network : LinearNetwork
        The network reached. After a divergence the last one whose loss was finite.
    steps : int
        Updates taken. After a divergence: up to that network.
    status : {"converged", "max_steps", "diverged", "interrupted"}
    history : dict of arrays
        "step": how many updates came before; "loss": the loss at that point.
    reduction : str
        What the training was reduced to, in words; empty where it ran on the data as given.
    """

    network: LinearNetwork
    steps: int
    status: Status
    history: dict[str, NDArray[Any]]
    reduction: str

    def __repr__(self) -> str:
        losses = self.history.get("loss", np.empty(0))
        seen = f", loss {losses[0]:.6g} -> {losses[-1]:.6g}" if len(losses) else ""
        return f"Run({self.status} after {self.steps} steps{seen})"


def fit(
    net: LinearNetwork,
    loss: SquaredLoss,
    *,
    lr: float,
    max_steps: int,
    rtol: float | None = None,
    record: Sequence[str] = ("loss",),
    record_every: int = 1,
    reduce: str = "auto",
    backend: str | None = None,
    progress: bool = False,
) -> Run:
    r"""Train by full-batch gradient descent: ``θ ← θ - lr (∇loss)``, the update of ``torch.optim.SGD``.

    A step is what it is in a PyTorch loop: take the loss and the gradient at the current weights, then update. The run
    has converged when that loss is at most `rtol` times the first one; the update of that step is still made.

    Parameters
    ----------
    net : LinearNetwork
        Where to start; it is not changed.
    loss : SquaredLoss
    lr : float, > 0
        Learning rate.
    max_steps : int, >= 1
    rtol : float, >= 0, optional
        Stop when the loss is at most this times the first one; default: run all `max_steps`.
    record : sequence of str
        What to keep in `history`: "loss", or nothing.
    record_every : int, >= 1
        Keep every so many steps only.
    reduce : {"auto", "none"}
        "auto" trains on the QR factor of the data when there are more samples than inputs: exactly the same loss and
        gradients from at most i rows. "none" uses the samples as they are.
    backend : str, optional
        "cpp" or "numpy"; default: the one of the loss, see `use_backend`.
    progress : bool
        Show a progress bar (needs tqdm, ``pip install "hesskern[progress]"``).

    Returns
    -------
    Run
        Ctrl-C does not raise: the run ends with status "interrupted" and holds what was reached.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above.
    ImportError
        If `progress` is asked for and tqdm is not installed.

    Notes
    -----
    A step costs ``O(i·o·Σ m)`` or ``O(N·Σ m_l·m_{l-1})``, whichever is less for these shapes. The loss is always the
    squared norm of the residual itself; the expansion with ``X.T X`` cancels near a minimum.

    Examples
    --------
    >>> import hesskern as hk
    >>> case = hk.datasets.two_layer_case()
    >>> loss = hk.SquaredLoss(case.X, case.Y)
    >>> hk.fit(case.network, loss, lr=case.lr, max_steps=10_000, rtol=case.rtol).steps
    608
    """
    if not isinstance(loss, SquaredLoss):
        raise TypeError(f"loss is a {type(loss).__name__}; expected a hesskern.SquaredLoss.")
    loss.check_network(net)
    rate = checks.positive(lr, "lr")
    max_steps = checks.integer(max_steps, "max_steps", 1)
    record_every = checks.integer(record_every, "record_every", 1)
    checks.one_of(reduce, "reduce", ("auto", "none"))
    if isinstance(record, str):
        raise TypeError(f'record is {record!r}; expected a list of names, for instance ("{record}",).')
    for name in record:
        checks.one_of(name, "record", ("loss",))
    relative = -1.0 if rtol is None else checks.non_negative(rtol, "rtol")

    data = loss.data(bias=net.has_bias, reduced=reduce == "auto")
    descent = backends.get(loss.backend if backend is None else backend).descent(
        net, data, rate=rate, scale=loss.scale, decay=loss.weight_decay, rtol=relative
    )
    # A first guess at how many steps take 20 ms; the loop corrects it.
    work = net.num_parameters * min(len(data.X), net.widths[0] + 1)
    status, losses = _drive(descent, max_steps, record_every, max(1, min(512, 4_000_000 // work)), progress=progress)
    steps = np.arange(0, record_every * len(losses), record_every, dtype=np.int64)
    rows = f"{len(loss.X)} samples to {len(data.X)} rows" if len(data.X) < len(loss.X) else ""
    return Run(
        network=net._with(descent.parameters()),
        steps=descent.steps,
        status=status,
        history={"step": steps} | ({"loss": losses} if "loss" in record else {}),
        reduction=rows,
    )


def _drive(
    descent: Descent, max_steps: int, record_every: int, first_piece: int, *, progress: bool
) -> tuple[Status, NDArray[np.float64]]:
    """Run the loop in pieces of 20 to 100 ms until it ends; Ctrl-C is seen between two of them."""
    kept: dict[int, NDArray[np.float64]] = {}  # by the step a piece starts from
    bar = _bar(max_steps) if progress else None
    piece = first_piece
    losses = np.empty(0)
    start = 0
    before, previous = (descent.parameters(), 0), (descent.parameters(), 0)
    status: Status = "max_steps"
    try:
        while descent.steps < max_steps:
            start = descent.steps
            losses = kept[start] = np.empty(min(piece, max_steps - start))
            before, previous = (descent.parameters(), start), before
            began = time.perf_counter()
            stop = descent.run(losses)
            took = time.perf_counter() - began
            if bar is not None:
                bar.update(descent.steps - start)
            if stop != "running":
                status = stop
                break
            kept[start] = losses[-start % record_every :: record_every].copy()
            losses = np.empty(0)
            if took < _SHORTEST:
                piece *= 2
            elif took > _LONGEST:
                piece = max(1, piece // 2)
    except KeyboardInterrupt:
        status = "interrupted"
    finally:
        if bar is not None:
            bar.close()
    if len(losses):  # the last piece ended early
        kept[start] = losses[: descent.steps - start][-start % record_every :: record_every]
    if status != "diverged" and not np.isfinite(descent.parameters()).all():
        status = "diverged"  # by the last update, whose loss nobody has taken yet
    if status == "diverged":
        _step_back(descent, *(before if descent.steps > start else previous))
    return status, np.concatenate([*kept.values(), np.empty(0)])


def _step_back(descent: Descent, flat: Array, steps: int) -> None:
    """Return to the last parameters whose loss was finite, repeating the steps since `flat`; to the start if none."""
    failed = descent.steps
    descent.set_parameters(flat, steps)
    if failed - 1 > steps:
        descent.run(np.empty(failed - 1 - steps))


def _bar(total: int) -> Any:
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ImportError('progress=True needs tqdm; install it with pip install "hesskern[progress]".') from error
    return tqdm(total=total, unit="step", unit_scale=True)
