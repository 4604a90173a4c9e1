"""hesskern.torch against PyTorch itself: the same numbers, in the same shapes, order, dtype."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.func import functional_call  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import hesskern as hk  # noqa: E402
import hesskern.torch as ht  # noqa: E402

# torch.func compiles its decompositions with it, on first use.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


class Backwards(nn.Module):
    """Layers registered in another order than they are applied; one has a bias, one is frozen, one is not used."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 2, bias=False)
        self.spare = nn.Linear(1, 2)
        self.middle = nn.Linear(5, 4)
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(3, 5, bias=False))

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


def plain():
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4, bias=False), nn.Identity(), nn.Linear(4, 2))


MODELS = {"plain": plain, "backwards": Backwards, "one layer": lambda: nn.Linear(3, 2)}
LOSSES = {
    "mean": nn.MSELoss(),
    "sum": nn.MSELoss(reduction="sum"),
    "half sum": lambda a, b: 0.5 * ((a - b) ** 2).sum(),
    "rows": lambda a, b: (a - b).square().sum(1).mean(),
}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(3)
    return MODELS[request.param]().double()


@pytest.fixture
def data():
    torch.manual_seed(4)
    return torch.randn(11, 3, dtype=torch.float64), torch.randn(11, 2, dtype=torch.float64)


def function(model, loss_fn, data):
    return lambda params: loss_fn(functional_call(model, params, (data[0],)), data[1])


def theirs(model, loss_fn, data, names=None):
    """PyTorch's own nested dict over these parameters, others held fixed."""
    known = {name: parameter.detach() for name, parameter in model.named_parameters()}
    names = list(known) if names is None else names
    f = function(model, loss_fn, data)
    return torch.func.hessian(lambda part: f({**known, **part}))({name: known[name] for name in names})


def joined(nested):
    rows = []
    for name, row in nested.items():
        count = row[name].ndim // 2
        size = int(np.prod(row[name].shape[:count]))
        rows.append(torch.cat([block.reshape(size, -1) for block in row.values()], dim=1))
    return torch.cat(rows)


def close(found, expected, tolerance=1e-10):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("loss", LOSSES)
def test_the_same_nested_dict(model, data, loss):
    expected = theirs(model, LOSSES[loss], data)
    found = ht.hessian(model, LOSSES[loss], data, form="dict")
    assert list(found) == list(expected)
    largest = joined(expected).abs().max()
    for row, blocks in expected.items():
        assert list(found[row]) == list(blocks)
        for column, block in blocks.items():
            assert found[row][column].shape == block.shape
            assert found[row][column].is_contiguous()
            assert (found[row][column] - block).abs().max() <= 1e-12 * largest
    close(ht.hessian(model, LOSSES[loss], data), joined(expected))


def test_the_same_tuple(model, data):
    names = [name for name, _ in model.named_parameters()]
    f = function(model, nn.MSELoss(), data)
    expected = torch.autograd.functional.hessian(
        lambda *parts: f(dict(zip(names, parts, strict=True))), tuple(p.detach() for p in model.parameters())
    )
    found = ht.hessian(model, nn.MSELoss(), data, form="tuple")
    assert isinstance(found, tuple)
    assert isinstance(found[0], tuple)
    for row, expected_row in zip(found, expected, strict=True):
        for block, expected_block in zip(row, expected_row, strict=True):
            torch.testing.assert_close(block, expected_block, rtol=1e-10, atol=1e-12)


def test_frozen_layers_are_left_out_unless_asked_for(model, data):
    names = [name for name, _ in model.named_parameters()]
    getattr(model, names[0].split(".")[0] if len(names) > 2 else "weight").requires_grad_(False)
    kept = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert 0 < len(kept) < len(names)
    close(ht.hessian(model, nn.MSELoss(), data), joined(theirs(model, nn.MSELoss(), data, kept)))
    close(ht.hessian(model, nn.MSELoss(), data, params=names), joined(theirs(model, nn.MSELoss(), data)))


