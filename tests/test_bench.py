"""The benchmarks run, check what they time, and judge by what they measured; how fast anything is, is not tested."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import benches
import numpy as np
import pytest
from threadpoolctl import threadpool_info

import hesskern

ROOT = benches.ROOT

from bench import (  # noqa: E402
    cli,
    closed_form,
    floors,
    loops,
    memory,
    peers,
    problems,
    runner,
    runs,
    tables,
    task,
    threads,
    timing,
)
from bench.tasks import TASKS, curvature_along, spectrum  # noqa: E402
from hesskern.backends import cpp  # noqa: E402

bench, contestant, problem_of, as_run = benches.bench, benches.contestant, benches.problem_of, benches.as_run


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Every task once, at its smallest size."""
    folder = tmp_path_factory.mktemp("bench")
    files = ["--json", folder / "run.json", "--markdown", folder / "run.md", "--plots", folder / "pictures"]
    done = bench("run", "--quick", *files)
    assert done.returncode == 0, done.stderr
    return folder, runs.load(str(folder / "run.json")), (folder / "run.md").read_text()


def test_list_names_every_task():
    listed = bench("list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(TASKS)


def test_every_task_has_right_results(quick):
    _, run, _ = quick
    assert [entry["name"] for entry in run["tasks"]] == list(TASKS)
    for entry in run["tasks"]:
        assert entry["problems"]
        for problem in entry["problems"]:
            assert any(c["role"] == "ours" and c["status"] == "timed" for c in problem["contestants"])
            for contestant in problem["contestants"]:
                assert contestant["status"] in ("timed", "absent"), contestant
                if contestant["status"] == "timed":
                    assert contestant["role"] == "floor" or contestant["error"] <= problem["tolerance"]
                    assert len(contestant["seconds"]) == runner.QUICK.rounds
                    assert min(contestant["seconds"]) > 0


def test_the_machine_stands_beside_the_results(quick):
    _, run, text = quick
    about = run["machine"]
    assert about["isa"] == hesskern.info()["isa"]
    assert about["libraries"]["numpy"] == np.__version__
    assert about["environment"]["OPENBLAS_NUM_THREADS"] == "1"
    assert about["cpu"] in text
    assert set(about["load_average"]) == {"start", "end"}
    for name in TASKS:
        assert f"### {name}" in text


def test_what_is_left_out_says_so(quick):
    _, run, _ = quick
    absent = [c for t in run["tasks"] for p in t["problems"] for c in p["contestants"] if c["status"] == "absent"]
    assert {c["reason"] for c in absent if c["name"].startswith("torch.compile")} == {peers.NOT_COMPILED}
    for other in absent:
        assert other["reason"].endswith("is not installed") or other["reason"] in (
            peers.NOT_COMPILED, floors.NO_COMPILER, "this processor has no such store"
        ) or other["reason"].endswith("cores only"), other  # fmt: skip


def test_a_run_has_a_summary(quick):
    folder, run, text = quick
    done = bench("summary", folder / "run.json", "--task", "condition", "--task", "spectrum")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("### ", "| 5-100-5, W_2 |"))]
    assert [rows[0], rows[1]] == ["### spectrum", "### condition"]
    assert "from scratch: " in rows[2]
    assert "peak memory, network and spectrum: " in done.stdout
    assert len(tables.brief(run).split("### ")) == len(TASKS) + 1
    assert bench("summary", folder / "run.json", "--kind", "full").stdout == text


def test_a_run_has_pictures(quick):
    folder, run, _ = quick
    drawn = {path.stem for path in (folder / "pictures").glob("*.png") if path.stat().st_size > 10_000}
    laddered = {entry["name"] for entry in run["tasks"] if any(problem["rungs"] for problem in entry["problems"])}
    assert {"full_hessian", "hvp", "spectrum", "condition", "descent", "minibatch", "ensemble"} <= laddered
    assert drawn == {"speedups"} | {f"growth-{name}" for name in laddered}


def test_every_contestant_of_a_task_can_be_measured_alone(quick):
    folder, *_ = quick
    done = bench("run", "--quick", "--memory", "--task", "data_reduction", "--json", folder / "memory.json")
    assert done.returncode == 0, done.stderr
    first, second = runs.load(str(folder / "memory.json"))["tasks"][0]["problems"]
    peaks = {
        c["name"]: c["peak_bytes"] for c in first["contestants"] if c["status"] == "timed" and c["role"] != "floor"
    }
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("no /proc")
    assert len(peaks) >= 5
    assert all(peak is not None and 0 <= peak < 100e6 for peak in peaks.values()), peaks
    assert all(c["peak_bytes"] is None for c in second["contestants"])  # one size a task


