"""Malformed calls and commands: a fixed sample of what tests/attack/malformed.py makes, and the command line."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
from attack import malformed

import hesskern as hk
from hesskern.cli.main import main

#: Found once, now fixed cases.
FIXED = (
    "hk.Spectrum([], []).max", "hk.KFAC(net, None)", "hk.fit(net, loss, lr=.1, max_steps=1, record_every=2**70)",
    "hk.use_backend([])", "hk.predicted_rank(3, 2)", "hk.LinearNetwork.random(5)", "hk.explain(10**400, net, loss)",
    "hk.LinearNetwork.random([3, 2], seed=np.matrix([[1, 2], [3, 4]]))", "H @ np.array(['1'] * 20)", "H @ masked(v)",
    "H @ [masked(v), masked(v)]", "hk.SquaredLoss(masked(X), Y)", "hk.LinearNetwork.random([2, 2], bias='no')",
    "H.eigh(1, dense='no')", "hk.fit(net, loss, lr=.1, max_steps=1, backend='')", "hk.Spectrum([1.0], [1.9])",
    "hk.fit(net, loss, lr=.1, max_steps=1, momentum=np.timedelta64(1))", "stack[True]", "runs.network(2.0)",
    "hk.Spectrum([1.0, 2.0], [2**62, 2**62])", "hk.Spectrum([1.0], [-1])", "H.toarray(out=masked(np.empty((20, 20))))",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of numpy.matrix
@pytest.mark.parametrize("line", FIXED)
def test_what_was_found(line):
    with pytest.raises((TypeError, ValueError)) as caught:
        eval(line, malformed.namespace())
    assert not malformed.INTERNAL.search(str(caught.value)), caught.value
    assert "expected" in str(caught.value) or "empty" in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_sample_of_malformed_calls():
    """Not those of paths, which have their own tests."""
    some = (case for case in malformed.cases(7) if "load(" not in case[0] and "save(" not in case[0])
    wrong = [found for found in malformed.in_children(itertools.islice(some, 400)) if found[1]]
    assert wrong == []


def test_dir_lists_the_public_names():
    assert dir(hk) == sorted(hk.__all__)
    assert all(getattr(hk, name) is not None for name in dir(hk))


COMMANDS = (
    "", "nonsense", "fit", "fit --nonsense", "fit --net {net}", "fit --net {net} --X {X} --Y {Y}",
    *(f"fit --net {{net}} --X {{X}} --Y {{Y}} --lr 0.1 {rest}" for rest in (
        "--lr x", "--lr nan", "--lr -1", "--lr inf", "--max-steps 0", "--max-steps 1.5",
        "--max-steps 99999999999999999999",
        "--batch-size 0", "--seed -1", "--seed x", "--momentum -1", "--nesterov", "--record nonsense",
        "--record-every 0",
        "--reduce x", "--backend fortran", "--backend", "--kind x", "--weight-decay -1", "--checkpoint-every 2",
        "--resume {folder}/none", "--out {folder}/none/x.npz", "--history {folder}/x.exe", "--widths 3,2", "extra",
    )),
    "fit --widths 0,2 --X {X} --Y {Y} --lr 0.1", "fit --widths 3 --X {X} --Y {Y} --lr 0.1",
    "fit --widths a --X {X} --Y {Y} --lr 0.1", "fit --net {folder}/none.npz --X {X} --Y {Y} --lr 0.1",
    "fit --net {X} --X {X} --Y {Y} --lr 0.1", "fit --net {net} --X {folder} --Y {Y} --lr 0.1",
    "fit --net {net} --X {Y} --Y {X} --lr 0.1", "validate --backend x", "validate --directions 0", "validate --seed x",
    "validate --net {net}", "validate nonsense", "demo --backend x", "demo --plot {folder}/x.zzz", "demo x", "info x",
    "info --json x",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_malformed_command_is_refused_in_one_sentence(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hk.LinearNetwork.random([3, 2], seed=0).save(tmp_path / "net.npz")
    np.save(tmp_path / "X.npy", np.ones((6, 3)))
    np.save(tmp_path / "Y.npy", np.ones((6, 2)))
    names = {"net": tmp_path / "net.npz", "X": tmp_path / "X.npy", "Y": tmp_path / "Y.npy", "folder": tmp_path}
    assert main(command.format(**names).split()) == 2
    said = capsys.readouterr()
    last = said.err.strip().splitlines()[-1]
    assert said.out == ""
    assert last.startswith("hesskern")
    assert len(said.err.split("usage:")[-1].splitlines()) == 1 or "usage:" in said.err
    assert not malformed.INTERNAL.search(last.replace("too large", "")), last
