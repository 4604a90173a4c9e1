"""Exponents, tables and pictures, from times whose growth is known."""

import copy

import benches
import numpy as np
import pytest

from bench import fits, ladders, limits, pages, plots, runs, tables
from bench.contest import Rung, Target
from bench.outcomes import Outcome, ProblemResult
from bench.problems import Size

SIZES = (10, 100, 1000, 10_000)


def ladder_run(
    sizes=SIZES, exponents=(("hesskern", "ours", 1.0), ("torch", "peer", 2.0), ("floor: fill", "floor", 0.5))
):
    """A run of problems along N whose times grow with known powers, a little disturbed."""
    results = []
    rng = np.random.default_rng(0)
    for size in sizes:
        outcomes = [
            Outcome(
                benches.contestant(name, None, role=role), "timed", 0.0,
                seconds=list(1e-7 * size**power * np.exp(0.01 * rng.standard_normal(9))),
                peak=None if role == "floor" else size * 1024,
            )
            for name, role, power in exponents
        ]  # fmt: skip
        outcomes.append(Outcome(benches.contestant("gone", None), "absent", reason="not installed"))
        problem = benches.problem_of(
            rungs=[Rung("5-100-5", "N", size)],
            targets=[Target(contestant="hesskern", kind="faster", bound=1, than=exponents[1][0])],
        )
        results.append(ProblemResult(problem, outcomes))
    return benches.as_run(*results)


def test_exponents_are_those_of_the_times():
    (ladder,) = fits.ladders(ladder_run()["tasks"][0])
    assert (ladder.name, ladder.variable) == ("5-100-5", "N")
    found = {curve.contestant: fits.exponent(curve) for curve in ladder.curves}
    assert set(found) == {"hesskern", "torch", "floor: fill"}
    for name, power in (("hesskern", 1.0), ("torch", 2.0), ("floor: fill", 0.5)):
        assert found[name].exponent == pytest.approx(power, abs=0.01)
        assert found[name].last == pytest.approx(power, abs=0.02)
        assert 0 < found[name].error < 0.01


def test_the_standard_error_is_that_of_least_squares():
    x, y = np.log([1.0, 10, 100, 1000]), np.array([0.0, 2.0, 5.0, 7.5])
    curve = fits.Curve("c", "peer", [1.0, 10, 100, 1000], [[float(np.exp(value))] for value in y])
    (slope, _), covariance = np.polyfit(x, y, 1, cov="unscaled")
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    found = fits.exponent(curve)
    assert found.exponent == pytest.approx(slope)
    assert found.error == pytest.approx(np.sqrt(covariance[0, 0] * residual @ residual / 2))


def test_two_sizes_have_no_exponent():
    (ladder,) = fits.ladders(ladder_run(SIZES[:2])["tasks"][0])
    assert [fits.exponent(curve) for curve in ladder.curves] == [None] * 3
    assert tables.growth(ladder_run(SIZES[:2])).strip() == ""


def test_exponents_stand_in_the_report():
    run = ladder_run()
    text = tables.report(run)
    assert "| N | 5-100-5 | torch | 10 to 10000, 4 sizes | 2.0" in text
    assert "± 0.0" in text
    assert text.count("absent: not installed") == len(SIZES)
    assert "| 10 KiB |" in text
    assert "| 9.77 MiB |" in text


def test_the_limit_is_the_fastest_floor():
    run = ladder_run((100,), (("hesskern", "ours", 1.0), ("floor: a", "floor", 0.5), ("floor: b", "floor", 0.9)))
    problem = run["tasks"][0]["problems"][0]
    assert limits.limit_of(problem)["name"] == "floor: a"
    row = next(line for line in tables.report(run).splitlines() if "| hesskern |" in line)
    assert row.split("|")[5].strip().startswith(("9.", "10"))  # 100 / sqrt(100)


def test_of_several_parts_the_longest_is_the_limit():
    run = ladder_run((100,), (("hesskern", "ours", 2.0), ("slow", "floor", 1.0), ("fast", "floor", 0.5)))
    problem = run["tasks"][0]["problems"][0]
    assert limits.limit_of(problem)["name"] == "fast"  # two ways to do the same
    for contestant in problem["contestants"]:
        contestant["part"] = contestant["name"]
    assert limits.limit_of(problem)["name"] == "slow"  # two parts, both of which have to be done
    (ladder,) = fits.ladders(run["tasks"][0])
    assert ladder.limit == [(100, next(c for c in ladder.curves if c.contestant == "slow").medians[0])]
    assert (
        limits.limit_of(ladder_run((1,), (("hesskern", "ours", 1.0), ("p", "peer", 1)))["tasks"][0]["problems"][0])
        is None
    )