def test_a_summary_needs_no_kind_of_target(tmp_path):
    # Files of earlier runs do not say which kind a target is, and have no ladders.
    targets = [
        {"target": "hesskern: at most 5 µs", "against": "", "bound": 5e-6, "met": True,
         "measured": {"median": 2.5e-6, "lower": 2.4e-6, "upper": 2.6e-6}},
        {"target": "hesskern: at least 9 x faster than p", "against": "p", "bound": 9, "met": False,
         "measured": {"median": 8.0, "lower": 7.0, "upper": 8.5}},
    ]  # fmt: skip
    ours = {"name": "hesskern", "role": "ours", "status": "timed", "reason": "", "error": 0.0, "seconds": [2.5e-6]}
    problem = {"label": "size", "contestants": [ours], "targets": targets, "figures": []}
    old = as_run() | {"schema": 2, "tasks": [{"name": "t", "about": "a", "notes": [], "problems": [problem]}]}
    (tmp_path / "old.json").write_text(json.dumps(old))
    table = tables.brief(runs.load(str(tmp_path / "old.json")))
    assert "at most 5 µs: 2.5 µs, met<br>at least 9 x faster than p: 8, **missed** |" in table


def test_quick_runs_judge_nothing(quick):
    _, run, text = quick
    assert all(problem["targets"] == [] for entry in run["tasks"] for problem in entry["problems"])
    figures = [figure for entry in run["tasks"] for problem in entry["problems"] for figure in problem["figures"]]
    assert figures
    assert all(figure["bound"] is None and figure["met"] is None for figure in figures)
    assert "### Targets" not in text
    for words in (text, tables.brief(run), tables.headlines(run), tables.times(run), tables.growth(run)):
        assert "A quick run: the smallest sizes, inner loops of 200 µs; it says that all works, not how fast." in words


def test_an_unknown_task_is_refused():
    done = bench("run", "--task", "nothing")
    assert done.returncode == 2
    assert "nothing" in done.stderr


class Fake:
    """A task of two problems; the second one's contestant has Ctrl-C pressed at its call number `pressed`."""

    NAME, SUMMARY = "fake", "about"
    notes = staticmethod(lambda results: [])

    def __init__(self, pressed, then=lambda: 1.0):
        self.calls, self.pressed, self.then = 0, pressed, then

    def press(self):
        self.calls += 1
        if self.calls == self.pressed:
            swallowing(lambda: signal.raise_signal(signal.SIGINT))
            return self.then()
        return 1.0

    def problems(self, quick):
        first = problem_of(contestant("hesskern", lambda: 1.0, role="ours"))
        second = problem_of(contestant("hesskern", self.press, role="ours"), contestant("other", lambda: 1.0))
        return [lambda: first, lambda: second]


def swallowing(job):
    """Run a job inside a callback of C, which ignores what is raised there."""
    ctypes.CFUNCTYPE(None)(job)()


def killed():
    raise subprocess.CalledProcessError(-2, "a process that Ctrl-C has reached too")


