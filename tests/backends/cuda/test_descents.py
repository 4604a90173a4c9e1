"""Descents of several networks in one kernel, on its host twin: steps, pieces and states against the plain loop."""

from __future__ import annotations

import cuda_host
import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from host_descents import NETS, STEPS, descents, piece, plain, starts

METHODS = [{}, {"momentum": 0.8}, {"momentum": 0.8, "nesterov": True}]


@pytest.mark.parametrize("method", METHODS, ids=["plain", "heavy ball", "Nesterov"])
def test_steps_are_those_of_the_plain_loop(method):
    running = descents(cuda_host.launch, cuda_host.limits, **method)
    assert "in one launch" in running.execution
    seen = running.advance(piece(0, STEPS))
    for k, theta in enumerate(starts()):
        wanted = plain(theta, **method)
        np.testing.assert_allclose(running.states.parameters[k], wanted.thetas[-1], rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(running.states.previous[k], wanted.thetas[-2], rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(seen.losses[k], wanted.losses[:-1], rtol=1e-12)
    assert running.states.steps.tolist() == [STEPS] * NETS and running.states.status.tolist() == [0] * NETS


def test_pieces_and_saved_states_go_on_to_the_same_bits():
    whole, parts = (descents(cuda_host.launch, cuda_host.limits, momentum=0.8) for _ in range(2))
    whole.advance(piece(0, STEPS))
    parts.advance(piece(0, 3))
    again = descents(cuda_host.launch, cuda_host.limits, momentum=0.8)
    for there, saved in zip(again.states, parts.states, strict=True):
        there.copy_(saved)
    for some in (parts, again):
        some.advance(piece(3, STEPS - 3))
        assert torch.equal(some.states.parameters, whole.states.parameters)
        assert torch.equal(some.states.steps, whole.states.steps)


def test_networks_stop_one_by_one():
    theta = starts()
    share = sorted(plain(one).losses[4] / plain(one).losses[0] for one in theta)[1] * (1 + 1e-9)
    running = descents(cuda_host.launch, cuda_host.limits, rtol=share)
    running.advance(piece(0, STEPS))
    for k, one in enumerate(theta):
        losses = plain(one).losses
        small = np.flatnonzero(losses[:STEPS] <= share * losses[0])
        taken = small[0] + 1 if len(small) else STEPS
        assert int(running.states.steps[k]) == taken and int(running.states.status[k]) == int(len(small) > 0)
        np.testing.assert_allclose(running.states.parameters[k], plain(one).thetas[taken], rtol=1e-11, atol=1e-12)


def test_a_network_that_overflows_is_put_back():
    running = descents(cuda_host.launch, cuda_host.limits)
    running.advance(piece(0, STEPS, 1e80))
    assert running.states.status.tolist() == [2] * NETS and torch.isfinite(running.states.parameters).all()
    fresh = descents(cuda_host.launch, cuda_host.limits)
    fresh.advance(piece(0, 2))
    before = fresh.states.previous.clone()
    fresh.states.step_back(torch.tensor([True, False, True]))
    assert fresh.states.status.tolist() == [2, 0, 2] and fresh.states.steps.tolist() == [1, 2, 1]
    assert torch.equal(fresh.states.parameters[::2], before[::2])
