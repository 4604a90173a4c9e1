"""hessian-eigenthings of both versions: the same calls, exact numbers in the place of its estimates."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from eigenthings_cases import EVEN, MSE, UNEVEN, X, Y, half_sum, matrix, net  # noqa: E402
from torch import nn  # noqa: E402

import hesskern.torch  # noqa: E402
from hesskern.compat.hessian_eigenthings import (  # noqa: E402
    HessianOperator,
    HVPOperator,
    compute_hessian_eigenthings,
    lanczos,
    supervised_loss,
    trace,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


# The library's example of a small network, linear and in few lines; only the first lines are others.
SCRIPT = """
import torch
from torch import nn
model = nn.Sequential(nn.Linear(20, 32), nn.Linear(32, 16), nn.Linear(16, 1)).to(torch.float64)
x = torch.randn(256, 20, dtype=torch.float64)
y = x @ torch.randn(20, 1, dtype=torch.float64) + 0.1 * torch.randn(256, 1, dtype=torch.float64)
dataloader = [(x[i : i + 32], y[i : i + 32]) for i in range(0, 256, 32)]
operator = HessianOperator(model=model, dataloader=dataloader, loss_fn=supervised_loss(nn.functional.mse_loss))
eig_result = lanczos(operator, k=5, max_iter=40, tol=1e-7, seed=0)
trace_result = trace(operator, num_matvecs=99, method="hutch++", seed=0)
"""


def test_the_example_with_another_import():
    library = pytest.importorskip("hessian_eigenthings")
    if not hasattr(library, "HessianOperator"):
        pytest.skip("hessian_eigenthings before 1.0")
    found = []
    for module in ("hessian_eigenthings", "hesskern.compat.hessian_eigenthings"):
        names = {}
        exec(f"from {module} import HessianOperator, lanczos, supervised_loss, trace" + SCRIPT, names)
        found.append(names)
    real, ours = (names["eig_result"] for names in found)
    assert ours.eigenvalues.shape == real.eigenvalues.shape and ours.eigenvectors.shape == real.eigenvectors.shape
    # Theirs are as near to an eigenvalue as their residuals, the last ones of which have not converged.
    assert ((ours.eigenvalues - real.eigenvalues).abs() <= real.residuals + 1e-9).all()
    assert torch.allclose((ours.eigenvectors[:1] * real.eigenvectors[:1]).sum(1).abs(), torch.ones(1).double())
    assert (ours.residuals < 1e-10 * ours.eigenvalues.abs()).all() and ours.converged.all()
    estimate = found[0]["trace_result"]
    assert abs(found[1]["trace_result"].estimate - estimate.estimate) <= 6 * estimate.stderr
    # The library's own algorithms take our operator.
    theirs = library.lanczos(found[1]["operator"], k=5, max_iter=40, tol=1e-7, seed=0)
    assert torch.allclose(theirs.eigenvalues[:3], real.eigenvalues[:3], rtol=1e-6)


@pytest.mark.parametrize("mode", ["power_iter", "lanczos"])
def test_the_first_version_side_by_side(mode):
    library = pytest.importorskip("hessian_eigenthings")
    if not hasattr(library, "compute_hessian_eigenthings"):
        pytest.skip("hessian_eigenthings since 1.0")
    options = {
        "power_iter": {"power_iter_steps": 400, "power_iter_err_threshold": 1e-10},
        "lanczos": {"max_steps": 200},
    }
    arguments = net(), torch.utils.data.DataLoader(EVEN, batch_size=None), MSE, 3
    real = library.compute_hessian_eigenthings(*arguments, mode=mode, use_gpu=False, **options[mode])
    ours = compute_hessian_eigenthings(*arguments, mode=mode, use_gpu=False, **options[mode])
    np.testing.assert_allclose(ours[0], real[0], rtol=1e-5)
    np.testing.assert_allclose(abs((ours[1] * real[1]).sum(1)), 1, atol=1e-3)
    v = torch.randn(matrix().shape[0], dtype=torch.float64)
    operator = library.HVPOperator(*arguments[:3], use_gpu=False)
    expected = operator.apply(v).double()  # in float32 whatever the model is
    assert torch.allclose(HVPOperator(*arguments[:3], use_gpu=False).apply(v), expected, rtol=1e-5, atol=1e-6)


def test_a_sum_is_divided_by_the_number_of_batches():
    found = HVPOperator(net(), UNEVEN, half_sum, use_gpu=False).apply(torch.ones(21).double())
    assert torch.allclose(found, hesskern.torch.hessian(net(), half_sum, (X, Y)) @ torch.ones(21).double() / 2)


def test_parameters_that_are_changed_are_followed():
    model = net()
    operator = HessianOperator(model, EVEN, supervised_loss(MSE))
    with torch.no_grad():
        model[0].weight.mul_(2.0)
    assert trace(operator).estimate == pytest.approx(float(hesskern.torch.hessian(model, MSE, (X, Y)).trace()))


def test_parameters_that_forward_does_not_use_have_zeros():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.spare, self.last = nn.Linear(4, 3), nn.Linear(2, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.last(self.first(x))

    model = Spare().double()
    H = hesskern.torch.hessian(model, MSE, (X, Y))
    for which in ("LM", "LA", "SA"):
        found = lanczos(HessianOperator(model, EVEN, supervised_loss(MSE)), k=len(H), which=which)
        assert torch.allclose(found.eigenvectors @ found.eigenvectors.T, torch.eye(len(H)).double(), atol=1e-10)
        assert torch.allclose(found.eigenvectors.T * found.eigenvalues @ found.eigenvectors, H, atol=1e-10)


def penalised(model, batch):
    return MSE(model(batch[0]), batch[1]) + sum(p.square().sum() for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": nn.Sequential(nn.Linear(4, 2), nn.Tanh())}, "Tanh.*keep hessian_eigenthings.HessianOperator"),
        ({"loss_fn": supervised_loss(nn.functional.l1_loss)}, "not a squared loss.*keep hessian_eigenthings"),
        ({"loss_fn": penalised}, "depends on the model through its predictions only"),
        ({"full_dataset": False}, "full_dataset is False"),
        ({"method": "guess"}, "method is 'guess'"),
        ({"param_filter": lambda name, parameter: False}, "param_filter takes no parameter"),
        ({"loss_fn": supervised_loss(half_sum), "microbatch_size": 2}, "microbatch_size is 2"),
    ],
    ids=["model", "loss", "penalty", "batches", "method", "filter", "microbatches"],
)
def test_refused(change, message):
    arguments = {"model": net(), "dataloader": EVEN, "loss_fn": supervised_loss(MSE)}
    with pytest.raises(ValueError, match=message):
        HessianOperator(**(arguments | change))


def test_refused_by_the_first_version():
    with pytest.raises(ValueError, match="mode is 'arpack'"):
        compute_hessian_eigenthings(net(), EVEN, MSE, mode="arpack", use_gpu=False)
    with pytest.raises(TypeError, match="which is not an argument with mode='power_iter'"):
        compute_hessian_eigenthings(net(), EVEN, MSE, which="LM", use_gpu=False)
    with pytest.raises(ValueError, match="fp16 is True"):
        compute_hessian_eigenthings(net(), EVEN, MSE, fp16=True, use_gpu=False)
    with pytest.raises(ValueError, match="num_eigenthings is 99"):
        compute_hessian_eigenthings(net(), EVEN, MSE, 99, use_gpu=False)
    with pytest.raises(ValueError, match=r"keep hessian_eigenthings\.compute"):
        compute_hessian_eigenthings(net(), EVEN, nn.functional.cross_entropy, use_gpu=False)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device; expected use_gpu=False"):
            compute_hessian_eigenthings(net(), EVEN, MSE)
    with pytest.raises(TypeError, match="keep hessian_eigenthings' own functions"):
        trace(object())
    with pytest.raises(ValueError, match=r"v has shape \(3,\)"):
        HVPOperator(net(), EVEN, MSE, use_gpu=False).apply(torch.ones(3))