@pytest.mark.parametrize("pressed", [1, 2, 5])
@pytest.mark.parametrize("then", [lambda: 1.0, killed])
def test_ctrl_c_keeps_what_is_finished(pressed, then, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(TASKS, "fake", Fake(pressed, then))
    before = signal.getsignal(signal.SIGINT)
    status = cli.main(["run", "--quick", "--task", "fake", "--json", str(tmp_path / "run.json")])
    assert status == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().err.endswith("Stopped by Ctrl-C; 1 problems are finished.\n")
    (found,) = runs.load(str(tmp_path / "run.json"))["tasks"]
    assert [len(problem["contestants"]) for problem in found["problems"]] == [1]


def run_fake(monkeypatch, *arguments):
    """Run the command in this process with a task of its own, which takes no time."""
    monkeypatch.setitem(TASKS, "fake", Fake(0))
    return cli.main(["run", "--quick", "--task", "fake", *map(str, arguments)])


def test_a_run_is_not_overwritten_unless_forced(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(runs, "RESULTS", tmp_path)
    assert run_fake(monkeypatch, "--name", "v0.1") == 0
    (data,) = tmp_path.glob("*/v0.1.json")
    data.write_text("mine")
    pictures = data.with_name("v0.1")
    pictures.mkdir(exist_ok=True)
    (pictures / "growth-old.png").write_text("old")
    capsys.readouterr()
    assert run_fake(monkeypatch, "--name", "v0.1") == 2
    assert capsys.readouterr().err == (
        "There is a run v0.1 of this machine already: take another name, or --force to overwrite it.\n"
    )
    assert data.read_text() == "mine"
    assert (pictures / "growth-old.png").exists()
    assert run_fake(monkeypatch, "--name", "v0.1", "--force") == 0
    assert runs.load("v0.1")["tasks"]
    assert not (pictures / "growth-old.png").exists()
    assert run_fake(monkeypatch, "--name", "../other") == 2


@pytest.mark.parametrize("option", ["--json", "--markdown", "--plots"])
def test_folders_are_not_made_for_files(option, monkeypatch, tmp_path, capsys):
    assert run_fake(monkeypatch, option, tmp_path / "nope" / "x.json") == 2
    assert capsys.readouterr().err == f"There is no folder {tmp_path / 'nope'} to write x.json into.\n"
    assert not (tmp_path / "nope").exists()


def test_what_fails_by_itself_is_no_ctrl_c(monkeypatch):
    fake = Fake(0)
    monkeypatch.setattr(fake, "problems", lambda quick: [killed])
    with pytest.raises(subprocess.CalledProcessError):
        runner.run_task(fake, runner.QUICK, print)


def test_a_second_ctrl_c_kills():
    script = (
        "import os, signal\nfrom bench.interrupt import Interrupt\n"
        "with Interrupt() as asked:\n    os.kill(os.getpid(), signal.SIGINT)\n    assert asked.stopped()\n"
        "    print('goes on', flush=True)\n    os.kill(os.getpid(), signal.SIGINT)\n    print('never')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"})  # fmt: skip
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "goes on\n")
    assert done.stderr == "Stopping after what runs now; Ctrl-C again kills at once.\n"


def test_wrong_failing_and_absent_contestants_are_not_timed():
    calls = []

    def wrong():
        calls.append("wrong")
        return 1.1

    def fails():
        raise OverflowError("too much")

    result = runner.run_problem(
        problem_of(
            contestant("right", lambda: 1.0, role="ours"),
            contestant("wrong", wrong),
            contestant("nan", lambda: float("nan")),
            contestant("fails", fails),
            contestant("absent", None, note="not installed"),
            targets=[task.Target(contestant="right", kind="faster", bound=1, than="wrong")],
        ),
        runner.Settings(rounds=3, least=0.0),
    )
    assert [o.status for o in result.outcomes] == ["timed", "wrong", "wrong", "failed", "absent"]
    assert calls == ["wrong"]  # the check itself, nothing after it
    assert [len(o.seconds) for o in result.outcomes] == [3, 0, 0, 0, 0]
    assert "too much" in result.outcomes[3].reason
    (verdict,) = result.verdicts
    assert verdict.met is None
    text = tables.report(as_run(result))
    assert "wrong: relative error 1.0e-01" in text
    assert "absent: not installed" in text
    assert "not measured" in text


def test_a_target_needs_its_contestant():
    target = task.Target(contestant="right", kind="faster", bound=1, than=("there", "gone"))
    with pytest.raises(ValueError, match="p has a target of 'gone', but no such contestant"):
        problem_of(contestant("right", None), contestant("there", None), targets=[target])


def test_what_another_left_in_a_shared_array_does_not_pass():
    shared = np.zeros(1)

    def writes():
        shared[0] = 1.0
        return shared[0]

    result = runner.run_problem(
        problem_of(
            contestant("writes", writes), contestant("forgets", lambda: shared[0]), spoil=lambda: shared.fill(7.0)
        ),
        runner.Settings(rounds=1, least=0.0),
    )
    assert [outcome.status for outcome in result.outcomes] == ["timed", "wrong"]


def test_without_torch_its_contestants_are_absent(monkeypatch):
    monkeypatch.setattr(peers, "torch", lambda: None)
    monkeypatch.setattr(peers.CHOICE, "compiled", True)
    statuses = {}
    for name in ("train_case", "condition"):
        for make in TASKS[name].problems(True):
            result = runner.run_problem(make(), runner.QUICK)
            statuses |= {o.contestant.name: o.status for o in result.outcomes}
    assert statuses["hesskern"] == "timed"
    assert {status for name, status in statuses.items() if name.startswith("torch")} == {"absent"}


