"""Code is run from folders only that nobody else can write to."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from pathlib import Path

import pytest
from looped import each

from hesskern._base import trusted

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions")


def nested(tmp_path):
    folder = tmp_path / "a" / "b"
    trusted.make(folder)
    return folder


def test_what_is_made_is_trusted_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        folder = nested(tmp_path)
    finally:
        os.umask(before)
    assert trusted.distrust(folder) is None
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700


@each(("mode", "right"), [(0o777, False), (0o775, False), (0o757, False), (0o755, True), (0o1777, None)])
def test_folders_that_others_can_write_to(tmp_path, mode, right):
    """A sticky folder may stand above, and is itself none for code."""
    folder = nested(tmp_path)
    for place in (folder, folder.parent):
        place.chmod(mode)
        expected = (place == folder.parent) if right is None else right
        assert (trusted.distrust(folder) is None) == expected, oct(mode)
        place.chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away")
def test_folders_of_others(tmp_path):
    folder = nested(tmp_path)
    for place in (folder, folder.parent):
        os.chown(place, 12345, 12345)
        assert "belongs to another user" in trusted.distrust(folder)
        os.chown(place, 0, 0)


def test_a_link_is_as_good_as_where_it_lies_and_where_it_points(tmp_path):
    folder, link = nested(tmp_path), tmp_path / "open" / "link"
    link.parent.mkdir(mode=0o700)
    link.symlink_to(folder)
    assert trusted.distrust(link) is None
    for place in (link.parent, folder):
        place.chmod(0o777)
        assert trusted.distrust(link) is not None
        place.chmod(0o700)


def test_everything_in_a_folder(tmp_path):
    folder = nested(tmp_path)
    inner = folder / "entries"
    inner.mkdir()
    (inner / "code").write_bytes(b"")
    for place in (inner, inner / "code"):
        before = place.stat().st_mode
        place.chmod(0o777)
        assert trusted.distrust_all(folder) is None  # nobody gets there
        folder.chmod(0o755)
        assert repr(str(place)) in trusted.distrust_all(folder)
        folder.chmod(0o700)
        place.chmod(before)


SCRIPT = """
import json, sys, warnings
import numpy as np
warnings.simplefilter("always")
from hesskern.backends.numba_kernels import layout
with warnings.catch_warnings(record=True) as caught:
    layout.make_layout(np.array([2, 3, 1]), np.array([True, False]), 8)
print(json.dumps([sum(layout.make_layout.stats.cache_hits.values()), [str(each.message) for each in caught]]))
"""


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


@pytest.mark.long
def test_foreign_code_in_numbas_cache_is_not_run(tmp_path):
    pytest.importorskip("numba")
    from numba_cache import files, outcome, run

    cache, mark = tmp_path / "cache", tmp_path / "mark"
    assert outcome(run(cache, script=SCRIPT)) == [0, []]
    assert outcome(run(cache, script=SCRIPT)) == [1, []]
    (path,) = files(cache)
    assert path.stat().st_mode & 0o777 == 0o600
    evil = pickle.dumps(Evil(mark))
    evil = hashlib.sha256(evil).digest() + evil

    path.write_bytes(evil)  # a file that others can write to, in a folder that they cannot
    path.chmod(0o666)
    assert outcome(run(cache, script=SCRIPT)) == [0, []] and not mark.exists()
    assert path.stat().st_mode & 0o777 == 0o600 and outcome(run(cache, script=SCRIPT)) == [1, []]

    path.write_bytes(evil)
    cache.chmod(0o777)
    hits, warned = outcome(run(cache, script=SCRIPT))
    assert hits == 0 and not mark.exists()
    assert len(warned) == 1 and "can be written to by others" in warned[0] and "NUMBA_CACHE_DIR" in warned[0]


def test_foreign_kernels_in_the_cuda_cache_are_not_run(tmp_path, monkeypatch):
    pytest.importorskip("cuda.core")
    from hesskern.backends.cuda import kernels

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiled = []
    monkeypatch.setattr(kernels, "_compile", lambda *_: compiled.append(1) or b"code")
    kernels._warn.cache_clear()
    for _ in range(2):
        assert kernels.machine_code("assembly", "sm_90") == b"code"
    assert len(compiled) == 1  # kept, and found again
    entries = [path for path in Path(kernels.cache_folder()).rglob("*") if path.is_file()]
    assert entries
    kernels.cache_folder().chmod(0o777)
    for path in entries:
        path.write_bytes(hashlib.sha256(b"evil").digest() + b"evil")
    with pytest.warns(UserWarning, match=r"cannot be kept \(.*can be written to by others\).*XDG_CACHE_HOME"):
        assert kernels.machine_code("assembly", "sm_90") == b"code"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert kernels.cache_folder() == Path.home() / ".cache" / "hesskern"


def test_it_knows_nothing_of_windows(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["hesskern._base.trusted"].os, "name", "nt")
    tmp_path.chmod(0o777)
    assert trusted._open_to_others(tmp_path, tmp_path.stat(), above=False) is None
