"""The Hessian of the last layer of any model, against autograd's with respect to that layer."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from looped import few_quick

torch = pytest.importorskip("torch")
from last_layer_models import CLASS_WEIGHTS, C, Convolutions, N, Reshaped, agree, autograd, head_only, targets  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import hesskern as hk  # noqa: E402
import hesskern.torch  # noqa: E402
from hesskern.torch import last_layer_hessian  # noqa: E402

SQUARED = {
    "half_sum": lambda a, b: 0.5 * (a - b).square().sum(),
    "sum": nn.MSELoss(reduction="sum"),
    "mean": nn.MSELoss(),
}


@pytest.mark.parametrize(
    ("kind", "bias"), few_quick([pytest.param(kind, bias) for kind in SQUARED for bias in (False, True)], 2)
)
def test_squared_loss(X, kind, bias):
    torch.manual_seed(0)
    model = Convolutions(bias=bias).double().eval()
    Y = torch.randn(N, C, dtype=torch.float64)
    expected = head_only(model, X, lambda out: SQUARED[kind](out, Y))
    loader = DataLoader(TensorDataset(X, Y), batch_size=5)  # 5, 5, 5, 5 and 3 samples
    for loss in (kind, SQUARED[kind]):
        H = last_layer_hessian(model, loader, loss)
        assert isinstance(H, hk.KroneckerHessian)
        agree(H.toarray(), expected)
        v = np.random.default_rng(0).standard_normal((len(expected), 2))
        agree(H @ v, expected @ v)
    np.testing.assert_allclose(H.eigvalsh(), np.linalg.eigvalsh(expected), atol=1e-12 * H.spectrum().max)
    assert H.cond() == pytest.approx(np.linalg.cond(expected), rel=1e-9)
    agree((H.toarray() + 0.5 * np.eye(len(expected))) @ H.solve(v, damping=0.5), v)
    other = last_layer_hessian(model, (X, torch.zeros_like(Y)), kind)  # no functional part: targets do not matter
    agree(other.toarray(), expected)


def test_it_is_the_block_of_the_whole_models_hessian(model, X):
    """With everything before the layer in the graph."""
    loss, Y = nn.CrossEntropyLoss(), targets("labels")
    expected = autograd(model, X, lambda out: loss(out, Y))
    names, size = [name for name, _ in model.named_parameters()], (8 + 1) * C
    assert names[:2] == ["head.weight", "head.bias"]
    agree(last_layer_hessian(model, (X, Y), loss).toarray(), expected[:size, :size])


def test_differences_agree_too(model, X):
    """The third witness: second differences of the loss, by numbers alone."""
    loss, Y = nn.CrossEntropyLoss(CLASS_WEIGHTS, label_smoothing=0.1), targets("labels")
    H = last_layer_hessian(model, (X, Y), loss)
    features = H.features
    theta = torch.cat([model.head.weight.detach().reshape(-1), model.head.bias.detach()]).numpy()

    def value(flat):
        logits = features @ flat[: 8 * C].reshape(C, 8).T + flat[8 * C :]
        return float(loss(torch.from_numpy(logits), Y))

    rng, step = np.random.default_rng(0), 1e-3
    for _ in range(3):
        v = rng.standard_normal(len(theta))
        points = [value(theta + k * step * v) for k in range(-2, 3)]
        curvature = np.array([-1, 16, -30, 16, -1]) @ points / (12 * step**2)
        assert v @ (H @ v) == pytest.approx(curvature, rel=1e-7)


def test_float32_models_give_float32_operators(X):
    torch.manual_seed(0)
    model = Convolutions().eval()
    for Y, loss in ((torch.randn(N, C), nn.MSELoss()), (targets("labels"), nn.CrossEntropyLoss())):
        H = last_layer_hessian(model, (X.float(), Y), loss)
        exact = last_layer_hessian(
            model.double(), (X.float().double(), Y.double() if Y.is_floating_point() else Y), loss
        )
        model.float()
        assert H.dtype == np.float32
        np.testing.assert_allclose(H.toarray(), exact.toarray(), atol=1e-5 * np.abs(exact.toarray()).max())
        assert H.cond() == pytest.approx(exact.cond(), rel=1e-4)
        assert H.condition().rank == exact.condition().rank


def test_condition_numbers_are_from_factors():
    """Of features whose singular values span nine orders of magnitude, the matrix has lost the smallest."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Identity(), nn.Linear(3, 2, bias=False)).double()
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    X = torch.randn(400, 3, dtype=torch.float64) * torch.tensor([1.0, 1e-4, 1e-9]) @ rotation
    H = last_layer_hessian(model, DataLoader(TensorDataset(X, X[:, :2]), batch_size=7))
    expected = np.linalg.cond(X.numpy()) ** 2
    assert H.rank() == 6
    assert H.cond() == pytest.approx(expected, rel=1e-5)
    assert np.linalg.cond(H.toarray()) != pytest.approx(expected, rel=0.1)
    softmax = last_layer_hessian(model, (X, torch.zeros(400, dtype=torch.int64)), nn.functional.cross_entropy)
    assert softmax.rank() == 3


