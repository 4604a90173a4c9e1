"""Comparing two runs: a regression is found, noise is none, and a slower machine is not taken for a slower kernel."""

import copy
import json

import benches
import numpy as np
import pytest

from bench import cli, compare, runs

ROUNDS = 15


def run_of(times, *, label="p", cpu="some"):
    """A run with one problem; `times`: seconds of each round by contestant."""
    same = {
        "note": "",
        "status": "timed",
        "reason": "",
        "error": 0.0,
        "calls_per_round": 1,
        "peak_bytes": None,
        "part": "",
    }
    roles = {"hesskern": "ours", "floor: fill": "floor"}
    contestants = [
        {"name": name, "role": roles.get(name, "peer"), **same, "seconds": list(seconds)}
        for name, seconds in times.items()
    ]
    problem = {"label": label, "tolerance": 1.0, "rungs": [], "contestants": contestants, "targets": [], "figures": []}
    run = benches.as_run()
    run["machine"]["cpu"] = cpu
    run["tasks"] = [{"name": "t", "about": "a", "notes": [], "problems": [problem]}]
    return run


def noisy(seed, median=1e-3, spread=0.02):
    """Times with a tail to the right, as those of a busy machine have."""
    rng = np.random.default_rng(seed)
    return median * (1 + spread * np.abs(rng.standard_normal(ROUNDS)))


def test_a_regression_of_ten_percent_is_found():
    before = run_of({"hesskern": noisy(0), "torch": noisy(1), "floor: fill": noisy(2)})
    after = run_of({"hesskern": 1.1 * noisy(3), "torch": noisy(4), "floor: fill": noisy(5)})
    changes = compare.compare(before, after)
    (worse,) = compare.regressions(changes)
    assert worse.contestant == "hesskern"
    assert worse.lower > 1.05
    assert worse.lower < 1.1 < worse.upper * 1.02
    assert worse.p < 1e-4
    text = compare.markdown(before, after, changes)
    assert "| hesskern |" in text
    assert "**slower**" in text
    assert "of ours 1 became slower" in text


def test_nothing_is_found_where_nothing_changed():
    names = {"hesskern": 0, "torch": 1, "NumPy": 2, "floor: fill": 3}
    before = run_of({name: noisy(seed) for name, seed in names.items()})
    assert not compare.regressions(compare.compare(before, copy.deepcopy(before)))
    for seed in range(10, 200, 10):  # and other noise is no change
        after = run_of({name: noisy(seed + k) for name, k in names.items()})
        changes = compare.compare(before, after)
        assert not [change for change in changes if change.verdict()], seed
    assert "No change that can be told from noise." in compare.markdown(before, after, changes)


def test_what_all_contestants_share_is_the_machines():
    before = run_of({"hesskern": noisy(0), "torch": noisy(1), "floor: fill": noisy(2)})
    after = run_of({"hesskern": 1.3 * noisy(3), "torch": 1.3 * noisy(4), "floor: fill": 1.3 * noisy(5)}, cpu="another")
    changes = compare.compare(before, after)
    assert {change.verdict() for change in changes if change.role == "ours"} == {"machine"}
    assert not compare.regressions(changes)
    assert "The processors differ" in compare.markdown(before, after, changes)


def test_a_faster_kernel_is_no_regression():
    before, after = run_of({"hesskern": noisy(0)}), run_of({"hesskern": 0.8 * noisy(1)})
    (change,) = compare.compare(before, after)
    assert change.verdict() == "faster"
    assert change.others is None


def compared(before, after, folder, *more):
    """The command's answer to two runs."""
    for name, run in (("a", before), ("b", after)):
        (folder / f"{name}.json").write_text(runs.json_text(run))
    return benches.here("compare", folder / "a.json", folder / "b.json", *more)


@pytest.mark.parametrize(("rounds", "least"), [(2, "0.33"), (3, "0.1"), (4, "0.029")])
def test_too_few_rounds_tell_nothing_and_say_so(rounds, least, tmp_path):
    times = np.linspace(1e-3, 1.01e-3, rounds)
    before, after = run_of({"hesskern": times}), run_of({"hesskern": 9 * times})
    (change,) = compare.compare(before, after)
    assert change.verdict() == ""
    assert not change.comparable
    done = compared(before, after, tmp_path)
    assert done.returncode == 2
    assert done.stderr == "Nothing could be compared: too few rounds.\n"
    assert "1 contestants were timed in both, 1 of them in too few rounds to compare" in done.stdout
    assert (
        f"{rounds} rounds cannot tell anything below p = {least}, and 0.01 is asked for: t, p, hesskern." in done.stdout
    )
    assert "No change" not in done.stdout
    assert compare.interval([1.0], [2.0]) == (0.0, float("inf"))


