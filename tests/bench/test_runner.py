"""The benchmarks run, check what they time, and judge by what they measured; how fast anything is, is not tested."""

import json
from pathlib import Path

import benches
import numpy as np
import pytest

import hesskern
from bench import floors, peers, runner, runs, tables
from bench.tasks import TASKS

bench, as_run = benches.bench, benches.as_run


SOME = ("spectrum", "condition")


@pytest.fixture(scope="module", params=[SOME, pytest.param(tuple(TASKS), marks=pytest.mark.long)], ids=["some", "all"])
def tasks(request):
    """A few of the tasks, and all."""
    return request.param


@pytest.fixture(scope="module")
def quick(tmp_path_factory, tasks):
    """These tasks once, at their smallest size."""
    folder = tmp_path_factory.mktemp("bench")
    files = ["--json", folder / "run.json", "--markdown", folder / "run.md", "--plots", folder / "pictures"]
    done = bench("run", "--quick", *(word for name in tasks for word in ("--task", name)), *files)
    assert done.returncode == 0, done.stderr
    return folder, runs.load(str(folder / "run.json")), (folder / "run.md").read_text()


def test_list_names_every_task():
    listed = benches.here("list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(TASKS)


def test_every_task_has_right_results(quick, tasks):
    _, run, _ = quick
    assert [entry["name"] for entry in run["tasks"]] == list(tasks)
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


def test_the_machine_stands_beside_the_results(quick, tasks):
    _, run, text = quick
    about = run["machine"]
    assert about["isa"] == hesskern.info()["isa"]
    assert about["libraries"]["numpy"] == np.__version__
    assert about["environment"]["OPENBLAS_NUM_THREADS"] == "1"
    assert about["cpu"] in text
    assert set(about["load_average"]) == {"start", "end"}
    for name in tasks:
        assert f"### {name}" in text


def test_what_is_left_out_says_so(quick, tasks):
    _, run, _ = quick
    absent = [c for t in run["tasks"] for p in t["problems"] for c in p["contestants"] if c["status"] == "absent"]
    compiled = {c["reason"] for c in absent if c["name"].startswith("torch.compile")}
    assert compiled == ({peers.NOT_COMPILED} if tasks != SOME else set())
    for other in absent:
        assert other["reason"].endswith("is not installed") or other["reason"] in (
            peers.NOT_COMPILED, floors.NO_COMPILER, "this processor has no such store"
        ) or other["reason"].endswith("cores only"), other  # fmt: skip


def test_a_run_has_a_summary(quick, tasks):
    folder, run, text = quick
    done = benches.here("summary", folder / "run.json", "--task", "condition", "--task", "spectrum")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("### ", "| 5-100-5, W_2 |"))]
    assert [rows[0], rows[1]] == ["### spectrum", "### condition"]
    assert "from scratch: " in rows[2]
    assert "peak memory, network and spectrum: " in done.stdout
    assert len(tables.brief(run).split("### ")) == len(tasks) + 1
    assert benches.here("summary", folder / "run.json", "--kind", "full").stdout == text


def test_a_run_has_pictures(quick):
    folder, run, _ = quick
    drawn = {path.stem for path in (folder / "pictures").glob("*.png") if path.stat().st_size > 10_000}
    laddered = {entry["name"] for entry in run["tasks"] if any(problem["rungs"] for problem in entry["problems"])}
    assert {"spectrum", "condition"} <= laddered
    assert drawn == {"speedups"} | {f"growth-{name}" for name in laddered}


@pytest.mark.long
def test_every_contestant_of_a_task_can_be_measured_alone(tmp_path):
    done = bench("run", "--quick", "--memory", "--task", "data_reduction", "--json", tmp_path / "memory.json")
    assert done.returncode == 0, done.stderr
    first, second = runs.load(str(tmp_path / "memory.json"))["tasks"][0]["problems"]
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
    done = benches.here("run", "--task", "nothing")
    assert done.returncode == 2
    assert "nothing" in done.stderr
