"""What the operators of both versions share: the problem over all batches, and products that are checked."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from eigenthings_cases import EVEN, MSE, X, Y, matrix, net  # noqa: E402

from hesskern.compat.hessian_eigenthings.shared import live_problem, product, refuse_single_batches  # noqa: E402
from hesskern.compat.live_parameters import CountedBatches  # noqa: E402
from hesskern.torch.losses import recognised  # noqa: E402
from hesskern.torch_modules.tracing import trace  # noqa: E402


@pytest.fixture
def problem():
    model = net()
    chain, batches = trace(model), CountedBatches(EVEN, torch.device("cpu"))
    scale = recognised(MSE, [2], torch.device("cpu"))
    return live_problem(model, chain, scale, batches, batches, dict(model.named_parameters())).problem


def test_it_is_the_problem_of_all_batches(problem):
    torch.testing.assert_close(problem.dense(), matrix())
    value, _ = problem.value_and_gradient()
    torch.testing.assert_close(value, MSE(net()(X), Y).detach())


def test_products_are_checked(problem):
    v = torch.randn(problem.size, dtype=torch.float64, requires_grad=True)
    found = product(problem, v)
    torch.testing.assert_close(found, matrix() @ v.detach())
    assert not found.requires_grad
    for bad, error, message in (
        (v[:3], ValueError, r"v has shape \(3,\); expected a tensor of shape"),
        ("v", ValueError, "v is a str; expected a tensor of shape"),
        (v.float(), TypeError, "v is torch.float32 on cpu; expected torch.float64 on cpu"),
    ):
        with pytest.raises(error, match=message):
            product(problem, bad)


def test_operators_that_are_others_at_each_product_are_refused():
    refuse_single_batches(True)
    with pytest.raises(ValueError, match="full_dataset is False, with which each product would use another batch"):
        refuse_single_batches(False)
    with pytest.raises(TypeError, match="full_dataset is 1"):
        refuse_single_batches(1)
