"""The arguments that `fit` and `fit_ensemble` share, checked once, and their consequences in every run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hesskern import backends
from hesskern._base import checks
from hesskern.backends.data import Data
from hesskern.backends.protocol import Update
from hesskern.losses.least_squares import LeastSquaresLoss
from hesskern.training import checkpoint
from hesskern.training.learning_rate import LearningRate
from hesskern.training.minibatches import Batches
from hesskern.training.recorder import Records

StrPath = str | os.PathLike[str]


@dataclass(slots=True, kw_only=True)
class TrainingOptions:
    """How to train; see `hesskern.fit` for each."""

    lr: LearningRate
    max_steps: int
    rtol: float | None
    batch_size: int | None
    shuffle: bool
    momentum: float
    nesterov: bool
    record: Sequence[str]
    record_every: int
    reduce: str
    backend: str | None
    checkpoint: StrPath | None
    checkpoint_every: int | None
    resume: StrPath | None
    saving_path: Path | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.max_steps = checks.integer(self.max_steps, "max_steps", 1)
        self.record_every = checks.integer(self.record_every, "record_every", 1)
        self.rtol = None if self.rtol is None else checks.non_negative(self.rtol, "rtol")
        self.batch_size = None if self.batch_size is None else checks.integer(self.batch_size, "batch_size", 1)
        self.momentum = checks.non_negative(self.momentum, "momentum")
        for name in ("shuffle", "nesterov"):
            checks.boolean(getattr(self, name), name)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov is True, but momentum is 0; expected momentum > 0, as torch.optim.SGD does.")
        if self.backend is not None:
            checks.one_of(self.backend, "backend", backends.names())
        checks.one_of(self.reduce, "reduce", ("auto", "none"))
        if self.checkpoint_every is not None:
            self.checkpoint_every = checks.integer(self.checkpoint_every, "checkpoint_every", 1)
            if self.checkpoint is None:
                raise ValueError("checkpoint_every is given, but checkpoint is None; expected checkpoint=path as well.")
        if self.checkpoint is not None:
            self.saving_path = checkpoint.check_writable(self.checkpoint)

    def chosen_backend(self, loss: LeastSquaresLoss) -> str | None:
        """Return the requested backend, from here or from the loss."""
        return loss.backend if self.backend is None else self.backend

    def update(self, loss: LeastSquaresLoss) -> Update:
        """Return the rule of a step."""
        return Update(self.momentum, self.nesterov, loss.weight_decay)

    @property
    def relative_target(self) -> float:
        """`rtol` as backends take it: below 0 a run never converges."""
        return -1.0 if self.rtol is None else self.rtol

    @property
    def saves(self) -> bool:
        """Whether a checkpoint is written or read."""
        return self.saving_path is not None or self.resume is not None

    def largest(self, loss: LeastSquaresLoss) -> int:
        """Return how many samples the largest minibatch has, 0 where steps use all."""
        return 0 if self.batch_size is None else min(self.batch_size, len(loss.X))

    def batches(self, loss: LeastSquaresLoss, seed: int) -> Batches:
        """Return the minibatches of a run with this seed."""
        return Batches(len(loss.X), self.largest(loss), shuffle=self.shuffle, seed=seed)

    def data(self, loss: LeastSquaresLoss, records: Records, bias: bool) -> tuple[Data, Data | None]:
        """Return the data of the full loss, and the samples that minibatches are taken from."""
        reduced = self.reduce == "auto"
        if self.batch_size is None:
            return loss.data(bias=bias, reduced=reduced), None
        samples = loss.data(bias=bias, reduced=False)
        if samples.ones is not None and bias:
            raise ValueError(
                f"batch_size is {self.batch_size}, but this {type(loss).__name__} multiplies biases by numbers other "
                "than 1, which minibatches do not; expected None (all samples in each step)."
            )
        if self.rtol is None and not records.of_all_samples:
            return Data(samples.X[:1], None, samples.Y[:1], 0.0), samples  # nobody looks at the full loss
        return loss.data(bias=bias, reduced=reduced), samples

    def samples_to_rows(self, loss: LeastSquaresLoss, rows: int) -> tuple[int, int] | None:
        """Return the samples and the rows that full-batch steps use instead; None where they use the samples."""
        fewer = self.batch_size is None and self.reduce == "auto" and rows < len(loss.X)
        return (len(loss.X), rows) if fewer else None
