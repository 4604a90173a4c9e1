"""The networks of a run on a GPU, all of them at once: what the loop has them do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import devices
from hesskern._base.interrupt import Interruption
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import Part, part_size
from hesskern.training import run_state
from hesskern.training.learning_rate import Schedule
from hesskern.training.loop import Status, record_steps
from hesskern.training.minibatches import Batches
from hesskern.training.recorder import Records, in_range

#: What a piece may take for what the steps of all networks need and record (bytes).
_PIECE_BYTES = 1 << 28

Column = NDArray[np.float64]


@dataclass(slots=True, kw_only=True)
class Orders:
    """Where minibatches come from: one order for all networks, or one for each."""

    batches: Sequence[Batches]
    scale: float
    each: float | None  # of a batch's loss for each sample in it; None: `scale`, whatever the size


class DeviceCrew:
    """All networks, as tensors with one row for each.

    Parameters
    ----------
    descents : hesskern.backends.cuda.descents.Descents
    small : hesskern.backends.cuda.batched_width_reduction.ReducedStack
        What is trained in the place of the networks given.
    loss : list of SquaredLoss
        One for all, or one for each.
    kernels : hesskern.backends.cuda.operations.CudaBackend
    data : hesskern.backends.cuda.batched_curvature.Rows
        All data, float64.
    schedule : Schedule
    records : Records
    record_every : int
    orders : Orders, optional
    """

    def __init__(
        self,
        descents: Any,
        small: Any,
        losses: list[SquaredLoss],
        kernels: Any,
        data: Any,
        schedule: Schedule,
        records: Records,
        *,
        record_every: int,
        orders: Orders | None,
    ) -> None:
        self._descents, self._small, self._losses, self._kernels = descents, small, losses, kernels
        self._data, self._schedule, self._records = data, schedule, records
        self._every, self._orders = record_every, orders
        self._start = descents.parameters.clone() if "distance" in records.names else None
        self._quick: dict[str, list[Column]] = {
            name: [] for name in records.names if name in ("loss", "batch_loss", "gradient_norm", "2/lr")
        }
        self._between: dict[str, list[NDArray[Any]]] = {name: [] for name in records.between}
        self._interrupted = False
        self._runs = self._any_runs()
        count = len(descents.parameters)
        recorded = sum(name in self._quick for name in ("loss", "batch_loss", "gradient_norm"))
        drawn = 0 if orders is None or len(orders.batches) == 1 else orders.batches[0].size
        self.most_steps = max(1, min(1 << 14, _PIECE_BYTES // (8 * count * (1 + recorded + drawn))))

    # Steps ------------------------------------------------------------------------------------------------------------

    def running(self) -> bool:
        """Return whether any network runs."""
        return self._runs

    def _any_runs(self) -> bool:
        return bool((self._descents.status == 0).any())

    def advance(self, start: int, stop: int) -> None:
        """Take steps with all networks that run, and wait for them: the loop takes the time."""
        from hesskern.backends.cuda.descents import Piece  # noqa: PLC0415 - loads torch

        rates = self._schedule.compact(start, stop)
        order = ends = scales = None
        if self._orders is not None:
            chosen = [batches.steps(start, stop) for batches in self._orders.batches]
            order = self._there(np.stack([each.order for each in chosen]))
            ends = self._there(chosen[0].ends)
            scales = self._there(chosen[0].scales(self._orders.scale, self._orders.each))
        piece = Piece(start, stop - start, self._there(rates), order, ends, scales)
        seen = self._descents.advance(piece)
        for name, found in (
            ("loss", seen.losses), ("batch_loss", seen.batch_losses), ("gradient_norm", seen.norms),
        ):  # fmt: skip
            if name in self._quick and found is not None:
                self._quick[name].append(devices.to_host(found))
        if "2/lr" in self._quick:
            recorded = slice(-start % self._every, None, self._every)
            every = np.broadcast_to(rates, (len(rates), stop - start))[:, recorded]
            with np.errstate(divide="ignore"):
                self._quick["2/lr"].append(np.broadcast_to(2.0 / every, (len(self), every.shape[1])))
        self._runs = self._any_runs()

    def finish(self, ended: Status) -> None:
        """Give each network its status."""
        self._interrupted = ended == "interrupted"
        descents = self._descents
        descents.step_back((descents.status != 2) & ~descents.parameters.isfinite().all(1))

    def _there(self, array: NDArray[Any]) -> Any:
        like = self._descents.parameters
        return devices.namespace(like).as_tensor(np.ascontiguousarray(array), device=like.device)

    def __len__(self) -> int:
        return len(self._descents.parameters)

    # Results ----------------------------------------------------------------------------------------------------------

    @property
    def execution(self) -> str:
        """How the steps were taken, in words."""
        text: str = self._descents.execution
        return text

    def layers(self) -> Any:
        """Return the networks given at the parameters reached: weights (B, out, in), biases (B, out)."""
        return self._small.lift(self._descents.layers())

    @property
    def steps(self) -> NDArray[np.int64]:
        """Updates taken by each network."""
        return devices.to_host(self._descents.steps)

    @property
    def status(self) -> list[Status]:
        """How each network ended."""
        ended: Status = "interrupted" if self._interrupted else "max_steps"
        words: tuple[Status, ...] = ended, "converged", "diverged"
        return [words[number] for number in devices.to_host(self._descents.status)]

    def history(self) -> dict[str, NDArray[Any]]:
        """Return what was recorded: "step" (K,), everything else (B, K, ...), NaN from where a network had stopped."""
        seen = devices.to_host(self._descents.seen)
        steps = record_steps(int(seen.max()), self._every)
        stopped = steps >= seen[:, None]
        found: dict[str, NDArray[Any]] = {"step": steps}
        for name in self._records.names:
            pieces = self._quick.get(name)
            if pieces is not None:
                column = np.concatenate([*pieces, np.empty((len(self), 0))], axis=1)
            else:
                each = self._between[name]
                column = np.stack(each, axis=1) if each else np.empty((len(self), 0))
            column = column[:, : len(steps)]
            column = column.astype(np.result_type(column.dtype, np.float32))  # a copy that can hold NaN
            column[stopped] = np.nan
            found[name] = column
        return found

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what a checkpoint needs; of rounding errors and of searches for eigenvalues nothing is kept here."""
        descents, count = self._descents, len(self)
        present = {f"state.{name}": devices.to_host(tensor) for name, tensor in descents.save().items()}
        arrays: dict[str, NDArray[Any]] = {
            **{f"state.{name}": np.empty((count, 0)) for name in ("growth", "growth_rate")},
            **{f"state.{name}": np.full(count, -1) for name in ("growth_step", "search_step")},
            **{f"state.{name}": np.zeros(count) for name in ("search_rest", "search_drift")},
            "state.search": np.empty((count, 0, 0)),
            "state.search_count": np.zeros(count, dtype=np.int64),
        }
        arrays |= present
        arrays["status"] = np.array(run_state.ENDED)[devices.to_host(descents.status)]
        arrays["seen"] = devices.to_host(descents.seen)
        return arrays | {f"history.{name}": column for name, column in self.history().items() if name != "step"}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Go on from what a checkpoint holds."""
        run_state.check(arrays, self.state(), self._every, self._records.entries)
        kept = {name: self._there(arrays[f"state.{name}"]) for name in self._descents.save()}
        kept["seen"] = self._there(arrays["seen"])
        kept["status"] = self._there(np.array([run_state.ENDED.index(word) for word in arrays["status"]]))
        self._descents.restore(kept)
        for name in self._quick:
            self._quick[name] = [arrays[f"history.{name}"]]
        for name in self._between:
            self._between[name] = list(np.moveaxis(arrays[f"history.{name}"], 1, 0))
        self._runs = self._any_runs()
        return int(arrays["state.steps"][arrays["status"] == ""].max(initial=0))

    # What is recorded between steps -----------------------------------------------------------------------------------

    def measure(self, interruption: Interruption) -> None:
        """Record what is recorded between steps; of a network that has stopped, what nobody will read."""
        done: dict[str, NDArray[Any]] = {}
        known: dict[tuple[Part, ...], dict[str, Column]] = {}
        for name in self._records.between:
            if interruption.requested:
                return  # the steps go no further, and a part of a record is none
            if name in self._records.blocks:
                what, parts = self._records.blocks[name]
                if parts not in known:
                    known[parts] = self._conditions(
                        parts, wanted={w for w, p in self._records.blocks.values() if p == parts}
                    )
                done[name] = known[parts][what]
            else:
                done[name] = devices.to_host(getattr(self, f"_{name}")())
        for name, values in done.items():
            self._between[name].append(values)

    @property
    def _decay(self) -> float:
        return self._losses[0].weight_decay

    def _sharpness(self) -> Any:
        descents = self._descents
        found = self._kernels.sharpness(
            descents.layout, descents.parameters.double(), self._data, scale=descents.scale, decay=self._decay
        )
        return in_range(np.asarray(devices.to_host(found)))

    def _distance(self) -> Any:
        return (self._descents.parameters.double() - self._start.double()).norm(dim=1)  # type: ignore[union-attr]

    def _balance(self) -> Any:
        weights, biases = self._descents.layers()
        norms = []
        for lower, upper, bias in zip(weights[:-1], weights[1:], biases[:-1], strict=True):
            difference = upper.double().mT @ upper.double() - lower.double() @ lower.double().mT
            if bias is not None:
                difference = difference - bias.double()[:, :, None] * bias.double()[:, None, :]
            norms.append(difference.flatten(1).norm(dim=1))
        xp = devices.namespace(self._descents.parameters)
        return xp.stack(norms, dim=1) if norms else self._descents.targets.new_empty((len(self), 0))

    def _weights(self) -> Any:
        weights, biases = self.layers()
        pieces = []
        for weight, bias in zip(weights, biases, strict=True):
            pieces.append(weight.flatten(1))
            if bias is not None:
                pieces.append(bias)
        return devices.namespace(pieces[0]).cat(pieces, dim=1)

    def _conditions(self, parts: tuple[Part, ...], wanted: set[str]) -> dict[str, Column]:
        """Return condition number, smallest nonzero eigenvalue and rank of each network's block.

        One layer's block comes from its factors on the device. Where those are so badly conditioned that singular
        values taken there would not be right to nine digits or so, and for several layers, the numbers are those that
        `Hessian.condition` finds on the CPU, one network after another.
        """
        count = len(self)
        found = {what: np.full(count, np.nan) for what in ("condition", "smallest", "rank")}
        left = devices.to_host(self._descents.status == 0)
        if len(parts) == 1:
            known = self._block(parts[0], found)
            left = left & ~known
        weights, biases = self.layers()
        left = left & devices.to_host(self._descents.parameters.isfinite().all(1))
        for k in np.flatnonzero(left):
            here = [devices.to_host(weight[k]) for weight in weights]
            if all(np.isfinite(weight).all() for weight in here):  # lifting may overflow
                net = LinearNetwork(here, [None if bias is None else devices.to_host(bias[k]) for bias in biases])
                self._on_cpu(net, int(k), parts, wanted, found)
        return found

    def _block(self, part: Part, found: dict[str, Column]) -> NDArray[np.bool_]:
        """Fill in what can be known on the device; return of which networks."""
        descents, decay = self._descents, self._decay
        extremes = self._kernels.block(
            descents.layout, descents.parameters.double(), self._data, scale=descents.scale, layer=part.layer,
            parts=(part.weight, part.bias),
        )  # fmt: skip
        largest, smallest, rank, trusted = map(devices.to_host, extremes)
        size = self._part_size(part)
        with np.errstate(all="ignore"):
            if decay:  # eigenvalues that were zero are the decay
                smallest = np.where(rank == size, smallest, 0.0) + decay
                rank = np.full_like(rank, size)
            found["condition"][trusted] = ((largest + decay) / smallest)[trusted]
        found["smallest"][trusted] = smallest[trusted]
        found["rank"][trusted] = rank[trusted]
        return trusted

    def _part_size(self, part: Part) -> int:
        weights, biases = self._small.given
        first = LinearNetwork([weight[0] for weight in weights], [None if b is None else b[0] for b in biases])
        return part_size(first, part)

    def _on_cpu(
        self, net: LinearNetwork, index: int, parts: tuple[Part, ...], wanted: set[str], found: dict[str, Column]
    ) -> None:
        from hesskern.curvature.hessian import hessian_of  # noqa: PLC0415 - loads scipy.sparse.linalg

        loss = self._losses[index if len(self._losses) > 1 else 0].cpu()
        with np.errstate(over="ignore", invalid="ignore"):  # on the way to a divergence
            try:
                hessian = hessian_of(loss, net, parts, "full")
                if wanted & {"condition", "smallest"}:
                    condition = hessian.condition()
                    found["condition"][index] = condition.value
                    found["smallest"][index] = condition.smallest if condition.rank else np.nan
                if "rank" in wanted:
                    found["rank"][index] = hessian.rank()
            except (np.linalg.LinAlgError, ValueError, OverflowError):  # so large that its Hessian overflows
                return
