"""Files are written as a whole or not at all, wherever the package writes one."""

from __future__ import annotations

import json
import os
import stat
import threading
import warnings

import numpy as np
import pytest
from children import child, train
from looped import each

import hesskern as hk
from hesskern._base import atomic_write
from hesskern.training.checkpoint import CheckpointWarning

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links")
NET = hk.LinearNetwork.random([3, 4, 2], seed=0)
LOSS = hk.SquaredLoss(np.ones((5, 3)), np.ones((5, 2)))


def fit(path, **options):
    return hk.fit(NET, LOSS, lr=1e-3, max_steps=4, checkpoint=path, **options)


WRITERS = {"save": NET.save, "checkpoint": fit}


@posix
@each("writer", WRITERS)
def test_links_are_followed_and_stay(tmp_path, writer):
    tmp_path = tmp_path / writer
    real, link = tmp_path / "disk" / "real.npz", tmp_path / "link.npz"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"old")
    link.symlink_to(real)
    WRITERS[writer](link)
    assert link.is_symlink() and zipped(real)
    assert sorted(os.listdir(tmp_path)) == ["disk", "link.npz"] and os.listdir(real.parent) == ["real.npz"]
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    with pytest.raises((OSError, ValueError), match="not an ordinary file"):
        WRITERS[writer](tmp_path / "broken")
    assert not (tmp_path / "nowhere").exists()


def zipped(path):
    return path.read_bytes().startswith(b"PK")


@posix
@each("writer", WRITERS)
def test_nobody_can_prepare_the_temporary_file(tmp_path, writer):
    """Its name is not known before, and nothing that is there already is opened."""
    tmp_path = tmp_path / writer
    tmp_path.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("state.npz.partial", "state.npz.tmp", ".state.npz.partial"):
        (tmp_path / name).symlink_to(victim)
    WRITERS[writer](tmp_path / "state.npz")
    assert victim.read_text() == "precious" and not (tmp_path / "state.npz").is_symlink()


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another user")
def test_a_link_of_somebody_else_in_a_folder_open_to_all_is_not_followed(tmp_path):
    folder, victim = tmp_path / "open", tmp_path / "victim"
    folder.mkdir()
    folder.chmod(0o1777)
    victim.write_text("precious")
    (folder / "net.npz").symlink_to(victim)
    os.chown(folder / "net.npz", 12345, 12345, follow_symlinks=False)
    with pytest.raises(PermissionError, match="a symbolic link of another user"):
        NET.save(folder / "net.npz")
    assert victim.read_text() == "precious"


@posix
@each(("umask", "before", "after"), [(0o022, None, 0o644), (0o077, None, 0o600), (0o022, 0o640, 0o640)])
@each("writer", WRITERS)
def test_permissions_are_those_of_open(tmp_path, writer, umask, before, after):
    path = tmp_path / f"{writer}{umask}{before}.npz"
    if before is not None:
        path.write_bytes(b"old")
        path.chmod(before)
    old = os.umask(umask)
    try:
        WRITERS[writer](path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == after


@each("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("no")])
def test_what_was_there_stays_when_writing_fails(tmp_path, error):
    path = tmp_path / "net.npz"
    path.write_bytes(b"old")

    def content(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)) as caught:
        atomic_write.write(path, "path", content)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["net.npz"]
    if isinstance(error, OSError):
        assert str(caught.value) == f"path is {str(path)!r}: cannot write: No space left on device."


WRONG = [True, False, 0, 1, 2.0, b"x", None, [], object(), np.int64(1)]


@each("path", WRONG)
def test_what_is_no_path(tmp_path, path, capfd):
    for write in (NET.save, hk.LinearNetwork.load):
        with pytest.raises(TypeError, match=r"^path is .*expected the path of a file"):
            write(path)
    if path is not None:
        for name in ("checkpoint", "resume"):
            with pytest.raises(TypeError, match=rf"^{name} is .*expected the path of a file"):
                hk.fit(NET, LOSS, lr=1e-3, max_steps=4, **{name: path})
    assert capfd.readouterr().out == ""


@each("path", ["", "a\0b", "\ud800"])
def test_text_that_names_no_file(path):
    for write in (NET.save, hk.LinearNetwork.load, fit):
        with pytest.raises(ValueError, match="cannot be the name of a file"):
            write(path)


def test_long_names(tmp_path):
    """A name of the greatest length is one: the temporary name is not longer."""
    path = tmp_path / ("n" * 251 + ".npz")
    NET.save(path)
    fit(path)
    assert os.listdir(tmp_path) == [path.name]


def test_many_writers_of_one_path(tmp_path):
    path = tmp_path / "state.npz"
    nets = [hk.LinearNetwork.random([3, 4, 2], seed=seed) for seed in range(4)]
    errors = []

    def write(net):
        try:
            for _ in range(10):
                net.save(path)
                hk.LinearNetwork.load(path)
        except Exception as error:
            errors.append(error)

    workers = [threading.Thread(target=write, args=(net,)) for net in nets]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == [] and os.listdir(tmp_path) == ["state.npz"]


def test_leftovers_of_the_killed_go_and_those_of_the_living_stay(tmp_path):
    path = tmp_path / "state.npz"
    dead, other = tmp_path / f"state.npz.{'0' * 16}.partial", tmp_path / "state.npz.mine.partial"
    dead.write_bytes(b"half")
    other.write_bytes(b"not ours")

    def content(file):
        file.write(b"being written")
        atomic_write.remove_leftovers(path)

    atomic_write.write(path, "path", content)
    assert path.read_bytes() == b"being written"
    assert sorted(os.listdir(tmp_path)) == ["state.npz", other.name]


LOST = """
import json, os, resource, signal, warnings
from children import train
name, path, options, limit = map(json.loads, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    run = train(name, checkpoint=path, **options)
print(json.dumps([[each.category.__name__, each.message.last, str(each.message)] for each in caught]))
print(json.dumps([run.status, run.steps, float(run.history["loss"][-1])]))
"""


@posix
def test_a_run_outlives_its_checkpoints(tmp_path):
    """The disk fills up during the run: it is returned, with a warning now and one at the end."""
    name, path = "full width", tmp_path / "state.npz"
    train(name, max_steps=20, checkpoint=path, checkpoint_every=20)
    before = path.read_bytes()
    options = {"max_steps": 300, "backend": "cpp"}
    with child(LOST, name, str(path), options | {"checkpoint_every": 50}, 1000) as process:
        output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    warned, ended = map(json.loads, output.splitlines())
    assert [each[:2] for each in warned] == [["CheckpointWarning", False], ["CheckpointWarning", True]]
    assert all(str(path) in message and "File too large" in message for *_, message in warned)
    whole = train(name, **options)
    assert ended == [whole.status, whole.steps, whole.history["loss"][-1]]
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["state.npz"]


def test_a_checkpoint_that_fails_in_the_middle_only(tmp_path, monkeypatch):
    path, write, failed = tmp_path / "state.npz", atomic_write.write, []

    def full_for_a_while(*arguments, **options):
        if len(failed) < 3:
            failed.append(1)
            raise OSError(28, "No space left on device")
        write(*arguments, **options)

    monkeypatch.setattr(atomic_write, "write", full_for_a_while)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = fit(path, checkpoint_every=1)
    assert run.status == "max_steps" and path.exists()
    assert [(each.category, each.message.last) for each in caught] == [(CheckpointWarning, False)]
    assert issubclass(CheckpointWarning, RuntimeWarning) and "No space left" in str(caught[0].message)
