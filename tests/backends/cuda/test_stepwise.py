"""Training by matrix products, for networks that do not fit into shared memory, against the plain loop."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from host_descents import NETS, STEPS, descents, piece, plain, starts

from hesskern.backends.cuda.shared_memory_kernel import Limits


def nothing_fits(device):
    return Limits(processors=1, block_bytes=0, processor_bytes=0)


def no_launch(*_, **__):
    raise AssertionError("a kernel was launched")


@pytest.mark.parametrize("method", [{}, {"momentum": 0.8}, {"momentum": 0.8, "nesterov": True}], ids=str)
def test_steps_are_those_of_the_plain_loop(method):
    running = descents(no_launch, nothing_fits, **method)
    assert "several launches a step" in running.execution
    seen = running.advance(piece(0, STEPS))
    for k, theta in enumerate(starts()):
        wanted = plain(theta, **method)
        np.testing.assert_allclose(running.states.parameters[k], wanted.thetas[-1], rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(seen.losses[k], wanted.losses[:-1], rtol=1e-12)
    assert running.states.steps.tolist() == [STEPS] * NETS


def test_one_that_has_stopped_keeps_its_parameters():
    theta = starts()
    share = min(plain(one).losses[3] / plain(one).losses[0] for one in theta)
    running = descents(no_launch, nothing_fits, rtol=share * (1 + 1e-9))
    running.advance(piece(0, STEPS))
    converged = running.states.status == 1
    assert converged.any()
    stopped = running.states.parameters[converged].clone()
    running.advance(piece(STEPS, 2))
    assert torch.equal(running.states.parameters[converged], stopped)


def test_one_that_overflows_is_put_back():
    running = descents(no_launch, nothing_fits)
    running.advance(piece(0, STEPS, 1e80))
    assert running.states.status.tolist() == [2] * NETS and torch.isfinite(running.states.parameters).all()
