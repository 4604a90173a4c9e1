"""Cases in worker processes: a crash, a hang and an exception are findings like a wrong number."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from attack import groups
from attack.judge import Judge

#: Seconds of processor time, and of the clock, that a case may take.
CPU_LIMIT, CLOCK_LIMIT = 60, 300
#: About how many seconds of cases a worker is given at a time.
_PIECE = 2.0


@dataclass(slots=True)
class Tally:
    """What became of the cases of one group."""

    cases: int = 0
    wrong: int = 0
    seconds: float = 0.0
    tried: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    sentences: list[tuple[int, str]] = field(default_factory=list)

    def add(self, seed: int, judge: Judge) -> None:
        """Count one case."""
        self.cases += judge.cases
        self.wrong += bool(judge.wrong)
        self.tried.update(judge.tried)
        for name, value in judge.worst.items():
            self.worst[name] = max(value, self.worst.get(name, 0.0))
        self.sentences += [(seed, sentence) for sentence in judge.wrong]

    def merge(self, other: Tally) -> None:
        """Count what another process counted."""
        self.cases += other.cases
        self.wrong += other.wrong
        self.seconds += other.seconds
        self.tried.update(other.tried)
        for name, value in other.worst.items():
            self.worst[name] = max(value, self.worst.get(name, 0.0))
        self.sentences += other.sentences


def run_case(group: str, seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Run one case in this process; an exception of the case itself is a failure too."""
    try:
        return groups.load(group)(seed, backend=backend, everything=everything)
    except Exception:
        judge = Judge()
        judge.wrong.append("the case itself raised:\n" + traceback.format_exc())
        return judge


def _work(connection: Connection, place: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    names = list(groups.GROUPS)
    while (task := connection.recv()) is not None:
        name, first, count = task
        tally, started = Tally(), time.process_time()
        for seed in range(first, first + count):
            place[0], place[1], place[2] = names.index(name), seed, int(time.time())
            _limit()
            tally.add(seed, run_case(name, seed))
        place[0] = -1
        tally.seconds = time.process_time() - started
        connection.send(tally)


def _limit() -> None:
    """Let SIGXCPU end this process when the case takes too much processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + CPU_LIMIT, hard))


class _Worker:
    """One process and what it was given."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.place = context.Array("q", [-1, 0, 0], lock=False)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, self.place), daemon=False)
        self.process.start()
        theirs.close()
        self.task: tuple[str, int, int] | None = None

    def give(self, task: tuple[str, int, int]) -> None:
        self.task = task
        self.connection.send(task)

    def hangs(self) -> bool:
        return self.place[0] >= 0 and time.time() - self.place[2] > CLOCK_LIMIT

    def stop(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.connection.close()


def warm_up(names: list[str]) -> None:
    """Compile what Numba compiles, once for all workers and outside of their limits."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_warm_up, args=(names,))
    process.start()
    process.join()


def _warm_up(names: list[str]) -> None:
    for name in names:
        for seed in range(4):
            run_case(name, seed, backend="numba", everything=True)


def campaign(
    wanted: dict[str, int],
    first_seed: int,
    *,
    seconds: float | None,
    workers: int,
    report: Callable[[str, int, str], None],
    progress: Callable[[dict[str, Tally]], None],
) -> dict[str, Tally]:
    """Run cases until every group has as many as wanted, or the seconds are over (proportions as wanted).

    Parameters
    ----------
    wanted : dict
        Seeds of each group.
    first_seed : int
        Seeds are counted on from here, in each group.
    seconds : float, optional
        Budget; None: until all is done.
    workers : int
    report : callable
        Called with group, seed and sentence of each failure.
    progress : callable
        Called with all tallies now and then.
    """
    tallies = {name: Tally() for name in wanted}
    tasks = _tasks(wanted, first_seed, tallies, endless=seconds is not None)
    start = time.monotonic()
    running = [_Worker() for _ in range(workers)]
    again: list[tuple[str, int, int]] = []
    try:
        while True:
            over = seconds is not None and time.monotonic() - start > seconds
            for worker in running:
                if worker.task is None and not over:
                    task = again.pop() if again else next(tasks, None)
                    if task is not None:
                        worker.give(task)
            busy = [worker for worker in running if worker.task is not None]
            if not busy:
                break
            wait([worker.connection for worker in busy] + [worker.process.sentinel for worker in busy], timeout=1.0)
            for number, worker in enumerate(running):
                if worker.task is None:
                    continue
                name, first, count = worker.task
                tally = _received(worker)
                if tally is None and worker.process.is_alive() and not worker.hangs():
                    continue
                if tally is None:
                    tally, seed = _post_mortem(worker)
                    # The piece is repeated without this seed: nothing of it was reported yet.
                    pieces = (name, first, seed - first), (name, seed + 1, first + count - seed - 1)
                    again += [piece for piece in pieces if piece[2] > 0]
                    worker.stop()
                    running[number] = _Worker()
                worker.task = None
                tallies[name].merge(tally)
                for seed, sentence in tally.sentences:
                    report(name, seed, sentence)
            progress(tallies)
    finally:
        for worker in running:
            worker.stop()
    return tallies


def _received(worker: _Worker) -> Tally | None:
    try:
        return worker.connection.recv() if worker.connection.poll() else None
    except (EOFError, OSError):
        return None


def _post_mortem(worker: _Worker) -> tuple[Tally, int]:
    """Return what to count for the case that a worker died or hangs in, and its seed."""
    judge, tally, seed = Judge(), Tally(), int(worker.place[1])
    if worker.process.is_alive():
        judge.wrong.append(f"hangs: more than {CLOCK_LIMIT} s, little of it computing")
    else:
        worker.process.join()
        code = worker.process.exitcode or 0
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        judge.wrong.append(f"hangs: more than {CPU_LIMIT} s of computing" if name == "SIGXCPU" else f"crashes: {name}")
    tally.add(seed, judge)
    return tally, seed


def _tasks(
    wanted: dict[str, int], first_seed: int, tallies: dict[str, Tally], *, endless: bool
) -> Iterator[tuple[str, int, int]]:
    """Give out pieces of about equal time, always of the group that is furthest behind."""
    given = dict.fromkeys(wanted, 0)
    while True:
        open_ones = [name for name in wanted if endless or given[name] < wanted[name]]
        if not open_ones:
            return
        name = min(open_ones, key=lambda each: given[each] / wanted[each])
        tally = tallies[name]
        count = max(1, min(wanted[name] // 20, 2000))
        if tally.seconds and tally.cases:
            count = max(1, min(int(_PIECE * given[name] / tally.seconds), 5000))
        if not endless:
            count = min(count, wanted[name] - given[name])
        yield name, first_seed + given[name], count
        given[name] += count
