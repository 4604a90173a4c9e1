"""The device: where tensors lie, how its work is timed, recorded as a graph, and kept out of its cache.

A dry run takes the processor in its place: the same tensors, contestants and checks, with graphs that are plain calls.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.contest import Contestant, TimedProblem
from bench.peers import CHOICE, NOT_COMPILED
from bench.problems import Array
from bench.timing import Timed, host_timer
from hesskern import backends

#: Buffers that are written in turn hold so many times what the cache does, so that none is found in it.
PAST_THE_CACHE = 2
#: Capturing needs memory and libraries to be there already.
WARM_UP = 3

Run = Callable[[], Any]


@dataclass(frozen=True)
class Device:
    """A graphics card, or the processor in a dry run.

    Attributes
    ----------
    torch : module
    name : str
        As torch calls it.
    cache : int
        Bytes of the last cache.
    """

    torch: Any
    name: str
    cache: int

    @property
    def dry(self) -> bool:
        return self.name == "cpu"

    def tensor(self, array: Any) -> Any:
        """Return an array as a contiguous tensor on the device."""
        return self.torch.tensor(np.ascontiguousarray(array), device=self.name)

    def empty(self, *shape: int, dtype: Any = np.float64) -> Any:
        """Return a tensor of undefined contents."""
        return self.torch.empty(*shape, dtype=getattr(self.torch, np.dtype(dtype).name), device=self.name)

    # Time and memory --------------------------------------------------------------------------------------------------

    def timer(self, run: Run) -> Timed:
        """Return the timer of a job: CUDA's events, which see when the device begins and ends."""
        if self.dry:
            return host_timer(run)
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))

        def timed(number: int) -> float:
            self.torch.cuda.synchronize()
            begin.record()
            for _ in range(number):
                run()
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) * 1e-3

        return timed

    def peak(self, task: str, number: int, problem: TimedProblem, contestant: str, *, quick: bool) -> int | None:
        """Return the bytes that a call takes from torch's allocator at most; None in a dry run."""
        run = next(found.run for found in problem.contestants if found.name == contestant)
        if self.dry or run is None:
            return None
        self.torch.cuda.synchronize()
        self.torch.cuda.reset_peak_memory_stats()
        before = self.torch.cuda.memory_allocated()
        run()
        self.torch.cuda.synchronize()
        return int(self.torch.cuda.max_memory_allocated() - before)

    # Past the cache ---------------------------------------------------------------------------------------------------

    def turns(self, size: int) -> int:
        """Return how many buffers of so many bytes are written in turn."""
        return max(2, math.ceil(PAST_THE_CACHE * self.cache / size) + 1)

    def rotating(self, buffers: Sequence[Any], write: Callable[[Any], Any]) -> Run:
        """Return what writes the next buffer at each call, and returns it."""
        at = 0

        def run() -> Any:
            nonlocal at
            at = (at + 1) % len(buffers)
            write(buffers[at])
            return buffers[at]

        return run

    def keeping(self, run: Run, size: int) -> Run:
        """Return a job that allocates its result, the last ones kept, so that it cannot be in the same place again."""
        kept: deque[Any] = deque(maxlen=self.turns(size))

        def keep() -> Any:
            kept.append(run())
            return kept[-1]

        return keep

    # Graphs -----------------------------------------------------------------------------------------------------------

    def graph(self, run: Run) -> Run:
        """Return a job recorded as a CUDA graph: one launch, and the same memory each time."""
        if self.dry:
            return run
        cuda = self.torch.cuda
        beside = cuda.Stream()
        beside.wait_stream(cuda.current_stream())
        with cuda.stream(beside):
            for _ in range(WARM_UP):
                run()
        cuda.current_stream().wait_stream(beside)
        recorded = cuda.CUDAGraph()
        with cuda.graph(recorded):
            result = run()

        def replay() -> Any:
            recorded.replay()
            return result

        return replay

    # Contestants ------------------------------------------------------------------------------------------------------

    def peer(self, name: str, make: Callable[[], Run], *, note: str = "", units: float = 1.0) -> Contestant:
        """Return a contestant of torch's; absent, with the reason, where this version or card cannot do it."""
        contestant = Contestant(name=name, run=None, note=note, units=units)
        try:
            return replace(contestant, run=make())
        except (RuntimeError, NotImplementedError) as failure:  # a graph that cannot be captured, memory
            reason = str(failure).strip().partition("\n")[0][:160]
            return replace(contestant, note=f"not here: {type(failure).__name__}: {reason}")

    def compiled(self, name: str, make: Callable[[Any], Run], *, note: str, units: float = 1.0) -> Contestant:
        """Return a contestant that `make(torch.compile)` builds, compiled before it is timed."""
        if not CHOICE.compiled:
            return Contestant(name=name, run=None, note=NOT_COMPILED, units=units)

        def made() -> Run:
            run = make(functools.partial(self.torch.compile, dynamic=False))
            run()
            return run

        return self.peer(name, made, note=note, units=units)

    def ours(self, name: str, make: Callable[[Ours], Run], *, note: str = "", units: float = 1.0) -> Contestant:
        """Return hesskern's contestant through its public API, or an absent one with the reason.

        One that cannot be made fails when it is checked, as one whose result cannot be had.
        """
        found = Ours.of(self)
        if isinstance(found, str):
            return Contestant(name=name, run=None, role="ours", note=found, units=units)
        try:
            run = make(found)
        except Exception as failure:  # the others are measured all the same
            run = functools.partial(_fail, failure)
        return Contestant(name=name, run=run, role="ours", note=f"{note}{found.remark}", units=units)


@dataclass(frozen=True)
class Ours:
    """How hesskern is called here: its backend "cuda" takes tensors; a dry run takes "cpp" and the same memory."""

    backend: str
    array: Callable[[Any], Any]
    remark: str = ""

    @classmethod
    def of(cls, device: Device) -> Ours | str:
        """Return it, or the reason why there is none."""
        if device.dry:
            return cls("cpp", lambda tensor: tensor.numpy(), ' (dry run: backend "cpp")')
        if "cuda" not in backends.names():
            return 'this hesskern has no backend "cuda"'
        try:
            backends.get("cuda")
        except ImportError as error:
            return f'hesskern\'s backend "cuda" does not load: {error}'
        return cls("cuda", lambda tensor: tensor)


def find(*, dry: bool) -> Device | str:
    """Return the device with its arithmetic set to full precision, or a sentence that says why there is none."""
    try:
        import torch
    except ImportError:
        return "torch is not installed; the benchmarks on a graphics card are of its tensors."
    if dry:
        torch.set_num_threads(1)
        return Device(torch, "cpu", 0)
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no graphics card here; --dry-run takes the same paths on the processor."
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    return Device(torch, "cuda", int(torch.cuda.get_device_properties(0).L2_cache_size))


def _fail(failure: Exception) -> Any:
    raise failure


def as_array(result: Any) -> Array:
    """Return a tensor of the device, or an array, as an array."""
    return np.asarray(result.detach().cpu() if hasattr(result, "detach") else result)