def test_what_has_too_few_rounds_does_not_weigh_on_the_others(tmp_path):
    slow = {f"torch {k}": [1e-3, 2e-3] for k in range(20)}
    before = run_of({"hesskern": noisy(0)[:5]} | slow)
    after = run_of({"hesskern": 2 * noisy(1)[:5]} | slow)
    (worse,) = compare.regressions(compare.compare(before, after))
    assert worse.p == worse.least < 0.01
    done = compared(before, after, tmp_path)
    assert done.returncode == 1
    assert "t, p, torch 7; and 12 more." in done.stdout
    assert "a change that no other" not in done.stdout


def test_few_rounds_of_many_contestants_say_that_one_alone_cannot_be_told():
    run = run_of({f"torch {k}": noisy(k)[:5] for k in range(20)})
    text = compare.markdown(run, run, compare.compare(run, run))
    assert "Of 20 a change that no other contestant shares could not be told" in text


def test_other_problems_are_not_compared(tmp_path):
    before, after = run_of({"hesskern": noisy(0)}), run_of({"hesskern": noisy(0)}, label="q")
    assert compare.compare(before, after) == []
    done = compared(before, after, tmp_path)
    assert done.returncode == 2
    assert done.stderr == "Nothing could be compared: no contestant of a problem was timed in both runs.\n"
    assert "1 contestants were timed only in the run before: t, p, hesskern." in done.stdout
    assert "1 contestants were timed only in the run after: t, q, hesskern." in done.stdout


def test_what_only_one_run_has_is_counted_and_named():
    before = run_of({"hesskern": noisy(0), "torch": noisy(1)})
    after = run_of({"hesskern": noisy(2)} | {f"jax {k}": noisy(k) for k in range(10)})
    text = compare.markdown(before, after, compare.compare(before, after))
    assert "1 contestants were timed only in the run before: t, p, torch." in text
    assert "10 contestants were timed only in the run after: t, p, jax 0; " in text
    assert "t, p, jax 7; and 2 more." in text


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (1.5, 1)])
def test_the_command_exits_with_what_it_found(factor, status, tmp_path):
    done = compared(run_of({"hesskern": noisy(0)}), run_of({"hesskern": factor * noisy(0)}), tmp_path)
    assert done.returncode == status, done.stderr
    assert "1 contestants were timed in both" in done.stdout


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "There is no run"),
        ("{", "is not JSON"),
        ("[]", "has schema None, and this version reads 2 and 3"),
        ('{"schema": 1}', "has schema 1, and this version reads 2 and 3"),
        ('{"schema": 3, "machine": {}}', "is incomplete: 'tasks' is missing"),
    ],
)
def test_files_that_cannot_be_read_say_why(content, says, tmp_path):
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(runs.UnreadableRunError, match=says):
        runs.load(str(path))
    done = benches.here("compare", path, path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (lambda run: run, "settings"),
        (lambda run: run["machine"], "cpu"),
        (lambda run: run["tasks"][0], "about"),
        (lambda run: run["tasks"][0]["problems"][0], "targets"),
        (lambda run: run["tasks"][0]["problems"][0]["contestants"][0], "status"),
    ],
)
def test_a_run_that_lacks_something_says_what(where, name, tmp_path, capsys):
    run = run_of({"hesskern": noisy(0)})
    del where(run)[name]
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert cli.main(["summary", str(tmp_path / "run.json")]) == 2
    assert f"is incomplete: '{name}' is missing; measure again." in capsys.readouterr().err


def test_a_run_whose_parts_are_none_is_refused(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(run_of({"hesskern": noisy(0)}) | {"tasks": [3]}))
    with pytest.raises(runs.UnreadableRunError, match="holds no run"):
        runs.load(str(tmp_path / "run.json"))


@pytest.mark.parametrize("threshold", ["0", "-0.1", "nan"])
def test_the_threshold_is_above_zero(threshold, capsys):
    assert cli.main(["compare", f"--threshold={threshold}", "a", "b"]) == 2
    assert capsys.readouterr().err == (
        f"--threshold is {threshold}; expected a number above 0, 0.05 for five percent.\n"
    )


def test_a_run_comes_back_from_json_as_it_was(tmp_path):
    run = run_of({"hesskern": [1e-3, 2e-3], "torch": [5.0, 6.0]})
    (tmp_path / "run.json").write_text(runs.json_text(run))
    assert runs.load(str(tmp_path / "run.json")) == json.loads(json.dumps(run))


def test_runs_are_found_by_name():
    kept = sorted(runs.RESULTS.glob("*/*.json"))
    assert kept
    for path in kept:
        name = str(path.relative_to(runs.RESULTS).with_suffix(""))
        assert runs.find(name).samefile(path)
        assert runs.load(name)["tasks"]  # what was committed can be read
    with pytest.raises(runs.UnreadableRunError, match="There is no run nothing-of-this-name"):
        runs.find("nothing-of-this-name")
