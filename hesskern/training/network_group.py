"""The interface of training to its networks: one protocol, `NetworkGroup`, in main memory and on a GPU.

`hesskern.training.cpu_group.CpuGroup` has a descent of a backend for each network,
`hesskern.training.gpu_group.GpuGroup` all networks as tensors with one row for each. The code around them, `driver`,
`loop`, `fit` and `fit_ensemble`, uses only the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol

from hesskern._base.array_types import AnyArray
from hesskern._base.interrupt import Interruption
from hesskern.backends.protocol import Backend
from hesskern.losses.least_squares import LeastSquaresLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.training.history import History
from hesskern.training.learning_rate import Schedule
from hesskern.training.options import TrainingOptions
from hesskern.training.recorder import Records
from hesskern.training.reduction import Reduction
from hesskern.training.run_state import RunState

Status = Literal["converged", "max_steps", "diverged", "interrupted"]


class TrainingProblem(NamedTuple):
    """The inputs of a group."""

    options: TrainingOptions
    networks: Sequence[LinearNetwork]  # of one shape
    losses: Sequence[LeastSquaresLoss]  # one for each network, or one for all
    seeds: Sequence[int]  # of the minibatches, one for each network
    backend: Backend
    schedule: Schedule
    records: Records
    ensemble: bool  # whether it is one of `fit_ensemble`, also of one network
    threads: int


class NetworkGroup(Protocol):
    """The networks of a run. All that still run have taken the same number of steps."""

    #: Whether its loop can take the sharpness of float64 networks.
    sharpness_in_loop: bool
    #: Steps of a piece that still have their losses where they cost nothing: longer ones would only ask for memory.
    most_steps: int
    #: A first guess at how many steps take 20 ms; the loop corrects it.
    first_piece: int

    @staticmethod
    def surroundings(
        options: TrainingOptions, networks: Sequence[LinearNetwork], loss: LeastSquaresLoss
    ) -> AbstractContextManager[None]:
        """Return the block inside which a group is made, trained and asked for what came of it."""

    def __init__(self, problem: TrainingProblem) -> None: ...

    # Steps

    def running(self) -> bool:
        """Return whether any network runs."""

    def measure(self, interruption: Interruption) -> None:
        """Measure the quantities that are recorded between steps; stop early, and record nothing, after Ctrl-C."""

    def advance(self, start: int, stop: int) -> None:
        """Take the steps from `start` to before `stop` with all networks that run."""

    def finish(self, ended: Status) -> None:
        """Give each network that still runs this status; a network whose last update overflowed has diverged."""

    # Checkpoints

    def state(self) -> RunState:
        """Return all that a checkpoint needs."""

    def restore(self, state: RunState) -> None:
        """Continue from the result of `state`."""

    # Results

    def network(self, index: int) -> LinearNetwork:
        """Return the network given at the parameters reached."""

    def layers(self) -> tuple[list[AnyArray], list[AnyArray | None]]:
        """Return weights (networks, out, in) and biases (networks, out) of the networks given."""

    def steps(self) -> list[int]:
        """Return how many updates each network has taken."""

    def status(self) -> list[Status]:
        """Return how each network has ended, after `finish`."""

    def history(self, index: int) -> History:
        """Return the records of one network."""

    def histories(self) -> History:
        """Return the records of all networks; see `hesskern.training.history.Histories.stacked`."""

    def reduction(self) -> Reduction:
        """Return the sizes of the networks and their data after the reductions."""

    def execution(self) -> str:
        """Return how the steps were taken, in words; empty in main memory."""
