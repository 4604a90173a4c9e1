"""The networks of a run in main memory: each reduced, with a descent of a backend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hesskern import backends
from hesskern._base.array_types import Array
from hesskern._base.blas_threads import one_thread
from hesskern._base.interrupt import Interruption
from hesskern.backends.protocol import Descent, HostBackend, Job, Watch
from hesskern.losses.least_squares import LeastSquaresLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.network_stack import NetworkStack
from hesskern.training import run_state
from hesskern.training.cpu_measures import CpuMeasures
from hesskern.training.history import Histories, History
from hesskern.training.minibatches import Batches, Indices
from hesskern.training.network_group import Status, TrainingProblem
from hesskern.training.options import TrainingOptions
from hesskern.training.recorder import Column, ColumnName, Values
from hesskern.training.reduced_data import RunData, reduced_inputs, rotate
from hesskern.training.reduced_network import ReducedNetwork, follow_decay, reduced_networks
from hesskern.training.reduction import Reduction
from hesskern.training.run_state import RunState

#: ``exp`` of more than this is infinite.
_OVERFLOWS = 709.0
#: Seconds before the loop first sees Ctrl-C, and multiply-adds per second, both roughly: it corrects itself later.
_FIRST_PIECE, _MULTIPLY_ADDS = 0.02, 2.5e9

#: The status of a network by the word for it in a checkpoint.
_STATUS: Mapping[str, Status | None] = {"": None, "converged": "converged", "diverged": "diverged"}


@dataclass(slots=True)
class _Member:
    """One network of a run."""

    index: int
    reduced: ReducedNetwork
    descent: Descent
    batches: Batches | None
    measures: CpuMeasures | None  # None: nothing is measured between steps
    status: Status | None = None  # None: it runs
    seen: int = 0  # steps whose loss was finite


class CpuGroup:
    """Some networks in main memory, each trained on its own; see `hesskern.training.network_group.NetworkGroup`.

    Parameters
    ----------
    problem : TrainingProblem
    """

    sharpness_in_loop = True
    most_steps = 1 << 14

    @staticmethod
    def surroundings(
        options: TrainingOptions, networks: Sequence[LinearNetwork], loss: LeastSquaresLoss
    ) -> AbstractContextManager[None]:
        """Return a block with BLAS on one thread."""
        return one_thread(options.largest(loss) or len(loss.X), *networks[0].widths)

    def __init__(self, problem: TrainingProblem) -> None:
        self._problem = problem
        options, records, backend = problem.options, problem.records, problem.backend
        assert backends.on_host(backend)
        self._backend = backend
        loss = problem.losses[0]
        self._scale, self._scale_per_sample = loss.scale, loss.scale_per_sample
        self._histories = Histories(records, len(problem.networks), options.record_every)
        reduced = self._reduce(problem, backend)
        watch = Watch(
            every=options.record_every,
            loss="losses" in records.columns,
            sharpness="sharpness" in records.columns,
            leak_layers=reduced[0].reduced_layers,
        )
        # Losses are always taken, to see a divergence, and those of batches where there are any.
        self._filled: set[ColumnName] = {column for column in records.columns if column != "rates"}
        self._filled.add("losses")
        if options.batch_size is not None:
            self._filled.add("batch_losses")
        batches: dict[int, Batches] = {}
        self._members: list[_Member] = []
        for index, (small, seed) in enumerate(zip(reduced, problem.seeds, strict=True)):
            own = index if len(problem.losses) > 1 else 0
            own_loss, (data, samples, _) = problem.losses[own], self._data[own]
            if samples is not None and seed not in batches:
                batches[seed] = options.batches(own_loss, seed)
            descent = backend.descent(
                small.layers,
                data,
                samples,
                options.largest(own_loss),
                scale=own_loss.scale,
                rtol=options.relative_target,
                update=options.update(loss),
                watch=watch,
                ensemble=problem.ensemble,
            )
            measures = CpuMeasures(records, own_loss, problem.networks[index], small) if records.between else None
            self._members.append(_Member(index, small, descent, batches.get(seed), measures))
        work = sum(weight.size for weight in reduced[0].layers.weights) * (options.largest(loss) or len(data.X))
        step = len(problem.networks) * (backend.step_seconds + work / _MULTIPLY_ADDS) / problem.threads
        self.first_piece = max(1, min(4096, int(_FIRST_PIECE / step)))

    def _reduce(self, problem: TrainingProblem, backend: HostBackend) -> list[ReducedNetwork]:
        """Reduce the data of all losses and all networks; return the networks."""
        options, records, losses = problem.options, problem.records, problem.losses
        inputs = reduced_inputs(options, losses, problem.networks, records, backend)
        bases = [data.basis for data in inputs.data]
        reduced, self._unbalanced, reason = reduced_networks(
            problem.networks,
            bases if len(bases) > 1 else bases * len(problem.networks),
            backend,
            reduce=options.reduce == "auto",
            curvature=records.curvature,
        )
        data = rotate(options, losses, inputs.data, reduced)
        if losses[0].weight_decay:
            follow_decay(reduced)
        self._data: list[RunData] = [own.with_zero_inputs(reduced[0].zero_inputs) for own in data]
        self._reason = "; ".join(filter(None, [inputs.reason, reason]))
        return reduced

    # Steps ------------------------------------------------------------------------------------------------------------

    def running(self) -> bool:
        """Return whether any network runs."""
        return bool(self._running())

    def _running(self) -> list[_Member]:
        return [member for member in self._members if member.status is None]

    def measure(self, interruption: Interruption) -> None:
        """Measure the quantities that are recorded between steps."""
        record: dict[str, list[Values]] = {name: [] for name in self._problem.records.between}
        for member in self._members:
            if interruption.requested:
                return  # no more steps are taken, and a part of a record is no record
            assert member.measures is not None
            values = member.measures.nothing
            if member.status is None:
                values = member.measures.record(member.descent.parameters())
            for name, values_of_all in record.items():
                values_of_all.append(values[name])
        self._histories.add_record(record)

    def advance(self, start: int, stop: int) -> None:
        """Take steps with all networks that run."""
        problem, active = self._problem, self._running()
        columns = self._columns(active, start, stop)
        jobs = self._jobs(active, columns, start, stop)
        results = self._backend.advance([member.descent for member in active], jobs, problem.threads)
        for member, (ended, finite) in zip(active, results, strict=True):
            member.status = None if ended == "running" else ended
            member.seen = start + finite
        every = problem.options.record_every
        recorded = slice(-start % every, None, every)
        recorded_columns = {name: columns[name][:, recorded].copy() for name in problem.records.columns}
        if len(active) < len(self._members):
            recorded_columns = {name: self._of_all(active, column) for name, column in recorded_columns.items()}
        self._histories.add_steps(recorded_columns)

    def _columns(self, active: Sequence[_Member], start: int, stop: int) -> dict[ColumnName, Column]:
        """Return the rates of all networks, and columns for the jobs of the running networks to fill in."""
        shape = len(active), stop - start
        columns: dict[ColumnName, Column] = {"rates": self._problem.schedule.rates(start, stop)}
        for name in self._filled:
            columns[name] = np.empty(shape)
        return columns

    def _jobs(self, active: Sequence[_Member], columns: dict[ColumnName, Column], start: int, stop: int) -> list[Job]:
        rates, nothing = columns["rates"], [None] * len(active)
        losses, batch_losses = columns["losses"], columns.get("batch_losses", nothing)
        norms, sharpness = columns.get("gradient_norms", nothing), columns.get("sharpness", nothing)
        samples = {id(member.batches): self._samples(member.batches, start, stop) for member in active}
        jobs = []
        for k, member in enumerate(active):
            scales, order, ends = samples[id(member.batches)]
            own_rates = rates[member.index if len(rates) > 1 else 0]
            jobs.append(Job(own_rates, scales, order, ends, losses[k], batch_losses[k], norms[k], sharpness[k]))
        return jobs

    def _samples(self, batches: Batches | None, start: int, stop: int) -> tuple[Column, Indices | None, Indices | None]:
        """Return scales, order and ends of a `Job`."""
        if batches is None:
            return np.full(stop - start, self._scale), None, None
        chosen = batches.steps(start, stop)
        return chosen.scales(self._scale, self._scale_per_sample), chosen.order, chosen.ends

    def _of_all(self, active: Sequence[_Member], column: Column) -> Column:
        """Return a column with a row for every network, given one for the running networks, or for all."""
        if len(column) == len(self._members):
            return column
        rows = np.full((len(self._members), column.shape[1]), np.nan)
        rows[[member.index for member in active]] = column
        return rows

    def finish(self, ended: Status) -> None:
        """Give each network its status."""
        for member in self._members:
            if member.status != "diverged" and not np.isfinite(member.descent.parameters()).all():
                member.descent.step_back()  # the last update overflowed, and nobody has taken its loss
                member.status = "diverged"
            member.status = member.status or ended

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def state(self) -> RunState:
        """Return all that a checkpoint needs."""
        seen = self._seen()
        return RunState(
            descents=run_state.stacked([member.descent.save() for member in self._members]),
            status=np.array([member.status or "" for member in self._members]),
            seen=seen,
            history=self._histories.save(seen),
        )

    def restore(self, state: RunState) -> None:
        """Continue from the result of `state`."""
        for member in self._members:
            member.descent.restore(state.descent(member.index))
            member.status = _STATUS[str(state.status[member.index])]
            member.seen = int(state.seen[member.index])
        self._histories.restore(state.history)

    def _seen(self) -> NDArray[np.int64]:
        return np.array([member.seen for member in self._members])

    # Results ----------------------------------------------------------------------------------------------------------

    def network(self, index: int) -> LinearNetwork:
        """Return the network given at the parameters reached."""
        member = self._members[index]
        return member.reduced.lift(member.descent.parameters())

    def layers(self) -> tuple[list[Array], list[Array | None]]:
        """Return weights and biases of all networks, stacked."""
        stack = NetworkStack.of([self.network(index) for index in range(len(self._members))])
        return stack.weights, stack.biases

    def steps(self) -> list[int]:
        """Return how many updates each network has taken."""
        return [member.descent.steps for member in self._members]

    def status(self) -> list[Status]:
        """Return how each network has ended."""
        return [member.status or "max_steps" for member in self._members]

    def history(self, index: int) -> History:
        """Return the records of one network."""
        return self._histories.of(index, self._members[index].seen)

    def histories(self) -> History:
        """Return the records of all networks, in float64."""
        stacked = self._histories.stacked(self._seen())
        return {name: column if name == "step" else column.astype(np.float64) for name, column in stacked.items()}

    def reduction(self) -> Reduction:
        """Return the sizes of the networks and their data after the reductions."""
        problem, reduced, net = self._problem, self._members[0].reduced, self._problem.networks[0]
        sizes = net.widths[0], *reduced.sizes[1:]
        leak = math.nan if reduced.start is not None else self._leak() if reduced.widths else 0.0
        return Reduction(
            samples=problem.options.samples_to_rows(problem.losses[0], len(self._data[0].full.X)),
            widths=None if sizes == net.widths else (net.widths, reduced.sizes),
            leak=leak,
            unbalanced=self._unbalanced,
            inputs=None if reduced.inputs is None else (net.widths[0], reduced.sizes[0]),
            start=reduced.start is not None,
            rotated=reduced.turn is not None,
            reason=self._reason,
        )

    def _leak(self) -> float:
        """Return the largest leak of these networks; see `Reduction`."""
        kept = [member for member in self._members if member.status != "diverged"] or self._members
        growth = max(value for member in kept for value in member.descent.growth)
        epsilon = float(np.finfo(self._problem.networks[0].dtype).eps)
        return epsilon * math.exp(growth) if growth < _OVERFLOWS else math.inf

    def execution(self) -> str:
        """Return an empty text: there is one way to take steps."""
        return ""
