"""How the benchmarks take times, memory and ratios, and judge targets by them."""

import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import benches
import numpy as np
import pytest

import hesskern

ROOT = benches.ROOT

from bench import contest, memory, outcomes, runner, tables, threads, timing  # noqa: E402
from hesskern.backends import cpp_backend  # noqa: E402

contestant, problem_of, as_run = benches.contestant, benches.problem_of, benches.as_run


def test_rounds_are_interleaved_and_enter_the_context():
    seen = []

    class Context:
        def __enter__(self):
            seen.append("(")

        def __exit__(self, *error):
            seen.append(")")

    entries = [
        timing.Entry(lambda: seen.append("a"), Context),
        timing.Entry(lambda: seen.append("b"), Context),
    ]
    times, _ = timing.interleaved(entries, rounds=2, least=0.0, budget=1.0)
    # Once each to find the number of calls; then rounds of one untimed and one timed call.
    assert "".join(seen) == "(a)(b)" + "(aa)(bb)" * 2
    assert [len(t.seconds) for t in times] == [2, 2]
    assert [t.number for t in times] == [1, 1]


def test_long_calls_leave_when_the_budget_is_spent(monkeypatch):
    calls = []

    def long():
        calls.append("long")
        time.sleep(0.006)

    clock = iter([0.0, 1.0, 2.0, 3.0, 13.0, 14.0, 25.0])
    monkeypatch.setattr(timing, "LONG", 0.005)
    fake = SimpleNamespace(perf_counter=lambda: next(clock), get_clock_info=time.get_clock_info)
    monkeypatch.setattr(timing, "time", fake)
    entries = [timing.Entry(long, nullcontext, known=0.006), timing.Entry(lambda: None, nullcontext)]
    (slow, quick), _ = timing.interleaved(entries, rounds=9, least=0.0, budget=12.0)
    assert len(slow.seconds) == len(calls) == 3  # three rounds in full, no warming up
    assert len(quick.seconds) == 5


def test_what_a_call_of_nothing_takes_is_taken_off():
    slept = []

    def timer(run):
        # A clock of its own: a call costs 30 ns, this job 200 ns more.
        job = 200e-9 if run is work else 0.0
        return lambda number: number * (30e-9 + job)

    def work():
        slept.append(1)

    (found,), overhead = timing.interleaved([timing.Entry(work)], rounds=3, least=1e-6, budget=1.0, timer=timer)
    assert overhead == pytest.approx(30e-9)
    assert found.seconds == pytest.approx([200e-9] * 3)
    (nothing,), _ = timing.interleaved([timing.Entry(lambda: None)], rounds=3, least=1e-6, budget=1.0, timer=timer)
    assert all(0 < seconds < 1e-9 for seconds in nothing.seconds)  # never zero: ratios are taken


def test_a_call_of_nothing_is_measured_on_the_host():
    _, overhead = timing.interleaved([timing.Entry(lambda: None)], rounds=3, least=0.0, budget=1.0)
    assert 1e-9 < overhead < 1e-5


def test_ratios_are_taken_within_each_round():
    # The machine gets three times slower after the second round: the ratio does not.
    ours, theirs = [1.0, 1.0, 3.0, 3.0], [2.0, 2.0, 6.0, 6.0]
    assert timing.ratios(theirs, ours) == timing.Summary(2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("kind", "bound", "met"),
    [
        ("faster", 1.9, True),
        ("faster", 2.1, False),
        ("at_most", 0.6, True),
        ("at_most", 0.4, False),
        ("seconds", 1.1, True),
        ("seconds", 0.9, False),
    ],
)
def test_targets(kind, bound, met):
    target = contest.Target(contestant="ours", kind=kind, bound=bound, than="" if kind == "seconds" else "peer")
    finished = [
        outcomes.Outcome(contestant("ours", None), "timed", seconds=[1.0, 1.0]),
        outcomes.Outcome(contestant("peer", None), "timed", seconds=[2.0, 2.0]),
    ]
    (verdict,) = outcomes.ProblemResult(problem_of(targets=[target]), finished).verdicts
    assert verdict.met is met