def test_headlines_have_both_ends():
    text = tables.headlines(
        ladder_run((100,), (("hesskern", "ours", 1.0), ("slow", "peer", 2.0), ("quick", "peer", 0.5)))
    )
    cells = text.splitlines()[-1].split("|")
    assert cells[4].strip().startswith("quick, 0.1")
    assert cells[5].strip().startswith("slow, ")


def test_pictures_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    made = plots.draw(ladder_run(), tmp_path)
    assert [path.name for path in made] == ["growth-t.png"]  # one peer is no comparison of libraries
    more = (("hesskern", "ours", 1.0), *((name, "peer", 2.0) for name in ("torch", "jax", "NumPy")))
    made = plots.draw(ladder_run(SIZES, more), tmp_path)
    assert [path.name for path in made] == ["growth-t.png", "speedups.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made)


def test_a_picture_shows_every_contestant_and_the_limit():
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot as plt

    task = ladder_run()["tasks"][0]
    figure = plots.growth_figure(task, fits.ladders(task))
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["limit of the machine", "hesskern", "torch"]
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"
    limit = next(line for line in figure.axes[0].lines if line.get_label() == "limit of the machine")
    floor = next(curve for curve in fits.ladders(task)[0].curves if curve.role == "floor")
    assert list(limit.get_ydata()) == floor.medians
    plt.close(figure)


def test_a_size_is_on_every_ladder_it_belongs_to():
    several = (
        ladders.by_samples((5, 100, 5), (5, 50)),
        ladders.by_width(5, 5, 5, (10, 100)),
        ladders.by_depth(9, 3, 4, 2, (2, 3)),
    )
    assert [(rung.variable, rung.value) for rung in ladders.rungs(Size(5, (5, 100, 5)), several)] == [
        ("N", 5),
        ("h", 100),
    ]
    assert [(rung.variable, rung.value) for rung in ladders.rungs(Size(9, (3, 4, 4, 2)), several)] == [("layers", 3)]
    assert len(ladders.union(several)) == 5


def marked(kind, run, more=""):
    return f"before\n<!-- bench {kind} {run}{more} -->\nold\n<!-- end -->\nafter\n"


def test_tables_in_pages_are_made_from_their_runs(tmp_path):
    (tmp_path / "run.json").write_text(runs.json_text(ladder_run()))
    page = tmp_path / "page.md"
    page.write_text(marked("targets", tmp_path / "run.json", " t"))
    assert pages.renew(page)
    assert not pages.renew(page)
    text = page.read_text()
    assert text.startswith("before\n<!-- bench targets ")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "at least 1 x faster than torch" in text
    assert "old" not in text
    for kind in pages.KINDS:
        assert pages.renewed(marked(kind, tmp_path / "run.json")).count("\n") >= 5, kind


def test_a_page_may_choose_problems_of_a_task(tmp_path):
    run = ladder_run()
    for number, problem in enumerate(run["tasks"][0]["problems"], 1):
        problem["label"] = f"problem {number}"
    (tmp_path / "run.json").write_text(runs.json_text(run))

    def labels(tasks):
        lines = pages.renewed(marked("times", tmp_path / "run.json", tasks)).splitlines()
        return sorted({line.split("|")[1].strip() for line in lines if line.startswith("| problem ")} - {"problem"})

    assert labels(" t") == [f"problem {number}" for number in (1, 2, 3, 4)]
    assert labels(" t:4 t:2") == ["problem 2", "problem 4"]
    assert labels(" other t:1") == ["problem 1"]


def test_quick_tables_say_so():
    run = ladder_run()
    kinds = (tables.report, tables.brief, tables.headlines, tables.times, tables.growth)
    assert not [kind for kind in kinds if "quick run" in kind(run)]
    run["settings"] |= {"quick": True, "inner_loop_seconds": 0.0002}
    for kind in kinds:
        assert kind(run).count("A quick run: the smallest sizes, inner loops of 200 µs; it says that all works") == 1


def test_a_page_that_is_not_there_is_said(tmp_path):
    done = benches.here("pages", tmp_path / "nope.md")
    assert (done.returncode, done.stderr) == (2, f"There is no page {tmp_path / 'nope.md'}.\n")


def test_a_number_changed_by_hand_is_seen(tmp_path):
    (tmp_path / "run.json").write_text(runs.json_text(ladder_run()))
    text = pages.renewed(marked("headlines", tmp_path / "run.json"))
    other = copy.deepcopy(ladder_run())
    other["tasks"][0]["problems"][0]["contestants"][0]["seconds"] = [1.0] * 9
    (tmp_path / "run.json").write_text(runs.json_text(other))
    assert pages.renewed(text) != text


@pytest.mark.parametrize("name", ["README.md", "bench/README.md", "docs/training.md"])
def test_no_number_in_the_pages_is_without_its_file(name):
    text = (benches.ROOT / name).read_text(encoding="utf-8")
    assert pages.MARKED.search(text)
    assert pages.renewed(text) == text
