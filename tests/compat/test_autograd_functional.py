"""The same call as torch.autograd.functional's, and the same result in the same structure."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from functional_cases import SIDE, W1, W2, X, Y, b1, b2, product, same  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from hesskern.compat import autograd_functional  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def test_one_tensor_and_single_precision():
    def function(W):
        return F.mse_loss(X.float() @ SIDE.float() @ W.T, Y.float())

    found = autograd_functional.hessian(function, W2.float().requires_grad_())
    same(found, torch.autograd.functional.hessian(function, W2.float()), 1e-5)
    assert not found.requires_grad


def test_what_is_not_used_is_zero_or_strictly_an_error():
    def function(W1, b1, W2):
        return F.mse_loss(X @ W1.T @ W2.T, Y)

    found = autograd_functional.hessian(function, (W1, b1, W2), vectorize=True)
    same(found, torch.autograd.functional.hessian(function, (W1, b1, W2)))
    assert not found[1][1].any()
    with pytest.raises(ValueError, match=r"strict is True, but func does not depend on inputs\[1\]"):
        autograd_functional.hessian(function, (W1, b1, W2), strict=True)


W = torch.randn(2, 3, dtype=torch.float64)


VECTOR = torch.randn(3, dtype=torch.float64)


MORE = {
    "one output": lambda w, b1, W2, b2: (X @ w - Y[:, 0]).square().mean(),
    "one output, as a method": lambda w, b1, W2, b2: F.mse_loss(X.mv(w), Y[:, 1]),
    "one output, as a function": lambda w, b1, W2, b2: (torch.mv(X, w) - Y[:, 1]).pow(2).sum(),
    "one output of a layer": lambda w, b1, W2, b2: (X @ SIDE @ W2.T @ b2 - Y[:, 0]).square().sum(),
    "no targets": lambda w, b1, W2, b2: (X @ SIDE @ W2.T).pow(2).sum(),
    "no targets, a norm": lambda w, b1, W2, b2: torch.linalg.norm(X @ SIDE @ W2.T + b2) ** 2,
    "no targets, a product": lambda w, b1, W2, b2: product(X @ SIDE @ W2.T + b2),
    "scaled": lambda w, b1, W2, b2: F.mse_loss((X @ SIDE @ W2.T + b2) / 3**0.5, Y),
    "scaled, subtracted from": lambda w, b1, W2, b2: (Y - 2 * (X @ SIDE @ W2.T) * -0.5).square().sum(),
    "two constants": lambda w, b1, W2, b2: (Y - X @ SIDE @ W2.T + Y.flip(0)).square().sum(),
    "three constants": lambda w, b1, W2, b2: (Y.sin() - (-(Y - 2 * (X @ SIDE @ W2.T)) / 5 + Y.flip(0))).square().sum(),
    "rsub": lambda w, b1, W2, b2: torch.rsub(X @ SIDE @ W2.T * 3, Y).square().sum(),
    "mse_loss of a difference": lambda w, b1, W2, b2: F.mse_loss(Y, 0.3 * (X @ SIDE @ W2.T) - Y.cos()),
    "reshaped between": lambda w, b1, W2, b2: ((2 * (X @ SIDE @ W2.T) - Y).reshape(-1) - Y.reshape(-1)).square().sum(),
}


@pytest.mark.parametrize("name", MORE)
def test_more_ways_to_write_a_squared_loss(name):
    function, args = MORE[name], (VECTOR, b1, W2, b2)
    found, expected = autograd_functional.hessian(function, args), torch.autograd.functional.hessian(function, args)
    same(found, tuple(tuple(row) for row in expected))
