"""The benchmark on a graphics card: all that can be seen without one. Every path is walked on the processor."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import benches
import numpy as np
import pytest

from bench import peers, runs
from bench.cuda import assembly, command, device, ensembles, floors, products, training
from hesskern import backends

torch = pytest.importorskip("torch")

TASKS = (assembly, products, ensembles, training)


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    monkeypatch.setattr(peers.CHOICE, "compiled", False)


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """The command as `make bench-cuda` gives it, with --dry-run."""
    folder = tmp_path_factory.mktemp("cuda")
    done = benches.bench("--dry-run", "--only-times", "--out", folder, module="bench.cuda")
    assert done.returncode == 0, done.stderr
    return folder, runs.load(str(folder / "run.json")), done.stderr


@pytest.mark.long
def test_a_dry_run_checks_and_times_every_contestant(dry):
    _, run, _ = dry
    assert [task["name"] for task in run["tasks"]] == [module.NAME for module in TASKS]
    seen = set()
    for task in run["tasks"]:
        for problem in task["problems"]:
            for contestant in problem["contestants"]:
                seen.add(contestant["name"])
                if contestant["name"].startswith("torch.compile"):
                    assert contestant["status"] == "absent"
                else:
                    assert contestant["status"] == "timed", contestant
                    assert len(contestant["seconds"]) == 2
    assert {
        "hesskern", "torch.kron", "torch.block_diag", "torch.mul(out=), CUDA graph", "torch.func.hessian",
        "torch.autograd.functional.hessian", "torch double backward", "torch.func jvp of grad, CUDA graph",
        "torch bmm in place", "torch bmm in place, CUDA graph", "torch.func.vmap(grad)", "torch in place, CUDA graph",
        "floor: fill_", "floor: zero_", "floor: copy_", "floor: GEMM",
    } <= seen  # fmt: skip


@pytest.mark.long
def test_a_dry_run_says_that_it_is_one(dry):
    folder, run, _ = dry
    assert run["machine"]["gpu"] is None or not torch.cuda.is_available()
    notes = [note for task in run["tasks"] for note in task["notes"]]
    assert len(notes) == len(TASKS)
    assert all("dry run" in note for note in notes)
    ours = [c for t in run["tasks"] for p in t["problems"] for c in p["contestants"] if c["role"] == "ours"]
    assert all(contestant["note"].endswith('(dry run: backend "cpp")') for contestant in ours)
    assert (folder / "run.md").read_text().count("### cuda_") == len(TASKS)


@pytest.mark.long
def test_a_dry_run_draws_its_pictures(dry):
    pytest.importorskip("matplotlib")
    folder, *_ = dry
    drawn = {path.name for path in folder.glob("*.png")}
    assert {f"growth-{module.NAME}.png" for module in TASKS} <= drawn


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
@pytest.mark.long
def test_without_a_card_it_says_so(tmp_path):
    done = benches.bench("--out", tmp_path, module="bench.cuda")
    assert done.returncode == 2
    assert "sees no graphics card here; --dry-run takes the same paths" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_torch_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert device.find(dry=True) == "torch is not installed; the benchmarks on a graphics card are of its tensors."


def test_our_backend_is_absent_with_its_reason(monkeypatch):
    card = device.Device(torch, "cuda", 50 * 2**20)
    monkeypatch.setattr(backends, "names", lambda: ("cpp", "numpy"))
    found = card.ours("hesskern", lambda how: lambda: 1.0)
    assert (found.run, found.note) == (None, 'this hesskern has no backend "cuda"')

    def fails(name):
        raise ImportError("pip install hesskern[cuda]")

    monkeypatch.setattr(backends, "names", lambda: ("cpp", "cuda"))
    monkeypatch.setattr(backends, "get", fails)
    assert "does not load: pip install hesskern[cuda]" in card.ours("hesskern", lambda how: lambda: 1.0).note
    monkeypatch.setattr(backends, "get", lambda name: None)
    given = card.ours("hesskern", lambda how: lambda: (how.backend, how.array(7)))
    assert given.run() == ("cuda", 7)  # tensors are passed on as they are


def test_what_a_card_cannot_do_is_absent():
    here = device.Device(torch, "cpu", 0)

    def fails():
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    found = here.peer("graph", fails)
    assert found.run is None
    assert found.note == "not here: RuntimeError: operation not permitted when stream is capturing"


def test_ours_fails_where_it_cannot_be_made():
    here = device.Device(torch, "cpu", 0)

    def fails(how):
        raise TypeError("X is a Tensor")

    found = here.ours("hesskern", fails)
    with pytest.raises(TypeError, match="X is a Tensor"):
        found.run()


def test_buffers_are_more_than_the_cache_holds():
    card = device.Device(torch, "cuda", 50 * 2**20)
    for size in (2**20, 8 * 2**20, 2**30):
        assert card.turns(size) * size > 2 * card.cache
        assert card.turns(size) >= 2
    assert device.Device(torch, "cpu", 0).turns(8) == 2


def test_buffers_are_written_in_turn():
    here = device.Device(torch, "cpu", 0)
    buffers = [np.zeros(1) for _ in range(3)]
    run = here.rotating(buffers, lambda out: out.__iadd__(1))
    assert [id(run()) for _ in range(4)] == [id(buffers[k]) for k in (1, 2, 0, 1)]
    assert [float(buffer[0]) for buffer in buffers] == [1, 2, 1]


def test_results_that_are_kept_are_not_in_the_same_place():
    here = device.Device(torch, "cpu", 0)
    run = here.keeping(lambda: torch.empty(1000), 4000)
    assert run().data_ptr() != run().data_ptr()


class FakeEvent:
    """A CUDA event whose clock is a list of what happened."""

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.happened.append("record")

    def synchronize(self):
        self.happened.append("wait")

    def elapsed_time(self, end):
        return 3.0  # milliseconds


def test_a_card_is_timed_by_events_and_waited_for():
    happened = FakeEvent.happened = []
    cuda = SimpleNamespace(Event=FakeEvent, synchronize=lambda: happened.append("idle"))
    card = device.Device(SimpleNamespace(cuda=cuda), "cuda", 0)
    assert card.timer(lambda: happened.append("run"))(2) == pytest.approx(3e-3)
    assert happened == ["idle", "record", "run", "run", "record", "wait"]


def test_a_graph_is_captured_after_warming_up_and_replayed():
    happened = []

    class Within:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            happened.append(f"{self.name} begins")

        def __exit__(self, *error):
            happened.append(f"{self.name} ends")

    stream = SimpleNamespace(wait_stream=lambda other: None)
    cuda = SimpleNamespace(
        Stream=lambda: stream, current_stream=lambda: stream, stream=lambda beside: Within("beside"),
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: happened.append("replay")),
        graph=lambda recorded: Within("capture"),
    )  # fmt: skip
    card = device.Device(SimpleNamespace(cuda=cuda), "cuda", 0)
    replay = card.graph(lambda: happened.append("run") or "result")
    assert happened == ["beside begins", "run", "run", "run", "beside ends", "capture begins", "run", "capture ends"]
    assert replay() == "result"
    assert happened[-1] == "replay"


def test_floors_write_and_multiply_what_they_say():
    here = device.Device(torch, "cpu", 0)
    buffers = [here.empty(3, 3) for _ in range(2)]
    filled, zeroed, copied = floors.stores(here, buffers)
    assert (filled.run() == 0.5).all()
    assert (zeroed.run() == 0).all()
    assert (copied.run() == 0).all()
    one, two = (floors.products(here, adds, np.float64)[0] for adds in (1e6, 2e6))
    assert one.units == 2 * two.units


def test_wrong_contestants_are_caught():
    here = device.Device(torch, "cpu", 0)
    for module in TASKS:
        for make in module.problems(here, True):
            problem = make()
            right = next(c for c in problem.contestants if c.name.startswith("torch") and c.run is not None).run()
            assert problem.error(right) <= problem.tolerance
            assert not problem.error(spoiled(right)) <= problem.tolerance, problem.label


def spoiled(result):
    """The result with one of its numbers changed a little."""
    if hasattr(result, "_replace"):
        return result._replace(weights=spoiled(result.weights))
    if isinstance(result, tuple):
        return (spoiled(result[0]), *result[1:])
    moved = result.detach().clone()
    moved.reshape(-1)[0] += 1e-4 * (1 + moved.abs().max())
    return moved


def test_a_condition_number_that_is_wrong_is_caught():
    here = device.Device(torch, "cpu", 0)
    problem = ensembles.problems(here, True)[-1]()
    right = next(c for c in problem.contestants if c.name == "torch bmm in place").run()
    assert problem.error(right) <= problem.tolerance
    assert problem.error(right._replace(conditions=right.conditions * 1.001)) > problem.tolerance


def test_what_takes_too_long_is_left_out(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "TIMING", -1.0)
    here = device.find(dry=True)
    run = command.timed(here, command.Settings(quick=True), [module.NAME for module in TASKS], tmp_path)
    assert [task["problems"] for task in run["tasks"]] == [[]] * len(TASKS)
    assert "cuda_hvp: its time is over, 4 of 4 problems are left out" in capsys.readouterr().err


def test_a_run_that_is_cut_off_keeps_the_tasks_before(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "TIMING", -1.0)
    monkeypatch.setattr(products, "problems", cut_off)
    with pytest.raises(KeyboardInterrupt):
        command.timed(device.find(dry=True), command.Settings(), [module.NAME for module in TASKS], tmp_path)
    assert [task["name"] for task in runs.load(str(tmp_path / "run.json"))["tasks"]] == [assembly.NAME]
    assert (tmp_path / "run.md").read_text().count("### cuda_") == 1
    assert f"timing {products.NAME}, task 2 of 4" in capsys.readouterr().err


def cut_off(*arguments):
    raise KeyboardInterrupt


def test_a_check_that_hangs_is_cut_off_with_all_it_started(tmp_path, capsys):
    # Its child holds the output open and would run on for a minute.
    script = (
        "import os, subprocess, sys, time\nprint('begun', flush=True)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open('child', 'w').write(str(child.pid))\ntime.sleep(60)"
    )
    began = time.monotonic()
    failed = command.checked("tests", [sys.executable, "-c", script], tmp_path, 3.0)
    assert time.monotonic() - began < 30
    assert failed == "tests cut off after 3 s: ['begun']"
    told = capsys.readouterr().err.splitlines()
    assert told == ["tests: at most 3 s", "tests: cut off after 3 s, see tests.txt"]
    child = (tmp_path / "child").read_text()
    until = time.monotonic() + 20
    while runs_on(child) and time.monotonic() < until:
        time.sleep(0.1)
    assert not runs_on(child)


def runs_on(process):
    """Whether a process is there and no zombie (never, where there is no /proc)."""
    try:
        return "State:\tZ" not in (Path("/proc") / process / "status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(("code", "failed"), [("print(1)", ""), ("print(1); 1 / 0", "validate failed: ")])
def test_a_check_says_whether_it_passed(code, failed, tmp_path, capsys):
    said = command.checked("validate", [sys.executable, "-c", code], tmp_path, 60.0)
    assert said.startswith(failed)
    assert bool(said) == bool(failed)
    assert (tmp_path / "validate.txt").read_text().startswith("1\n")


def test_checks_and_timing_leave_time_of_ten_minutes():
    assert command.VALIDATING + command.TESTING + command.TIMING <= 600 - 120


def test_the_make_target_is_there():
    done = subprocess.run(
        ["make", "-n", "bench-cuda", "OUT=somewhere"], capture_output=True, text=True, cwd=benches.ROOT, check=False,
        env=os.environ | {"PYTHON": sys.executable},
    )  # fmt: skip
    if "not found" in done.stderr:
        pytest.skip("no make")
    assert done.returncode == 0, done.stderr
    assert "--no-build-isolation --no-deps" in done.stdout
    assert "-m bench.cuda --out somewhere" in done.stdout
    assert Path(benches.ROOT / "bench" / "cuda" / "__main__.py").exists()
