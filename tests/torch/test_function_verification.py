"""A function that is not the squared loss traced from it, by its values elsewhere or by its gradient, is refused."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from hesskern.torch.function_verification import is_constant, verify
from hesskern.torch.vector_slices import VectorSlice
from hesskern.torch_modules import tracing

X, Y = torch.linspace(-1, 1, 21).double().reshape(7, 3), torch.linspace(0, 2, 14).double().reshape(7, 2)


@pytest.fixture
def chain():
    return tracing.trace(nn.Sequential(nn.Linear(3, 2, bias=False, dtype=torch.float64)))


def check(function, chain, scale=2.0):
    weight = chain.parameters[0].tensor.detach().clone()
    verify(function, {"0.weight": weight}, {"0.weight": VectorSlice("0.weight", 0)}, chain, (X, Y), scale)


def squared_error(leaves):
    return (X @ leaves[0].T - Y).square().sum()


def test_the_loss_itself_passes(chain):
    check(squared_error, chain)


def test_a_constant_may_be_added(chain):
    check(lambda leaves: squared_error(leaves) + 3.0, chain)


def test_another_factor_is_refused(chain):
    with pytest.raises(ValueError, match="func is another function at other parameters"):
        check(squared_error, chain, scale=2.001)


def test_a_branch_on_the_parameters_is_refused(chain):
    start = float(chain.parameters[0].tensor.detach().sum())
    with pytest.raises(ValueError, match="func is another function at other parameters"):
        check(lambda leaves: squared_error(leaves) * (1.0 if float(leaves[0].sum()) == start else 2.0), chain)


def test_a_detached_factor_is_refused(chain):
    def half_detached(leaves):
        residual = X @ leaves[0].T - Y
        return (residual * residual.detach()).sum()

    with pytest.raises(ValueError, match=r"but another derivative with respect to 0\.weight"):
        check(half_detached, chain)


def test_constants():
    leaves = [torch.ones(2, 3).double()]
    assert is_constant(lambda leaves: torch.tensor(1.0), leaves)
    assert is_constant(lambda leaves: torch.tensor(1.0, requires_grad=True) * 2, leaves)
    assert not is_constant(lambda leaves: nn.functional.mse_loss(X @ leaves[0].T, Y), leaves)