def test_parameters_by_name_and_as_they_are(data):
    model = Backwards().double()
    expected = joined(theirs(model, nn.MSELoss(), data, ["last.weight", "spare.bias", "middle.bias", "first.1.weight"]))
    asked = ["first.1.weight", model.middle.bias, "last.weight", model.spare.bias]
    close(ht.hessian(model, nn.MSELoss(), data, params=asked), expected)
    close(ht.hessian(model, nn.MSELoss(), data, params=(each for each in asked)), expected)
    close(ht.spectrum(model, nn.MSELoss(), data, asked), torch.linalg.eigvalsh(expected))


def test_a_shorter_last_batch_weighs_what_its_samples_do(model, data):
    """11 samples in batches of 4: the mean of the batches' means would weigh the last three more."""
    expected = joined(theirs(model, nn.MSELoss(), data))
    for shuffle in (False, True):
        loader = DataLoader(TensorDataset(*data), batch_size=4, shuffle=shuffle)
        close(ht.hessian(model, nn.MSELoss(), loader), expected)
    batches = [tuple(each[at : at + 4] for each in data) for at in (0, 4, 8)]
    close(ht.hessian(model, nn.MSELoss(), batches), expected)
    of_means = sum(joined(theirs(model, nn.MSELoss(), batch)) for batch in batches) / 3
    assert (of_means - expected).abs().max() > 1e-3 * expected.abs().max()


