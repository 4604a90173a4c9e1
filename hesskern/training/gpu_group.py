"""The networks of a run on a GPU: all of them stacked, reduced and trained at once. Importing this loads torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hesskern._base import devices, memory
from hesskern._base.interrupt import Interruption
from hesskern.backends.cuda.batched_curvature import Rows
from hesskern.backends.cuda.batched_width_reduction import ReducedStack
from hesskern.backends.cuda.layers import TensorLayers
from hesskern.backends.cuda.operations import CudaBackend
from hesskern.backends.cuda.state import (
    DIVERGED,
    RUNNING,
    DescentProblem,
    Piece,
    RecordedColumns,
    RecordedValues,
    Samples,
)
from hesskern.backends.data import Data
from hesskern.backends.protocol import PlainLayers, State
from hesskern.losses.least_squares import LeastSquaresLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.network_stack import NetworkStack
from hesskern.reductions.widths import reduce_widths
from hesskern.training import run_state
from hesskern.training.gpu_measures import GpuMeasures
from hesskern.training.history import Histories, History
from hesskern.training.minibatches import Batches
from hesskern.training.network_group import Status, TrainingProblem
from hesskern.training.options import TrainingOptions
from hesskern.training.recorder import Column, ColumnName
from hesskern.training.reduction import Reduction
from hesskern.training.run_state import ENDED, RunState

if TYPE_CHECKING:
    from torch import Tensor

#: Steps that are taken first, at most, and multiply-adds after which a launch ends first: some 20 ms at a tenth of what
#: a card can do. The loop corrects it.
_FIRST_PIECE, _FIRST_WORK = 256, 1e10
#: What a piece may take for what the steps of all networks need and record (bytes).
_PIECE_BYTES = 1 << 28


class GpuGroup:
    """All networks, as tensors with one row for each; see `hesskern.training.network_group.NetworkGroup`.

    Parameters
    ----------
    problem : TrainingProblem
    """

    sharpness_in_loop = False

    @staticmethod
    def surroundings(
        options: TrainingOptions, networks: Sequence[LinearNetwork], loss: LeastSquaresLoss
    ) -> AbstractContextManager[None]:
        """Return a block in which "out of memory" of the device becomes a MemoryError that says how much it takes."""
        # Parameters as given and lifted, before the last update, velocity, and the stacks of the reduction.
        needed = memory.human(6 * 8 * len(networks) * networks[0].num_parameters)
        work = f"training {len(networks)} networks (about {needed}, and the records)"
        return devices.enough_memory(networks[0].weights[0], work, "train fewer at a time, or record less.")

    def __init__(self, problem: TrainingProblem) -> None:
        self._problem = problem
        options, records, backend = problem.options, problem.records, problem.backend
        assert isinstance(backend, CudaBackend)
        loss, net, stack = problem.losses[0], problem.networks[0], NetworkStack.of(problem.networks)
        self._small = _reduced(backend, stack, reduce=options.reduce == "auto")
        watched = RecordedColumns(
            options.record_every,
            "losses" in records.columns,
            "batch_losses" in records.columns,
            "gradient_norms" in records.columns,
        )
        training_problem = _problem_on_device(problem)
        self._descents = backend.descents(self._small, training_problem, watched)
        self._states = self._descents.states
        self._batches: list[Batches] | None = None
        if options.batch_size is not None:
            one_for_all = len(set(problem.seeds)) == 1
            seeds = problem.seeds[:1] if one_for_all else problem.seeds
            self._batches = [options.batches(loss, seed) for seed in seeds]
        whole, column, _ = _stacked([own_loss.data(bias=net.has_bias, reduced=True) for own_loss in problem.losses])
        all_data = Rows(whole[0].double(), column.double(), whole[1].double())
        self._measures = GpuMeasures(records, net, problem.losses, backend, self._descents, self._small, all_data)
        self._histories = Histories(records, len(stack), options.record_every)
        self._ended: Status = "max_steps"
        self._runs = self._any_runs()
        recorded = len(records.columns - {"rates"})
        drawn = 0 if self._batches is None or len(self._batches) == 1 else self._batches[0].size
        self.most_steps = max(1, min(1 << 14, _PIECE_BYTES // (8 * len(stack) * (1 + recorded + drawn))))
        rows = options.largest(loss) or training_problem.data.x.shape[1]
        widths = self._small.widths
        step = 3 * len(stack) * rows * sum(a * b for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.first_piece = max(1, min(_FIRST_PIECE, int(_FIRST_WORK / step)))

    # Steps ------------------------------------------------------------------------------------------------------------

    def running(self) -> bool:
        """Return whether any network runs."""
        return self._runs

    def _any_runs(self) -> bool:
        return bool((self._states.status == RUNNING).any())

    def measure(self, interruption: Interruption) -> None:
        """Measure the quantities that are recorded between steps."""
        values = self._measures.record(interruption)
        if values is not None:  # else no more steps are taken, and a part of a record is no record
            self._histories.add_record(values)

    def advance(self, start: int, stop: int) -> None:
        """Take steps with all networks that run, and wait for them: the loop takes the time."""
        rates = self._problem.schedule.compact(start, stop)
        order = ends = scales = None
        if self._batches is not None:
            loss = self._problem.losses[0]
            chosen = [batches.steps(start, stop) for batches in self._batches]
            order = self._placed(np.stack([samples.order for samples in chosen]))
            ends = self._placed(chosen[0].ends)
            scales = self._placed(chosen[0].scales(loss.scale, loss.scale_per_sample))
        piece = Piece(start, stop - start, self._placed(rates), order, ends, scales)
        self._histories.add_steps(self._columns(rates, start, stop, self._descents.advance(piece)))
        self._runs = self._any_runs()

    def _columns(self, rates: Column, start: int, stop: int, values: RecordedValues) -> dict[ColumnName, Column]:
        """Return the records of the steps, in main memory."""
        every, count = self._problem.options.record_every, len(self._states.parameters)
        recorded = np.broadcast_to(rates, (len(rates), stop - start))[:, -start % every :: every]
        columns: dict[ColumnName, Column] = {"rates": np.broadcast_to(recorded, (count, recorded.shape[1]))}
        nothing = np.empty((count, 0))  # a piece without recorded steps
        return columns | {
            "losses": nothing if values.losses is None else devices.to_host(values.losses),
            "batch_losses": nothing if values.batch_losses is None else devices.to_host(values.batch_losses),
            "gradient_norms": nothing if values.gradient_norms is None else devices.to_host(values.gradient_norms),
        }

    def finish(self, ended: Status) -> None:
        """Give each network its status."""
        self._ended = ended
        self._states.step_back((self._states.status != DIVERGED) & ~self._states.parameters.isfinite().all(1))

    def _placed(self, array: NDArray[np.generic]) -> Tensor:
        placed: Tensor = devices.placed(array, self._states.parameters)
        return placed

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def state(self) -> RunState:
        """Return all that a checkpoint needs."""
        columns = {name: devices.to_host(column) for name, column in self._states._asdict().items()}
        count = len(self._states.parameters)
        return RunState(
            descents=run_state.completed({name: columns[name] for name in State._fields if name in columns}, count),
            status=np.array(ENDED)[columns["status"]],
            seen=columns["seen"],
            history=self._histories.save(columns["seen"]),
        )

    def restore(self, state: RunState) -> None:
        """Continue from the result of `state`."""
        status = np.array([ENDED.index(word) for word in state.status])
        columns = {**state.descents, "status": status, "seen": state.seen}
        for name, column in self._states._asdict().items():
            column.copy_(self._placed(columns[name]))
        self._histories.restore(state.history)
        self._runs = self._any_runs()

    # Results ----------------------------------------------------------------------------------------------------------

    def network(self, index: int) -> LinearNetwork:
        """Return the network given at the parameters reached."""
        weights, biases = self.layers()
        names = self._problem.networks[0].parameter_names
        own_biases = [None if bias is None else bias[index] for bias in biases]
        return LinearNetwork([weight[index] for weight in weights], own_biases, names=names)

    def layers(self) -> TensorLayers:
        """Return weights and biases of the networks given."""
        return self._small.lift(self._descents.layers())

    def steps(self) -> list[int]:
        """Return how many updates each network has taken."""
        steps: list[int] = self._states.steps.tolist()
        return steps

    def status(self) -> list[Status]:
        """Return how each network has ended."""
        words: tuple[Status, ...] = self._ended, "converged", "diverged"
        return [words[number] for number in self._states.status.tolist()]

    def _seen(self) -> NDArray[np.int64]:
        return devices.to_host(self._states.seen)

    def history(self, index: int) -> History:
        """Return the records of one network."""
        return self._histories.of(index, int(self._seen()[index]))

    def histories(self) -> History:
        """Return the records of all networks."""
        return self._histories.stacked(self._seen())

    def reduction(self) -> Reduction:
        """Return the sizes of the networks and their data after the reductions; the leak is not computed here."""
        net, loss, small = self._problem.networks[0], self._problem.losses[0], self._small
        rows = len(loss.data(bias=net.has_bias, reduced=True).X)
        samples = self._problem.options.samples_to_rows(loss, rows)
        if small.widths == net.widths:
            return Reduction(samples, unbalanced=small.unbalanced)
        return Reduction(samples, (net.widths, small.widths), np.nan, small.unbalanced)

    def execution(self) -> str:
        """Return how the steps were taken."""
        return self._descents.execution


def _problem_on_device(problem: TrainingProblem) -> DescentProblem:
    """Return the data of all networks and the rule of a step, as the device takes them."""
    options, loss, bias = problem.options, problem.losses[0], problem.networks[0].has_bias
    pairs = [options.data(own_loss, problem.records, bias) for own_loss in problem.losses]
    data, ones, constants = _stacked([full for full, _ in pairs])
    of_batches = [samples for _, samples in pairs if samples is not None]
    scaled = loss.scale * ones.new_tensor(constants, dtype=devices.namespace(ones).float64)
    return DescentProblem(
        data=Samples(*data),
        ones=ones,
        constants=scaled.expand(len(problem.networks)).contiguous(),
        samples=Samples(*_rows(of_batches)) if of_batches else None,
        most=options.largest(loss),
        scale=loss.scale,
        rtol=options.relative_target,
        update=options.update(loss),
    )


def _reduced(backend: CudaBackend, stack: NetworkStack, *, reduce: bool) -> ReducedStack:
    """Return the small networks; if a stack of weights has a lower rank, the CPU computes its basis.

    There, directions that hold only rounding errors are found by a QR decomposition with pivots.
    """
    small = backend.reduced(stack.weights, stack.biases, reduce=reduce)
    for index in np.flatnonzero(devices.to_host(small.suspicious)):
        net = stack[int(index)].cpu()
        stages, _ = reduce_widths(PlainLayers(net.weights, net.biases))
        small.replace(int(index), [stage.basis for stage in stages], [stage.after for stage in stages])
    return small


def _rows(data: Sequence[Data]) -> tuple[Tensor, Tensor]:
    return devices.stack([samples.X for samples in data]), devices.stack([samples.Y for samples in data])


def _stacked(data: Sequence[Data]) -> tuple[tuple[Tensor, Tensor], Tensor, list[float]]:
    """Return X and Y, the columns of ones, and the constants, with one row for each loss."""
    columns = devices.stack([samples.column for samples in data])
    return _rows(data), columns, [samples.constant for samples in data]