def test_sequences_single_outputs_and_named_layers():
    torch.manual_seed(0)
    tokens = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    X, Y = torch.randn(5, 3, 4, dtype=torch.float64), torch.randn(5, 3, 2, dtype=torch.float64)
    expected = autograd(tokens[2], tokens[:2](X).detach(), lambda out: nn.MSELoss()(out, Y))
    agree(last_layer_hessian(tokens, (X, Y), nn.MSELoss(), layer="2").toarray(), expected)

    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 1)

        def forward(self, x):
            return self.fc(x).squeeze(-1)

    single = Squeezed().double()
    expected = autograd(single.fc, X[:, 0], lambda out: nn.MSELoss()(out.squeeze(-1), Y[:, 0, 0]))
    H = last_layer_hessian(single, (X[:, 0], Y[:, 0, 0].contiguous()), nn.MSELoss(), layer=single.fc)
    agree(H.toarray(), expected)
    with pytest.raises(ValueError, match=r"Y of data has shape \(5, 1\); expected \(5,\)"):
        last_layer_hessian(single, (X[:, 0], Y[:, 0, :1]), nn.MSELoss())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 3}, "model is a int"),
        ({"layer": "heads"}, "layer is 'heads'; expected an nn.Linear of the model, or its name: one of .'head'."),
        ({"data": []}, "data holds no batches"),
        ({"data": [3]}, "batch 0 of data is a int; expected a pair"),
        ({"loss": "huber"}, "loss is 'huber'"),
        ({"loss": nn.L1Loss()}, "not a squared loss"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, "which does not return one number"),
        ({"loss": nn.CrossEntropyLoss(torch.tensor([1.0, -1.0, 1.0]))}, "class weights that are negative"),
        ({"Y": torch.full((N,), 3)}, "Y of data holds the class number 3; expected 0 to 2"),
        ({"Y": torch.full((N,), -100)}, "no samples that count"),
        ({"Y": torch.zeros(N, 2)}, r"Y of data has shape \(23, 2\); expected class probabilities \(23, 3\)"),
        ({"Y": torch.full((N, C), -1.0)}, "Y of data holds negative numbers"),
        ({"Y": torch.zeros(N, dtype=torch.int32)}, "Y of data is torch.int32"),
        ({"Y": torch.zeros(N, 1, dtype=torch.int64)}, r"Y of data has shape \(23, 1\); expected \(23,\)"),
        (
            {"X": torch.full((N, 1, 6), torch.nan).double()},
            "the layer 'head' has NaN or infinite",
        ),
    ],
)
def test_bad_input(model, X, change, message):
    given = {"model": model, "X": X, "Y": targets("labels"), "loss": nn.CrossEntropyLoss(), "layer": None} | change
    data = given.get("data", (given["X"], given["Y"]))
    with pytest.raises((TypeError, ValueError), match=message):
        last_layer_hessian(given["model"], data, given["loss"], layer=given["layer"])


