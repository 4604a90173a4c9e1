"""hessian-eigenthings' functions: exact numbers in the place of estimates."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from eigenthings_cases import EVEN, MSE, UNEVEN, X, Y, matrix, net  # noqa: E402
from torch import nn  # noqa: E402

import hesskern.torch  # noqa: E402
from hesskern.compat.hessian_eigenthings import (  # noqa: E402
    HessianOperator,
    compute_hessian_eigenthings,
    deflated_power_iteration,
    lanczos,
    supervised_loss,
    trace,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


@pytest.mark.parametrize("batches", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_exact_without_the_library(batches):
    H = matrix()
    exact = torch.linalg.eigvalsh(H)
    top = torch.tensor(sorted(exact.tolist(), key=abs, reverse=True)[:3], dtype=torch.float64)
    operator = HessianOperator(net(), batches, supervised_loss(MSE))
    v = torch.randn(len(H), dtype=torch.float64)
    assert torch.allclose(operator @ v, H @ v)
    for found in (lanczos(operator, k=3), deflated_power_iteration(operator, k=3)):
        assert torch.allclose(found.eigenvalues, top)
        assert torch.allclose(found.eigenvectors @ H, found.eigenvalues[:, None] * found.eigenvectors, atol=1e-10)
    assert torch.allclose(lanczos(operator, k=2, which="SA").eigenvalues, exact[:2])
    assert torch.allclose(lanczos(operator, k=2, which="LA").eigenvalues, exact.flip(0)[:2])
    assert trace(operator).estimate == pytest.approx(float(H.trace()))
    values, vectors = compute_hessian_eigenthings(net(), batches, MSE, 3, use_gpu=False, power_iter_steps=7)
    np.testing.assert_allclose(values, np.sort(top.numpy())[::-1])
    np.testing.assert_allclose(vectors @ H.numpy(), values[:, None] * vectors, atol=1e-10)
    values, _ = compute_hessian_eigenthings(net(), batches, MSE, 2, mode="lanczos", which="SA", use_gpu=False)
    np.testing.assert_allclose(values, exact[:2].numpy())


@pytest.mark.parametrize(("which", "repeated"), [("LM", False), ("LA", False), ("SA", True)])
def test_few_of_many_eigenpairs(which, repeated):
    """By Lanczos' method where it finds them; the smallest are repeated for each unit too many, and it does not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 60, bias=False), nn.Linear(60, 2, bias=False)).double()
    H = hesskern.torch.hessian(model, MSE, (X, Y))
    exact = torch.linalg.eigvalsh(H)
    order = exact.abs().argsort() if which == "LM" else exact.argsort(descending=which == "SA")
    found = lanczos(HessianOperator(model, EVEN, supervised_loss(MSE)), k=4, which=which)
    assert torch.allclose(found.eigenvalues, exact[order[-4:].flip(0)], atol=1e-12)
    assert torch.allclose(found.eigenvectors @ H, found.eigenvalues[:, None] * found.eigenvectors, atol=1e-12)
    assert torch.allclose(found.eigenvectors @ found.eigenvectors.T, torch.eye(4).double(), atol=1e-12)
    assert ((found.eigenvalues[0] - found.eigenvalues[-1]).abs() < 1e-12) == repeated
