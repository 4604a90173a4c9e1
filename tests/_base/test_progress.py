"""Progress bars."""

from __future__ import annotations

import sys

import pytest

from hesskern._base.progress import progress_bar, with_progress


def test_a_bar(capsys):
    pytest.importorskip("tqdm")
    bar = progress_bar(300, initial=100)
    bar.update(50)
    bar.close()
    shown = capsys.readouterr().err
    assert "150/300" in shown and "step" in shown


def test_items_beside_a_bar(capsys):
    pytest.importorskip("tqdm")
    assert list(with_progress(["a", "b"], label="letters", argument="progressbar")) == ["a", "b"]
    shown = capsys.readouterr().err
    assert "letters" in shown and "2.00/2.00" in shown


def test_the_bar_is_closed_if_the_work_fails(capsys):
    pytest.importorskip("tqdm")
    for item in with_progress(["a", "b"], label="letters", argument="progressbar"):
        assert item == "a"
        break
    assert "1.00/2.00" not in capsys.readouterr().out


def test_without_tqdm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r'progressbar=True needs tqdm.*pip install "hesskern\[progress\]"'):
        list(with_progress([1], label="one", argument="progressbar"))
