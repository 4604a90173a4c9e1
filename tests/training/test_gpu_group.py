"""Ensembles on a GPU against the same calls in main memory."""

from __future__ import annotations

import dataclasses

import numpy as np
import problems
import pytest

import hesskern as hk

pytest.importorskip("torch")
import torch
from device_runs import both_ensembles, close, ensemble, host, there

pytestmark = pytest.mark.usefixtures("place")


def test_an_ensemble(execution):
    nets, loss = ensemble(5)
    record = ("loss", "sharpness", "condition[0.weight]", "rank", "smallest[1]", "2/lr")
    runs = both_ensembles(nets, loss, lr=[0.001, 0.002, 0.003, 30.0, 0.004], max_steps=30, rtol=0.6, record=record,
                          record_every=4)  # fmt: skip
    assert set(runs.status) == {"converged", "diverged", "max_steps"} - ({"max_steps"} - set(runs.status))
    assert runs.network(1).device == "cuda:0"


def test_minibatches_of_each(execution):
    nets, loss = ensemble(3, weight_decay=0.1, kind="mean")
    both_ensembles(nets, loss, lr=0.02, max_steps=9, batch_size=4, seed=[1, 2, 1], record=("loss", "batch_loss"))
    both_ensembles(nets, loss, lr=0.02, max_steps=9, batch_size=4, seed=3, rtol=0.9, record=())


def test_losses_of_each(execution):
    nets, _ = ensemble(3)
    losses = [dataclasses.replace(problems.normal([4, 12, 3], 10, seed), kind="sum").loss() for seed in (1, 2, 3)]
    both_ensembles(nets, losses, lr=np.full((3, 8), 0.002), max_steps=8, record=("loss", "sharpness", "condition[1]"))
    both_ensembles(nets, losses, lr=lambda step: [0.001, 0.002, 0.003], max_steps=8, batch_size=3, seed=[1, 2, 3])


def test_a_stack():
    nets, loss = ensemble(4)
    moved_nets, lost = there(nets, loss)
    stack = hk.NetworkStack.of(moved_nets)
    assert stack.device == "cuda:0"
    assert "4 networks, 4-12-3, bias, float64 on cuda:0" in repr(stack)
    wanted = hk.fit_ensemble(moved_nets, lost, lr=0.002, max_steps=5)
    for given in (stack, stack[:]):
        found = hk.fit_ensemble(given, lost, lr=0.002, max_steps=5)
        assert all((a == b).all() for a, b in zip(found.weights, wanted.weights, strict=True))
    here = hk.NetworkStack([host(w) for w in stack.weights], [host(b) for b in stack.biases])
    assert hk.fit_ensemble(here, loss, lr=0.002, max_steps=5).history["loss"] == pytest.approx(wanted.history["loss"])


def test_a_stack_of_lower_rank():
    """Rounding in directions that a network does not have is not trained: its basis comes from the CPU."""
    nets, loss = ensemble(3, widths=(3, 9, 2))
    odd = [w.copy() for w in nets[1].weights]
    odd[0][:, 2] = odd[0][:, 1]
    nets[1] = hk.LinearNetwork(odd, nets[1].biases)
    runs = both_ensembles(nets, loss, lr=0.004, max_steps=50)
    moved_weight = host(runs.weights[0][1])
    assert np.linalg.matrix_rank(np.concatenate([moved_weight, host(runs.weights[1][1]).T], axis=1)) <= 5


def test_pieces_change_no_bit(execution, monkeypatch):
    if execution == "stepwise" and torch.cuda.is_available():
        pytest.skip("cuBLAS")
    nets, loss = ensemble(3)
    options = dict(lr=0.003, max_steps=40, momentum=0.5, record=("loss", "gradient_norm"), record_every=3)
    moved_nets, lost = there(nets, loss)
    whole = hk.fit_ensemble(moved_nets, lost, **options)
    monkeypatch.setattr("hesskern.training.gpu_group._FIRST_PIECE", 1)
    pieces = hk.fit_ensemble(moved_nets, lost, **options)
    alone = hk.fit_ensemble(moved_nets[1:2], lost, **options)
    for name, column in whole.history.items():
        np.testing.assert_array_equal(pieces.history[name], column)
        if name != "step":
            np.testing.assert_array_equal(alone.history[name][0], column[1])
    for a, b, c in zip(whole.weights, pieces.weights, alone.weights, strict=True):
        assert (a == b).all()
        assert execution == "stepwise" or (a[1] == c[0]).all()


def test_a_diverging_network_leaves_the_others_their_conditions():
    """On its way its factors overflow before its parameters do."""
    nets = [hk.LinearNetwork.random([4, 3, 3, 3], seed=seed) for seed in range(3)]
    _, loss = ensemble(1, widths=(4, 3, 3, 3))
    moved_nets, lost = there(nets, loss)
    options = {"max_steps": 12, "record": ("loss", "condition[0]", "condition[2]", "rank[1]")}
    wanted = hk.fit_ensemble(nets[:2], loss, lr=0.001, **options)
    for rate in (5.0, 1e4, 1e80):
        runs = hk.fit_ensemble(moved_nets, lost, lr=[0.001, 0.001, rate], **options)
        assert runs.status.tolist() == ["max_steps", "max_steps", "diverged"]
        assert hk.fit(nets[2], loss, lr=rate, **options).status == "diverged"
        for name in options["record"]:
            close(runs.history[name][:2], wanted.history[name])
