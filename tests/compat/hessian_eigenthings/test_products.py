"""hessian-eigenthings' operators: products side by side with the library."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from eigenthings_cases import EVEN, MSE, half_sum, matrix, net  # noqa: E402

from hesskern.compat.hessian_eigenthings import (  # noqa: E402
    HessianOperator,
    supervised_loss,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


@pytest.mark.parametrize("criterion", [MSE, half_sum], ids=["mean", "sum"])
def test_products_side_by_side(criterion):
    library = pytest.importorskip("hessian_eigenthings")
    if not hasattr(library, "HessianOperator"):
        pytest.skip("hessian_eigenthings before 1.0")
    v = torch.randn(matrix().shape[0], dtype=torch.float64)
    for options in ({}, {"num_batches": 1}, {"method": "finite_difference"}):
        ours = HessianOperator(net(), EVEN, supervised_loss(criterion), **options)
        real = library.HessianOperator(net(), EVEN, library.supervised_loss(criterion), **options)
        assert (ours.size, ours.dtype, ours.device) == (real.size, real.dtype, real.device)
        assert torch.allclose(ours @ v, real @ v, rtol=1e-5, atol=1e-8)
        assert torch.allclose(ours(v), real.matvec(v), rtol=1e-5, atol=1e-8)
    chosen = {"param_filter": library.match_names("1.*")}
    ours = HessianOperator(net(), EVEN, library.supervised_loss(criterion), **chosen)
    real = library.HessianOperator(net(), EVEN, library.supervised_loss(criterion), **chosen)
    assert torch.allclose(ours @ v[: ours.size], real @ v[: real.size])