NEEDS = {
    "torch": ("torch",), "jax": ("jax",), "Numba": ("numba",), "curvlinops": ("curvlinops",), "BackPACK": ("backpack",),
    "hessian-eigenthings": ("hessian_eigenthings",),
}  # fmt: skip


def test_without_other_libraries_their_contestants_are_absent(monkeypatch):
    monkeypatch.setattr(peers, "torch", lambda: None)
    monkeypatch.setattr(peers, "library", lambda name: None)
    monkeypatch.setattr(peers.CHOICE, "compiled", True)
    seen = set()
    for name in ("minibatch", "ensemble", "curvature_along", "hvp", "condition", "assemble_block"):
        for make in TASKS[name].problems(True):
            for other in make().contestants:
                needs = [library for library in NEEDS if other.name.startswith(library)]
                assert (other.run is None) == bool(needs) or other.role == "floor", other.name
                seen |= set(needs)
                if needs:
                    assert other.note in (f"{NEEDS[needs[0]][0]} is not installed", "torch is not installed")
    assert seen == set(NEEDS)


def test_what_does_not_compile_is_absent_and_says_why(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(peers.CHOICE, "compiled", True)

    def fails(torch):
        raise NotImplementedError("no lowering for this\nand much more")

    found = peers.with_compile("torch.compile", fails)
    assert found.run is None
    assert found.note == "torch.compile does not do this here: NotImplementedError: no lowering for this"


def test_only_the_one_asked_for_is_made(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(peers.CHOICE, "only", "one")
    made = []
    contestants = [peers.with_torch(name, lambda torch, name=name: made.append(name)) for name in ("one", "two")]
    assert made == ["one"]
    assert contestants[1].note == "not asked for"


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
    target = task.Target(contestant="ours", kind=kind, bound=bound, than="" if kind == "seconds" else "peer")
    outcomes = [
        runner.Outcome(contestant("ours", None), "timed", seconds=[1.0, 1.0]),
        runner.Outcome(contestant("peer", None), "timed", seconds=[2.0, 2.0]),
    ]
    (verdict,) = runner.ProblemResult(problem_of(targets=[target]), outcomes).verdicts
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
    target = task.Target(contestant="hesskern", kind="at_most", bound=2.5, than="peer")
    outcomes = [
        runner.Outcome(contestant("hesskern", None, role="ours"), "timed", seconds=seconds),
        runner.Outcome(contestant("peer", None), "timed", seconds=[1.0] * 5),
    ]
    run = as_run(runner.ProblemResult(problem_of(targets=[target]), outcomes))
    for table in (tables.targets(run), tables.report(run)):
        assert f" x | {word} |" in table
    assert f", {word} |" in tables.brief(run)


def test_of_several_the_fastest_is_compared_with():
    target = task.Target(contestant="ours", kind="faster", bound=3, than=("slow", "fast", "absent"))
    outcomes = [
        runner.Outcome(contestant("ours", None), "timed", seconds=[1.0, 1.0]),
        runner.Outcome(contestant("slow", None), "timed", seconds=[9.0, 9.0]),
        runner.Outcome(contestant("fast", None), "timed", seconds=[2.0, 2.0]),
        runner.Outcome(contestant("absent", None), "absent"),
    ]
    result = runner.ProblemResult(problem_of(targets=[target]), outcomes)
    (verdict,) = result.verdicts
    assert (verdict.met, verdict.measured.median, verdict.against) == (False, 2.0, "fast")
    text = tables.report(as_run(result))
    assert "the fastest of slow, fast, absent | 2 (2 to 2) x, fast | **missed**" in text
    assert result.fastest(["absent"]) is None


@pytest.mark.parametrize(
    ("value", "shown"), [(2.5, "2.5 x | met"), (3.5, "3.5 x | **missed**"), (None, "not measured")]
)
def test_figures_stand_beside_the_times(value, shown):
    figure = task.Figure(name="peak", measure=lambda: value, unit="x", bound=3)
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
    monkeypatch.setattr(cpp, "_THREADS", 7)
    seen = {}
    runner.run_problem(
        problem_of(
            contestant("one", lambda: seen.setdefault("one", cpp._THREADS) and 1.0),
            threads.with_threads(1, "named", lambda: seen.setdefault("named", cpp._THREADS) and 1.0, note=""),
            contestant("more", lambda: seen.setdefault("more", cpp._THREADS) and 1.0,
                       context=lambda: threads.extension_threads(2)),
        ),
        runner.Settings(rounds=1, least=0.0),
    )  # fmt: skip
    assert seen == {"one": 1, "named": 1, "more": 2}
    assert cpp._THREADS == 7
    assert threads.with_threads(10**6, "many", lambda: 1.0, note="").run is None


def test_a_job_of_several_units_is_divided():
    result = runner.run_problem(
        problem_of(contestant("one", lambda: 1.0), contestant("hundred", lambda: 1.0, units=1e9)),
        runner.Settings(rounds=2, least=0.0),
    )
    one, many = (outcome.summary.median for outcome in result.outcomes)
    assert many < one / 1e6


def test_relative_error_sees_what_is_wrong():
    reference = np.arange(12.0).reshape(4, 3)
    assert problems.relative_error(reference, reference) == 0.0
    assert problems.relative_error(reference.T, reference) == float("inf")
    assert problems.relative_error(np.full_like(reference, np.nan), reference) == float("inf")
    moved = reference.copy()
    moved[0, 0] = np.nan
    assert problems.relative_error(moved, reference) == float("inf")
    moved = reference.copy()
    moved[3, 2] += 11e-6
    assert problems.relative_error(moved, reference) == pytest.approx(1e-6)


def test_the_reference_gradient_is_the_derivative():
    X, Y, weights = problems.Size(4, (3, 5, 2)).draw()
    value, gradients = problems.loss_and_gradients(X, Y, weights)
    assert value == pytest.approx(0.5 * np.sum((X @ weights[0].T @ weights[1].T - Y) ** 2))
    step = 1e-6
    for layer, index in ((0, (2, 1)), (1, (1, 3))):
        moved = [weight.copy() for weight in weights]
        moved[layer][index] += step
        above, _ = problems.loss_and_gradients(X, Y, moved)
        moved[layer][index] -= 2 * step
        below, _ = problems.loss_and_gradients(X, Y, moved)
        assert (above - below) / (2 * step) == pytest.approx(gradients[layer][index], rel=1e-6)


def test_the_reference_by_the_product_is_the_one_by_layers():
    X, Y, weights = problems.Size(7, (3, 5, 2)).draw()
    value, gradients = problems.loss_and_gradients(X, Y, weights)
    by_product, others = problems.product_loss_and_gradients(X, Y, weights)
    assert by_product == pytest.approx(value, rel=1e-14)
    for gradient, other in zip(gradients, others, strict=True):
        assert problems.relative_error(other, gradient) < 1e-14


def test_references_along_a_run():
    X, Y, weights = problems.Size(7, (3, 5, 2)).draw()
    rate = loops.stable_rate(X, weights)
    after = loops.trajectory(X, Y, weights, rate, [2, 5])
    moved = weights
    for _ in range(5):
        gradients = problems.loss_and_gradients(X, Y, moved)[1]
        moved = [weight - rate * gradient for weight, gradient in zip(moved, gradients, strict=True)]
    assert problems.relative_error(after[5], problems.flat(moved)) < 1e-14
    error = loops.error_of_change(weights, lambda: after)
    assert error(loops.Trained(5, problems.flat(moved))) < 1e-12
    assert error(loops.Trained(2, problems.flat(moved))) > 0.1

    form = closed_form.ClosedForm(X, Y, weights)
    near = np.random.default_rng(0).standard_normal(form.size)
    value, vector = curvature_along.largest(form.product, near, 0.0)
    assert value == pytest.approx(np.linalg.eigvalsh(form.matrix())[-1], rel=1e-13)
    assert problems.relative_error(form.product(vector), value * vector) < 1e-7


@pytest.mark.parametrize(
    ("size", "reduced"),
    [
        (problems.Size(1000, (5, 100, 5)), problems.Size(5, (5, 10, 5))),
        (problems.Size(3, (5, 10, 5)), problems.Size(3, (5, 10, 5))),
        (problems.Size(9, (4, 50, 40, 3, 2), "float32"), problems.Size(4, (4, 44, 40, 3, 2), "float32")),
    ],
)
def test_the_reduced_size_is_the_one_where_nothing_is_wider_than_its_neighbours(size, reduced):
    assert size.reduced == reduced


@pytest.mark.parametrize("widths", [(3, 2), (3, 5, 2), (2, 3, 4, 2)])
def test_the_reference_hessian_is_the_derivative_of_the_gradient(widths):
    X, Y, weights = problems.Size(4, widths).draw()
    form = closed_form.ClosedForm(X, Y, weights)
    found = form.matrix()
    step, columns = 1e-6, []
    for layer, weight in enumerate(weights):
        for index in np.ndindex(weight.shape):
            sides = []
            for sign in (1, -1):
                moved = [array.copy() for array in weights]
                moved[layer][index] += sign * step
                sides.append(problems.flat(problems.loss_and_gradients(X, Y, moved)[1]))
            columns.append((sides[0] - sides[1]) / (2 * step))
    assert problems.relative_error(found, np.stack(columns, axis=1)) < 1e-8
    V = np.random.default_rng(0).standard_normal((form.size, 3))
    assert problems.relative_error(form.product(V), found @ V) < 1e-14
    assert problems.relative_error(form.product(V[:, 0]), found @ V[:, 0]) < 1e-14
    few = closed_form.ClosedForm(*closed_form.qr_reduced(X, Y), weights)
    assert problems.relative_error(few.matrix(), found) < 1e-13


@pytest.mark.parametrize(
    ("size", "least"),
    [
        (problems.Size(5, (5, 100, 5)), 6 * 5 * 100 * 5 + 5 * 5 * 5),
        (problems.Size(2, (20, 200, 20)), 2 * (2 * 20 * 200 + 6 * 200 * 20)),
        (problems.Size(1000, (10, 30, 40, 10)), 10 * (2 * 10 * 30 + 6 * 30 * 40 + 6 * 40 * 10)),
    ],
)
def test_multiply_adds_of_a_product(size, least):
    assert closed_form.product_multiply_adds(size) == least


def test_distance_of_spectra_is_that_of_the_sorted_eigenvalues():
    exact = np.array([0.0, 4.0, -1.0]), np.array([5, 2, 1])
    expanded = np.repeat(*exact)
    assert spectrum.distance(spectrum.as_values(np.random.default_rng(0).permutation(expanded)), exact) == 0.0
    moved = np.array([0.0, 4.0, 4.5, -1.0]), np.array([5, 1, 1, 1])
    assert spectrum.distance(moved, exact) == pytest.approx(0.5 / 4)
    other_counts = exact[0], np.array([4, 3, 1])
    assert spectrum.distance(other_counts, exact) == 1.0
    assert spectrum.distance((exact[0], np.array([5, 2, 2])), exact) == float("inf")
    assert spectrum.distance((np.array([np.nan, 4.0, -1.0]), exact[1]), exact) == float("inf")


@pytest.mark.parametrize(
    ("size", "least"),
    [
        (problems.Size(1000, (20, 200, 20)), 20 * 200 * 20 + 1000 * 20 * 20),
        (problems.Size(2, (20, 200, 20)), 2 * (20 * 200 + 200 * 20)),
        (problems.Size(1000, (64, 256, 256, 10)), 10 * 256 * 256 + 10 * 256 * 64 + 1000 * 64 * 10),
    ],
)
def test_multiply_adds_are_of_the_best_order(size, least):
    assert problems.forward_multiply_adds(size) == least


def test_the_peak_is_above_every_product():
    size = 192
    floor = floors.products(size**3)[0]
    if floor.run is None:
        pytest.skip(floor.note)
    a, out = np.ones((size, size)), np.empty((size, size))
    fma, product = (
        min(t.seconds)
        for t in timing.interleaved(
            [timing.Entry(floor.run, floor.context), timing.Entry(lambda: np.matmul(a, a, out=out), floor.context)],
            rounds=5,
            least=0.001,
            budget=1.0,
        ).times
    )
    threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    assert fma / floor.units < 1.5 * threads * product  # half as much again: the cores of a test machine are shared


def test_floors_of_memory_write_every_byte():
    out = np.full(1001, np.nan)
    fill, stream = floors.stores(out)
    assert fill.run() is None
    assert not out.any()
    if stream.run is None:
        pytest.skip(stream.note)
    memory = stream.run()
    memory[:] = 1
    stream.run()
    start = -memory.ctypes.data % 64
    assert not memory[start : start + out.nbytes].any()
    assert memory[:start].all()


def test_the_rate_of_gemm_is_scaled_to_the_work():
    one, two = (floors.products(adds)[1] for adds in (1e6, 2e6))
    assert one.units == 2 * two.units == pytest.approx(384**3 / 1e6)