def test_the_model_is_left_as_it_was(model, X):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    last_layer_hessian(model, (X, targets("labels")), nn.CrossEntropyLoss())
    assert all((value == before[name]).all() for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


RESHAPES = {
    "as it is": (3, lambda out: out),
    "flat samples": (3, lambda out: out.flatten(1)),
    "flat tokens": (3, lambda out: out.flatten(0, 1)),
    "all flat": (3, lambda out: out.flatten()),
    "one output": (1, lambda out: out.squeeze(-1)),
    "one output, flat": (1, lambda out: out.reshape(-1)),
    "one output as it is": (1, lambda out: out),
    "other rows": (3, lambda out: out.view(len(out), 3, 4)),
    "another dimension": (3, lambda out: out.unsqueeze(1)),
    "pairs": (3, lambda out: out.reshape(-1, 2)),
}
FUNCTIONS = {
    "sum": lambda a, b: (a - b).square().sum(),
    "mean": lambda a, b: (a - b).square().mean(),
    "by samples": lambda a, b: (a - b).square().sum() / len(a),
    "mean of the first, sum of the others": lambda a, b: (a - b).square().mean(0).sum(),
    "sum of the first, mean of the others": lambda a, b: (
        (a - b).square().flatten(1).mean(1).sum() if a.ndim > 1 else (a - b).square().sum()
    ),
    "by the second dimension": lambda a, b: (a - b).square().sum() / (a.shape[1] if a.ndim > 1 else 1),
    "last mean": lambda a, b: (a - b).square().mean(-1).sum(),
    "last sum": lambda a, b: (a - b).square().sum(-1).mean(),
    "flattened in the loss": lambda a, b: (a.flatten() - b.flatten()).square().mean(),
    "norm": lambda a, b: torch.linalg.vector_norm(a - b) ** 2,
    "MSELoss": nn.MSELoss(),
    "MSELoss sum": nn.MSELoss(reduction="sum"),
    "mse_loss": nn.functional.mse_loss,
}


@pytest.mark.parametrize("reshape", few_quick(RESHAPES, 4))
def test_losses_in_the_shape_that_the_model_returns(reshape):
    torch.manual_seed(0)
    model, X = Reshaped(*RESHAPES[reshape]).double(), torch.randn(10, 4, 6, dtype=torch.float64)
    Y = torch.randn_like(model(X))
    batches = [X[:4], X[4:8], X[8:]]
    sizes = [len(model(each)) for each in batches]
    loader = list(zip(batches, Y.split(sizes), strict=True))
    for name, loss in FUNCTIONS.items():
        expected = autograd(model.head, X, lambda out, loss=loss: loss(model.reshape(out), Y))
        dependent = name in ("last mean", "last sum") and Y.ndim == 1  # of all numbers: no multiple of len(a) or 1
        if not dependent:
            for data in ((X, Y), loader):
                agree(last_layer_hessian(model, data, loss).toarray(), expected)
        else:
            agree(last_layer_hessian(model, (X, Y), loss).toarray(), expected)


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: (a - b).square().sum() * (1 if len(a) < 5 else 2),
        lambda a, b: (a - b).square().sum() / min(len(a), 5),
        lambda a, b: (a - b).square()[:4].sum(),
        lambda a, b: (a - b).square().mean() if a.requires_grad else (a - b).square().sum(),
        lambda a, b: (a - b).abs().sum() if len(a) > 4 else (a - b).square().sum(),
        lambda a, b: (a - b).square().sum() if a.abs().sum() == 0 or len(a) < 5 else (a - b).pow(4).sum(),
    ],
)
def test_losses_that_are_others_on_real_batches_are_refused(loss):
    torch.manual_seed(0)
    model, X = Reshaped(3, lambda out: out.flatten(1)).double(), torch.randn(10, 4, 6, dtype=torch.float64)
    for data in (
        (X, torch.randn(10, 12).double()),
        [(X[:3], torch.randn(3, 12).double()), (X, torch.randn(10, 12).double())],
    ):
        with pytest.raises(ValueError, match=r"loss_fn \(<lambda>\) (is another loss for|has the values of)"):
            last_layer_hessian(model, data, loss)


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x).detach()