def test_products_in_every_form(model, data):
    loss_fn = nn.MSELoss()
    matrix = joined(theirs(model, loss_fn, data))
    vectors = torch.randn(len(matrix), 3, dtype=torch.float64)
    close(ht.hvp(model, loss_fn, data, vectors), matrix @ vectors)
    close(ht.hvp(model, loss_fn, data, vectors[:, 1]), matrix @ vectors[:, 1])
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    pieces = vectors[:, 0].split([shape.numel() for shape in shapes.values()])
    parts = {name: piece.reshape(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
    found = ht.hvp(model, loss_fn, data, dict(reversed(parts.items())))
    assert {name: piece.shape for name, piece in found.items()} == shapes
    close(torch.cat([piece.reshape(-1) for piece in found.values()]), matrix @ vectors[:, 0])
    listed = ht.hvp(model, loss_fn, data, list(parts.values()))
    assert isinstance(listed, tuple)
    assert all(torch.equal(one, other) for one, other in zip(listed, found.values(), strict=True))
    f = function(model, loss_fn, data)
    _, expected = torch.autograd.functional.hvp(
        lambda *ps: f(dict(zip(shapes, ps, strict=True))), tuple(model.parameters()), tuple(parts.values())
    )
    for one, other in zip(listed, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_eigenvalues_and_condition(model, data):
    eigenvalues = torch.linalg.eigvalsh(joined(theirs(model, nn.MSELoss(), data)))
    close(ht.spectrum(model, nn.MSELoss(), data), eigenvalues)
    sharpness = ht.sharpness(model, nn.MSELoss(), data)
    assert sharpness.ndim == 0
    close(sharpness, eigenvalues[-1])
    kappa = ht.condition(model, nn.MSELoss(), data)
    size = eigenvalues.abs()
    nonzero = size[size > 1e-11 * size.max()]
    assert kappa.ndim == 0
    assert kappa.decision.size == len(eigenvalues)
    assert kappa.decision.rank == len(nonzero)
    assert abs(float(kappa) - float(nonzero.max() / nonzero.min())) < 1e-6 * float(kappa)


def test_the_question_that_started_this_package():
    """The condition number of the block of W_2, from a module, a half-sum callable and a DataLoader."""
    case = hk.datasets.two_layer_case()
    run = hk.fit(case.network, hk.SquaredLoss(case.X, case.Y), lr=case.lr, max_steps=2000, rtol=case.rtol)
    model = run.network.to_torch()
    loader = DataLoader(TensorDataset(torch.tensor(case.X), torch.tensor(case.Y)), batch_size=2)
    kappa = ht.condition(model, LOSSES["half sum"], loader, params=["1.weight"])
    assert abs(float(kappa) - case.expected["cond"]) < 1e-6
    assert kappa.decision.rank == case.expected["rank"]
    # One layer: decided on the factors, with the number of samples that there were.
    whole = hk.SquaredLoss(case.X, case.Y).hessian(run.network, [1]).condition()
    assert kappa.decision.tolerance == whole.tolerance


def test_single_precision_is_rounded_once(data):
    torch.manual_seed(0)
    model = Backwards().float()
    single = tuple(each.float() for each in data)
    exact = joined(theirs(Backwards_like(model), nn.MSELoss(), tuple(each.double() for each in single)))
    found = ht.hessian(model, nn.MSELoss(), single)
    assert found.dtype == torch.float32
    assert (found - exact.float()).abs().max() <= 1.2e-7 * exact.abs().max()
    for result in (ht.spectrum, ht.condition, ht.sharpness):
        assert result(model, nn.MSELoss(), single).dtype == torch.float32
    assert ht.hvp(model, nn.MSELoss(), single, torch.ones(len(exact))).dtype == torch.float32
    # What is zero is decided by the numbers of the model, which are exact in float64.
    double = ht.condition(Backwards_like(model), nn.MSELoss(), tuple(each.double() for each in single)).decision
    decision = ht.condition(model, nn.MSELoss(), single).decision
    assert decision.rank == double.rank
    assert decision.value == pytest.approx(double.value, rel=1e-9)


def Backwards_like(model):  # noqa: N802
    double = Backwards().double()
    double.load_state_dict(model.state_dict())
    return double


def test_results_do_not_need_grad_and_leave_the_model(model, data):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = ht.hessian(model, nn.MSELoss(), (data[0].requires_grad_(), data[1]))
    assert not found.requires_grad
    found.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_parametrised_layer_may_stand_still(data):
    norm = nn.utils.parametrizations.weight_norm
    model = nn.Sequential(norm(nn.Linear(3, 4)), nn.Linear(4, 2)).double()
    expected = joined(theirs(model, nn.MSELoss(), data, ["0.bias", "1.weight"]))
    close(ht.hessian(model, nn.MSELoss(), data, params=["0.bias", "1.weight"]), expected)


REFUSED = {
    "params": (
        {"params": "0.weight"},
        TypeError,
        r"params is .0.weight. \(of type str\); expected a list of names",
    ),
    "a number": ({"params": 0}, TypeError, r"params is 0 \(of type int\)"),
    "no params": ({"params": []}, ValueError, r"params is empty"),
    "unknown": ({"params": ["2.weight"]}, ValueError, r"params holds '2.weight'; the model has 0.weight, 0.bias"),
    "numbers": ({"params": [0]}, TypeError, r"params holds 0 \(of type int\); expected names or parameters"),
    "another's": ({"params": [torch.eye(2)]}, ValueError, r"a tensor of shape \(2, 2\) that is not a parameter"),
    "form": ({"form": "list"}, ValueError, r"form is 'list'; expected one of 'matrix', 'dict', 'tuple'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(data, case):
    options, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        ht.hessian(plain().double(), nn.MSELoss(), data, **options)


def test_vectors_that_do_not_fit_are_refused(data):
    model = nn.Linear(3, 2).double()
    for v, error, message in (
        (torch.ones(7), TypeError, r"v is torch.float32 on cpu, but the model is torch.float64 on cpu; .*pass v.to"),
        (torch.ones(7).double(), ValueError, r"v has shape \(7,\); expected \(8,\) or \(8, k\)"),
        ({"weight": torch.ones(2, 3).double()}, ValueError, r"v has the keys \['weight'\]; expected weight, bias"),
        (
            [torch.ones(2, 3).double()],
            TypeError,
            r"v is a list of length 1; expected a tensor, or one for each of weight",
        ),
        ([torch.ones(3, 2).double(), torch.ones(2).double()], ValueError, r"v of weight has shape \(3, 2\); expected"),
        ([1.0, 2.0], TypeError, r"v of weight is a float; expected a tensor"),
        (np.ones(8), TypeError, r"v is a ndarray"),
    ):
        with pytest.raises(error, match=message):
            ht.hvp(model, nn.MSELoss(), data, v)


def test_nothing_that_could_be_differentiated(data):
    model = plain().double().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of the model requires grad"):
        ht.hessian(model, nn.MSELoss(), data)
    unused = Backwards().double()
    with pytest.raises(ValueError, match=r"params is \['spare.bias'\], which forward does not use"):
        ht.hessian(unused, nn.MSELoss(), data, params=["spare.bias"])


def test_weights_that_are_kept_the_other_way(data):
    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            self.V = nn.Parameter(torch.randn(4, 2, dtype=torch.float64))
            self.W = nn.Parameter(torch.randn(3, 4, dtype=torch.float64))
            self.b = nn.Parameter(torch.randn(4, dtype=torch.float64))

        def forward(self, x):
            return (x @ self.W + self.b) @ self.V

    model = Kept()
    expected = theirs(model, nn.MSELoss(), data)
    close(ht.hessian(model, nn.MSELoss(), data), joined(expected))
    close(ht.hessian(model, nn.MSELoss(), data, params=["W"]), joined({"W": {"W": expected["W"]["W"]}}))
    with pytest.raises(ValueError, match=r"with 'W' of shape \(3, 4\) without transposing it, .* expected x @ W.T"):
        hk.LinearNetwork.from_torch(model)


def test_on_a_device_everything_stays_there(monkeypatch, model, data):
    """With tensors in main memory in the place of a GPU's, as in test_device_hessian."""
    from hesskern import backends
    from hesskern._base import devices

    expected = joined(theirs(model, nn.MSELoss(), data))
    monkeypatch.setitem(backends._MODULES, "cuda", "cuda_stand_in")
    monkeypatch.setattr(devices, "on_device", lambda value: isinstance(value, torch.Tensor))
    monkeypatch.setattr(devices, "place", lambda array: "cuda:0" if isinstance(array, torch.Tensor) else "cpu")
    backends._load.cache_clear()
    try:
        loader = DataLoader(TensorDataset(*data), batch_size=4)
        close(ht.hessian(model, nn.MSELoss(), loader), expected)
        v = torch.randn(len(expected), dtype=torch.float64)
        close(ht.hvp(model, nn.MSELoss(), loader, v), expected @ v)
        close(ht.spectrum(model, nn.MSELoss(), loader), torch.linalg.eigvalsh(expected))
        close(ht.sharpness(model, nn.MSELoss(), loader), torch.linalg.eigvalsh(expected)[-1])
        assert float(ht.condition(model, nn.MSELoss(), loader)) > 1
        single = tuple(each.float() for each in data)
        assert ht.condition(model.float(), nn.MSELoss(), single).dtype == torch.float32
        net = hk.LinearNetwork.from_torch(model)
        assert isinstance(net.weights[0], torch.Tensor)
        assert net.cpu().parameter_names == net.parameter_names
        assert set(net.to_torch().state_dict()) == set(net.parameter_names)
    finally:
        backends._load.cache_clear()


def test_another_default_device_and_dtype_change_nothing(monkeypatch, model, data):
    from hesskern.torch import data as reading

    monkeypatch.setattr(reading, "_ROWS", 4)
    batches = [tuple(each[at : at + 4] for each in data) for at in (0, 4, 8)]
    expected = ht.hessian(model, nn.MSELoss(), batches)
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("meta"), torch.inference_mode():
            close(ht.hessian(model, nn.MSELoss(), batches), expected, 0)
            assert ht.condition(model, nn.MSELoss(), batches).device.type == "cpu"
            assert hk.LinearNetwork.from_torch(model).to_torch()(data[0]).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
