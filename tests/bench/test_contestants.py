"""Who is timed in a benchmark: what is wrong, fails or is not installed says so and is not."""

import benches
import numpy as np
import pytest

from bench import contest, peers, runner, tables
from bench.tasks import TASKS

contestant, problem_of, as_run = benches.contestant, benches.problem_of, benches.as_run


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
            targets=[contest.Target(contestant="right", kind="faster", bound=1, than="wrong")],
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
    target = contest.Target(contestant="right", kind="faster", bound=1, than=("there", "gone"))
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


@pytest.mark.long
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
