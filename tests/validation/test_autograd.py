"""Autograd as a witness: it leaves PyTorch as it was, and a zero residual is no trap."""

from __future__ import annotations

import numpy as np
import problems
import pytest

pytest.importorskip("torch")
from hesskern.validation.autograd import AutogradWitness
from hesskern.validation.case import Training, ValidationCase


def weighed(problem):
    return ValidationCase("", problem.network(), problem.loss())


def test_torch_is_left_as_it_was():
    import torch

    given = weighed(problems.normal([3, 4, 2], 6))
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            witness = AutogradWitness(given)
            assert np.isfinite(witness.hessian()).all()
            witness.train(Training("", 0.01, 2))
            assert torch.is_inference_mode_enabled()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(state, torch.get_rng_state())


def test_a_residual_of_zero_is_no_trap():
    """torch.norm(error) ** 2 has a NaN there."""
    problem = problems.normal([3, 4, 2], 6)
    Y = problem.X @ problem.weights[0].T @ problem.weights[1].T
    given = weighed(problems.Problem(problem.weights, problem.biases, problem.X, Y))
    assert np.isfinite(AutogradWitness(given).hessian()).all()