@pytest.mark.parametrize(
    ("seconds", "word"),
    [
        ([2.0, 2.0, 2.2, 4.0, 4.0], "undecided"),  # the median within the bound
        ([2.0, 2.0, 2.8, 4.0, 4.0], "undecided"),  # and beyond it
        ([2.0, 2.0, 2.2, 2.5, 4.0], "met"),
        ([2.0, 2.5, 2.8, 2.9, 4.0], "**missed**"),
    ],
)
def test_a_target_whose_bound_lies_between_the_quartiles_is_undecided(seconds, word):
    target = contest.Target(contestant="hesskern", kind="at_most", bound=2.5, than="peer")
    finished = [
        outcomes.Outcome(contestant("hesskern", None, role="ours"), "timed", seconds=seconds),
        outcomes.Outcome(contestant("peer", None), "timed", seconds=[1.0] * 5),
    ]
    run = as_run(outcomes.ProblemResult(problem_of(targets=[target]), finished))
    for table in (tables.targets(run), tables.report(run)):
        assert f" x | {word} |" in table
    assert f", {word} |" in tables.brief(run)


def test_of_several_the_fastest_is_compared_with():
    target = contest.Target(contestant="ours", kind="faster", bound=3, than=("slow", "fast", "absent"))
    finished = [
        outcomes.Outcome(contestant("ours", None), "timed", seconds=[1.0, 1.0]),
        outcomes.Outcome(contestant("slow", None), "timed", seconds=[9.0, 9.0]),
        outcomes.Outcome(contestant("fast", None), "timed", seconds=[2.0, 2.0]),
        outcomes.Outcome(contestant("absent", None), "absent"),
    ]
    result = outcomes.ProblemResult(problem_of(targets=[target]), finished)
    (verdict,) = result.verdicts
    assert (verdict.met, verdict.measured.median, verdict.against) == (False, 2.0, "fast")
    text = tables.report(as_run(result))
    assert "the fastest of slow, fast, absent | 2 (2 to 2) x, fast | **missed**" in text
    assert result.fastest(["absent"]) is None


@pytest.mark.parametrize(
    ("value", "shown"), [(2.5, "2.5 x | met"), (3.5, "3.5 x | **missed**"), (None, "not measured")]
)
def test_figures_stand_beside_the_times(value, shown):
    figure = contest.Figure(name="peak", measure=lambda: value, unit="x", bound=3)
    problem = problem_of(contestant("right", lambda: 1.0, role="ours"), figures=[figure])
    result = runner.run_problem(problem, runner.Settings(rounds=1, least=0.0))
    text = tables.report(as_run(result))
    assert f"peak: at most 3 x | {shown}" in text


def test_peak_memory_sees_what_was_allocated_and_given_back():
    small, large = (memory.peak_bytes(f"x = b'1' * {size}; del x") for size in (1000, 200_000_000))
    if small is None:
        pytest.skip("no resource module")
    assert 180_000_000 < large - small < 220_000_000  # the launcher and shared libraries count for both, not alike


def test_growth_is_what_one_call_adds():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("no /proc")
    script = "from bench import memory; print(memory.growth(lambda: b'1' * {}))"
    paths = os.pathsep.join([str(Path(hesskern.__file__).parents[1]), str(ROOT)])
    found = []
    for size in (1000, 200_000_000):
        command = [sys.executable, "-P", "-c", "x = b'1' * 300_000_000; del x\n" + script.format(size)]
        environment = os.environ | memory.GIVES_BACK | {"PYTHONPATH": paths}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        found.append(int(done.stdout))
    assert found[0] < 2_000_000
    assert 199_000_000 < found[1] < 204_000_000


def test_peak_memory_is_not_that_of_this_process():
    ballast = np.ones(50_000_000)
    found = memory.peak_bytes("pass")
    assert found is None or found < ballast.nbytes


def test_the_extension_has_one_thread_unless_asked(monkeypatch):
    monkeypatch.setattr(cpp_backend, "_THREADS", 7)
    seen = {}
    runner.run_problem(
        problem_of(
            contestant("one", lambda: seen.setdefault("one", cpp_backend._THREADS) and 1.0),
            threads.with_threads(1, "named", lambda: seen.setdefault("named", cpp_backend._THREADS) and 1.0, note=""),
            contestant("more", lambda: seen.setdefault("more", cpp_backend._THREADS) and 1.0,
                       context=lambda: threads.extension_threads(2)),
        ),
        runner.Settings(rounds=1, least=0.0),
    )  # fmt: skip
    assert seen == {"one": 1, "named": 1, "more": 2}
    assert cpp_backend._THREADS == 7
    assert threads.with_threads(10**6, "many", lambda: 1.0, note="").run is None


def test_a_job_of_several_units_is_divided():
    result = runner.run_problem(
        problem_of(contestant("one", lambda: 1.0), contestant("hundred", lambda: 1.0, units=1e9)),
        runner.Settings(rounds=2, least=0.0),
    )
    one, many = (outcome.summary.median for outcome in result.outcomes)
    assert many < one / 1e6
