"""Progress bars: shown on request, and without influence."""

from __future__ import annotations

import sys

import numpy as np
import problems
import pytest
from trainings import starts

import hesskern as hk


def test_one_network(backend, capsys):
    pytest.importorskip("tqdm")
    problem = problems.normal([3, 6, 2], 3)
    plain = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=300)
    shown = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=300, progress=True)
    assert "300/300" in capsys.readouterr().err
    np.testing.assert_array_equal(plain.network.flatten(), shown.network.flatten())


def test_without_tqdm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    problem = problems.normal([3, 6, 2], 3)
    with pytest.raises(ImportError, match=r'progress=True needs tqdm.*pip install "hesskern\[progress\]"'):
        hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=3, progress=True)


def test_an_ensemble(backend, capsys):
    pytest.importorskip("tqdm")
    problem = problems.normal([3, 6, 2], 3)
    nets = starts(problem)
    plain = hk.fit_ensemble(nets, problem.loss(), lr=0.001, max_steps=300)
    shown = hk.fit_ensemble(nets, problem.loss(), lr=0.001, max_steps=300, progress=True)
    assert "100%" in capsys.readouterr().err
    np.testing.assert_array_equal(plain.weights[0], shown.weights[0])


def test_a_resumed_run_starts_where_it_stood(backend, capsys, tmp_path):
    pytest.importorskip("tqdm")
    problem, path = problems.normal([3, 6, 2], 3), tmp_path / "state.npz"
    hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=100, checkpoint=path, checkpoint_every=50)
    assert capsys.readouterr().err == ""
    hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=300, resume=path, progress=True)
    assert "300/300" in capsys.readouterr().err


def test_a_run_that_ends_early_does_not_claim_all_steps(backend, capsys):
    pytest.importorskip("tqdm")
    problem = problems.normal([3, 6, 2], 3)
    run = hk.fit(problem.network(), problem.loss(), lr=0.05, max_steps=10**6, rtol=1e-3, progress=True)
    assert run.status == "converged"
    shown = capsys.readouterr().err
    assert "100%" not in shown


def test_nothing_is_shown_unless_asked_for(backend, capsys):
    problem = problems.normal([3, 6, 2], 3)
    hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=300)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
