"""The benchmarks run, check what they time, and judge by what they measured; how fast anything is, is not tested."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import hesskern

ROOT = Path(__file__).parents[1]

if not (ROOT / "bench" / "__main__.py").exists():
    pytest.skip("these tests were copied without the benchmarks", allow_module_level=True)
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from bench import peak, peers, problems, report, runner, task, timing  # noqa: E402
from bench.tasks import TASKS  # noqa: E402


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(hesskern.__file__).parents[1]), str(ROOT)])}
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Every task once, at its smallest size."""
    folder = tmp_path_factory.mktemp("bench")
    done = bench("run", "--quick", "--json", str(folder / "run.json"), "--markdown", str(folder / "run.md"))
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "run.json").read_text()), (folder / "run.md").read_text()


def test_list_names_every_task():
    listed = bench("list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(TASKS)


def test_every_task_has_right_results(quick):
    run, _ = quick
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
    run, tables = quick
    about = run["machine"]
    assert about["isa"] == hesskern.info()["isa"]
    assert about["libraries"]["numpy"] == np.__version__
    assert about["environment"]["OPENBLAS_NUM_THREADS"] == "1"
    assert about["cpu"] in tables
    assert set(about["load_average"]) == {"start", "end"}
    for name in TASKS:
        assert f"### {name}" in tables


def test_quick_runs_judge_nothing(quick):
    run, tables = quick
    assert all(problem["targets"] == [] for entry in run["tasks"] for problem in entry["problems"])
    assert "### Targets" not in tables


def test_an_unknown_task_is_refused():
    done = bench("run", "--task", "nothing")
    assert done.returncode == 2
    assert "nothing" in done.stderr


def contestant(name, run, **more):
    return task.Contestant(name=name, run=run, **more)


def problem_of(*contestants, **more):
    return task.Problem(
        label="p", contestants=contestants, error=lambda result: abs(result - 1.0), tolerance=1e-12, **more
    )


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
    tables = report.markdown(fake_machine(), runner.Settings(), [runner.TaskResult("t", "about", [result], [])])
    assert "wrong: relative error 1.0e-01" in tables
    assert "absent: not installed" in tables
    assert "not measured" in tables


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
    statuses = {}
    for name in ("train_case", "condition"):
        for problem in TASKS[name].problems(True):
            result = runner.run_problem(problem, runner.QUICK)
            statuses |= {o.contestant.name: o.status for o in result.outcomes}
    assert statuses["hesskern"] == "timed"
    assert {status for name, status in statuses.items() if name.startswith("torch")} == {"absent"}


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
    times = timing.interleaved(entries, rounds=2, least=0.0, budget=1.0)
    # Once each to find the number of calls; then rounds of one untimed and one timed call.
    assert "".join(seen) == "(a)(b)" + "(aa)(bb)" * 2
    assert [len(t.seconds) for t in times] == [2, 2]
    assert [t.number for t in times] == [1, 1]


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
    floor = peak.floor(size**3)
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
        )
    )
    threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    assert fma / floor.units < 1.5 * threads * product  # half as much again: the cores of a test machine are shared


def fake_machine():
    words = dict.fromkeys(("cpu", "isa", "system", "python", "hesskern"), "some")
    numbers = {"cores": 1, "memory_gib": 1, "load_average": {"start": 0.0, "end": 0.0}}
    return words | numbers | {"libraries": {"numpy": "1"}, "revision": None, "blas": [], "torch_threads": None}
