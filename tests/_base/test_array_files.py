"""Files that are not what they say: one sentence, nothing run, no memory taken."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tracemalloc
import types

import numpy as np
import pytest
from attack import damage
from checkout import HELPERS
from looped import each

import hesskern as hk
from hesskern._base import array_files
from hesskern.cli import main as cli


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    return damage.Doors(tmp_path_factory.mktemp("damaged"))


ARCHIVES = [door for door, file in damage.Doors.FILES.items() if file.endswith(".npz")]


@each("name", damage.FIXED)
@pytest.mark.parametrize("door", ["load", "resume", "--net", "--X compressed"])
def test_damaged_archives(doors, door, name):
    content = (doors.folder / doors.FILES[door]).read_bytes()
    damaged = damage.FIXED[name](content)
    assert damaged != content
    assert damage.attempt(doors, door, damaged) is None


#: What is still a file of numbers.
READ = {"NaN", "a scalar", "four axes", "complex numbers", "text", "no entries"}


@each("name", damage.ARRAYS)
def test_damaged_arrays(doors, name):
    for door in ("--X npy", "explain"):
        assert damage.attempt(doors, door, damage.ARRAYS[name]) is None
    path = doors.folder / "alone.npy"
    path.write_bytes(damage.ARRAYS[name])
    if name not in READ:
        with pytest.raises(ValueError, match=r"^(it is damaged|the array)"):
            array_files.read_npy(str(path))


@pytest.mark.parametrize("door", damage.Doors.FILES)
def test_random_damage(doors, door):
    content = (doors.folder / doors.FILES[door]).read_bytes()
    for seed in range(12):
        damaged = damage.random_damage(content, np.random.default_rng(seed))
        assert damage.attempt(doors, door, damaged) is None, seed


@each("name", ["1e12 entries", "2**63 entries", "entries beyond any integer"])
def test_nothing_is_allocated_for_what_cannot_be_there(doors, name):
    path = doors.folder / "claims.npy"
    path.write_bytes(damage.ARRAYS[name])
    archive = doors.folder / "claims.npz"
    archive.write_bytes(damage.archive({"X.npy": damage.ARRAYS[name]}))
    tracemalloc.start()
    try:
        for read, file in ((array_files.read_npy, path), (array_files.read_npz, archive)):
            with pytest.raises(ValueError, match="claims shape"):
                read(str(file))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_bomb_is_refused_for_the_memory_it_would_take(doors, monkeypatch):
    """Fifty megabytes of zeros in fifty kilobytes: allowed where there is room, and asked for before they are made."""
    path = doors.folder / "zeros.npz"
    np.savez_compressed(path, X=np.zeros(50 << 17))
    assert path.stat().st_size < 100_000
    assert array_files.read_npz(str(path))["X"].nbytes == 50 << 20
    monkeypatch.setattr("psutil.virtual_memory", lambda: types.SimpleNamespace(available=1 << 20))
    with pytest.raises(MemoryError, match=r"takes 50\.0 MiB, but only 1\.0 MiB of memory is free"):
        array_files.read_npz(str(path))


@each("dtype", ["float32", "float64", "int8", "bool", "complex64", ">f8", "U5", "S3", "float16"])
def test_what_is_whole_is_read_as_numpy_reads_it(tmp_path, dtype):
    rng = np.random.default_rng(1)
    for shape, order in itertools.product([(), (0,), (3,), (3, 0), (2, 3), (2, 3, 4)], "CF"):
        array = np.asarray((10 * rng.standard_normal(shape)).astype(dtype), order=order)
        np.save(tmp_path / "a.npy", array)
        np.savez(tmp_path / "a.npz", a=array, b=array[..., None])
        np.savez_compressed(tmp_path / "c.npz", a=array)
        for found in (
            array_files.read_npy(str(tmp_path / "a.npy")),
            array_files.read_npz(str(tmp_path / "a.npz"))["a"],
            array_files.read_npz(str(tmp_path / "c.npz"))["a"],
        ):
            assert found.dtype == array.dtype and found.shape == array.shape
            np.testing.assert_array_equal(found, array)


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_pipes_devices_and_loops_do_not_hang(doors, capsys):
    pipe, loop, zero = doors.folder / "pipe.npz", doors.folder / "loop.npz", doors.folder / "zero.npz"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    zero.symlink_to("/dev/zero")
    for path in (pipe, loop, zero):
        with pytest.raises(OSError, match=re.escape(path.name)):
            hk.LinearNetwork.load(path)
        with pytest.raises(OSError, match=re.escape(path.name)):
            hk.fit(doors.net, doors.loss, max_steps=6, resume=path, **doors.options)
        for option in ("--net", "--X", "--Y", "--resume"):
            files = {name: str(doors.folder / f"{name}.npy") for name in "XY"} | {"net": str(doors.folder / "net.npz")}
            files[option[2:]] = str(path)
            given = [part for name, file in files.items() for part in (f"--{name}", file)]
            assert cli.main(["fit", "--lr", "1e-3", *given]) == 2
            assert capsys.readouterr().err.count("\n") == 1


def test_the_campaign_runs(tmp_path):
    command = [sys.executable, "-m", "attack.damage", "3", "5"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HELPERS), os.path.dirname(os.path.dirname(hk.__file__))])
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "3 damaged files, 0 wrong\n", done.stderr
