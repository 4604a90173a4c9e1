"""PyHessian's hessian: the same calls, exact numbers in the place of its estimates."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import hesskern.torch  # noqa: E402
from hesskern.compat.pyhessian import hessian  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:Using backward:UserWarning")

torch.manual_seed(0)
X, Y = torch.randn(12, 4, dtype=torch.float64), torch.randn(12, 2, dtype=torch.float64)
EVEN = [(X[:6], Y[:6]), (X[6:], Y[6:])]
UNEVEN = [(X[:8], Y[:8]), (X[8:], Y[8:])]


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2, bias=False)).double()


def matrix(model, **options):
    return hesskern.torch.hessian(model.eval(), nn.MSELoss(**options), (X, Y))


def flat(vectors):
    return torch.cat([part.reshape(-1) for part in vectors])


@pytest.mark.parametrize(("reduction", "batches"), [("mean", EVEN), ("mean", UNEVEN), ("sum", EVEN)])
def test_products_side_by_side(reduction, batches):
    library = pytest.importorskip("pyhessian")
    model, criterion = net(), nn.MSELoss(reduction=reduction)
    ours = hessian(model, criterion, dataloader=batches, cuda=False)
    real = library.hessian(net(), criterion, dataloader=batches, cuda=False)
    v = [torch.randn_like(p) for p in ours.params]
    (found, left), (expected, right) = ours.dataloader_hv_product(v), real.dataloader_hv_product(v)
    assert found == pytest.approx(expected, rel=1e-10)
    for one, other in zip(left, right, strict=True):
        assert one.shape == other.shape and torch.allclose(one, other, rtol=1e-9, atol=1e-12)


# PyHessian's tutorial in few lines, on a linear network; only the first line is another.
SCRIPT = """
import numpy as np, torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)).double()
inputs, targets = torch.randn(40, 6).double(), torch.randn(40, 3).double()
criterion = nn.MSELoss()
hessian_comp = hessian(model, criterion, data=(inputs, targets), cuda=False)
top_eigenvalues, top_eigenvector = hessian_comp.eigenvalues(maxIter=500, tol=1e-8, top_n=2)
trace = np.mean(hessian_comp.trace(maxIter=300, tol=1e-6))
"""


def test_the_tutorial_with_another_import():
    pytest.importorskip("pyhessian")
    found = []
    for module in ("pyhessian", "hesskern.compat.pyhessian"):
        names = {}
        exec(f"from {module} import hessian" + SCRIPT, names)
        found.append(names)
    real, ours = found
    np.testing.assert_allclose(ours["top_eigenvalues"], real["top_eigenvalues"], rtol=1e-4)
    for one, other in zip(ours["top_eigenvector"], real["top_eigenvector"], strict=True):
        assert [part.shape for part in one] == [part.shape for part in other]
        assert abs(flat(one) @ flat(other)) == pytest.approx(1, abs=1e-3)
    assert ours["trace"] == pytest.approx(real["trace"], rel=0.05)  # theirs is an estimate


def test_density_side_by_side():
    library = pytest.importorskip("pyhessian")
    model = net()
    real = library.hessian(model, nn.MSELoss(), data=(X, Y), cuda=False)
    try:
        found = real.density(iter=21)
    except RuntimeError as error:  # the version on PyPI calls torch.eig, which PyTorch has no more
        pytest.skip(f"pyhessian: {str(error)[:60]}")
    ours = hessian(model, nn.MSELoss(), data=(X, Y), cuda=False).density(iter=21)
    moments = []
    for values, weights in (found, ours):
        values, weights = np.array(values), np.array(weights).real
        assert values.shape == weights.shape and len(values) == 1
        assert weights.sum() == pytest.approx(1, abs=1e-3)
        moments.append((values.min(), values.max()))
    # Their quadrature's nodes begin and end where ours, all eigenvalues, do.
    np.testing.assert_allclose(*moments, rtol=1e-3)


def test_exact_without_the_library():
    model = net()
    found = hessian(model, nn.MSELoss(), dataloader=UNEVEN, cuda=False)
    assert not model.training
    H = matrix(model)
    exact = torch.linalg.eigvalsh(H)
    values, vectors = found.eigenvalues(top_n=4)
    np.testing.assert_allclose(values, sorted(exact.tolist(), key=abs, reverse=True)[:4], rtol=1e-9)
    for value, vector in zip(values, vectors, strict=True):
        assert [part.shape for part in vector] == [p.shape for p in found.params]
        assert torch.allclose(H @ flat(vector), value * flat(vector), atol=1e-9)
        assert float(flat(vector).norm()) == pytest.approx(1)
    assert found.trace() == [pytest.approx(float(H.trace()))]
    nodes, weights = found.density(n_v=2)
    assert nodes[0] == nodes[1] and weights[0] == weights[1]
    counts = np.rint(np.array(weights[0]) * len(H)).astype(int)
    np.testing.assert_allclose(np.sort(np.repeat(nodes[0], counts)), exact.numpy(), atol=1e-10 * float(exact[-1]))


def test_a_sum_over_uneven_batches_is_divided_by_their_number():
    model = net()
    found = hessian(model, nn.MSELoss(reduction="sum"), dataloader=UNEVEN, cuda=False)
    assert found.trace()[0] == pytest.approx(float(matrix(model, reduction="sum").trace()) / 2)


def test_changed_and_frozen_parameters():
    model = net()
    model[0].weight.requires_grad_(False)
    found = hessian(model, nn.MSELoss(), data=(X, Y), cuda=False)
    before = found.trace()
    with torch.no_grad():
        model[0].weight.mul_(3.0)  # frozen, but part of the model
    assert found.trace() != before
    assert found.trace()[0] == pytest.approx(float(matrix(model).trace()))
    assert [p.shape for p in found.params] == [(3,), (2, 3)]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": nn.Sequential(nn.Linear(4, 2), nn.Tanh()).double()}, ValueError, "Tanh.*keep pyhessian.hessian"),
        ({"criterion": nn.CrossEntropyLoss()}, ValueError, "CrossEntropyLoss.*keep pyhessian.hessian"),
        ({"data": None}, ValueError, "neither is given"),
        ({"dataloader": EVEN}, ValueError, "both are given"),
        ({"cuda": True}, ValueError, "cuda is True, but the model is on cpu"),
    ],
    ids=["model", "criterion", "neither", "both", "cuda"],
)
def test_refused(change, error, message):
    with pytest.raises(error, match=message):
        hessian(**({"model": net(), "criterion": nn.MSELoss(), "data": (X, Y), "cuda": False} | change))


def test_refused_later():
    found = hessian(net(), nn.MSELoss(), data=(X, Y), cuda=False)
    with pytest.raises(ValueError, match="top_n is 99"):
        found.eigenvalues(top_n=99)
    with pytest.raises(ValueError, match="v has the shapes"):
        found.dataloader_hv_product([X])