def test_a_result_without_its_derivative_is_refused(X):
    with pytest.raises(ValueError, match="but not its derivative with respect to the weight"):
        last_layer_hessian(Detached().double(), (X[:, 0], torch.randn(N, C).double()), "mean")


def heads(outputs, X):
    """Condition of one layer's block through both doors: the layer of a chain, and the last layer of a model."""
    data = torch.tensor(X), torch.ones(len(X), outputs, dtype=torch.float64)
    model = nn.Sequential(nn.Identity(), nn.Linear(X.shape[1], outputs, bias=False)).double()
    yield hesskern.torch.condition(model, nn.MSELoss(), data).decision
    yield last_layer_hessian(model, data, nn.MSELoss()).condition()


@pytest.mark.parametrize("seed", range(4))
def test_dependent_features_are_told(seed):
    """Samples are reduced while they are read: their last rows may be rounding errors and nothing else."""
    X = np.random.default_rng(seed).integers(-3, 4, (40, 5)).astype(float)
    X[:, 4] = X[:, 0] + X[:, 1] - X[:, 2]
    values = oracle.singular_values(X)
    assert len(values) == 4
    for found in heads(2, X):
        assert (found.rank, found.size) == (8, 10)
        assert oracle.relative_error(found.value, (values[0] / values[-1]) ** 2) <= 10 * found.uncertainty


@pytest.mark.parametrize("scale", [1e-10, 1e-14, 1e-16, 1e-25])
def test_samples_of_two_sizes_are_right_or_doubted(scale):
    X = np.random.default_rng(0).standard_normal((40, 5))
    X[:36] *= scale
    values = oracle.singular_values(X)
    for found in heads(2, X):
        error = oracle.relative_error(found.value, (values[0] / values[-1]) ** 2)
        assert error <= 10 * found.uncertainty or (found.rank < 10 and found.gap < 1e3)


@pytest.mark.parametrize("bias", [False, True])
def test_few_samples_of_many_features(bias):
    """Their number is what the factors are as large as; the rank is what autograd's matrix has."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, C, bias=bias)).double()
    X, labels, Y = torch.randn(6, 3).double(), torch.randint(C, (6,)), torch.randn(6, C).double()
    features, size = model[:2](X).detach(), 6
    for targets_, loss, left in ((labels, nn.CrossEntropyLoss(), C - 1), (Y, nn.MSELoss(), C)):
        expected = autograd(model[2], features, lambda out, y=targets_, f=loss: f(out, y))
        H = last_layer_hessian(model, (X, targets_), loss)
        values = np.linalg.eigvalsh(expected)
        np.testing.assert_allclose(H.eigvalsh(), values, atol=1e-14)
        found = H.condition()
        assert (found.rank, found.undecided) == (left * size, 0)
        assert found.value == pytest.approx(values[-1] / values[-left * size], rel=1e-9)
        agree(H.toarray(), expected)
    softmax = last_layer_hessian(model, (X, labels), nn.CrossEntropyLoss())
    assert softmax.reduction.startswith(f"{C * (40 + bias)} parameters to {(C - 1) * size};")


def test_two_hundred_thousand_parameters_of_few_samples():
    """The matrix would take 300 GiB, the factor of all features 240 GiB."""
    torch.manual_seed(0)
    model, X = nn.Linear(20_000, 10).double(), torch.randn(5, 20_000).double() / 100
    H = last_layer_hessian(model, (X, torch.randint(10, (5,))), nn.CrossEntropyLoss())
    K = last_layer_hessian(model, (X, torch.randn(5, 10).double()), nn.MSELoss())
    assert (H.rank(), K.rank()) == (45, 50)
    values, vectors = H.eigh(2)
    np.testing.assert_allclose(H @ vectors, vectors * values, atol=1e-13 * values[-1])
