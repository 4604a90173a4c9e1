"""The last linear layer of a model: found by running the model, refused where the model does not end in it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from last_layer_models import C, Reshaped, agree, autograd, targets  # noqa: E402
from torch import nn  # noqa: E402

from hesskern.torch import last_layer_hessian  # noqa: E402


class After(nn.Module):
    def __init__(self, then, **parts):
        super().__init__()
        self.fc, self.then = nn.Linear(6, C), then
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.then(self, self.fc(x))


def hooked():
    model = After(lambda self, z: z)
    model.fc.register_forward_hook(lambda module, given, found: 2 * found)
    return model


def tied():
    model = After(lambda self, z: z, other=nn.Linear(6, C))
    model.other.weight = model.fc.weight
    return model


def parametrized():
    model = After(lambda self, z: z)
    nn.utils.parametrizations.weight_norm(model.fc)
    return model


REFUSED = {
    "softmax": (
        lambda: nn.Sequential(nn.Linear(6, C), nn.Softmax(1)),
        "the result of the module '1' .Softmax. after it",
    ),
    "scaling": (
        lambda: After(lambda self, z: 3.0 * z),
        "the output of its layer 'fc', but the result of Mul in its forward",
    ),
    "positive": (lambda: After(lambda self, z: torch.relu(z + 100.0)), "the result of Add in its forward after it"),
    "in place": (lambda: After(lambda self, z: z.mul_(2.0)), "the result of Mul in its forward"),
    "order": (lambda: After(lambda self, z: z.T), "after it; expected a model that ends in the layer"),
    "tuple": (lambda: After(lambda self, z: (z, z)), "model returns a tuple that is not the output of its layer 'fc'"),
    "twice": (lambda: After(lambda self, z: self.fc(torch.cat([z, z], 1))), "the layer 'fc' is applied 2 times"),
    "hook": (hooked, "the output of the layer 'fc' is not its weight times its input"),
    "tied": (tied, "the weights 'fc.weight' and 'other.weight' are the same tensor"),
    "parametrized": (parametrized, "the weight of the layer 'fc' is computed from other parameters"),
    "no layer": (nn.Flatten, "model applies no nn.Linear as a module"),
    "dropout": (lambda: nn.Sequential(nn.Dropout(), nn.Linear(6, C)), "the module '0' .Dropout. drops at random"),
    "batch": (lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, C)), "the module '0' .BatchNorm1d. mixes"),
    "half": (lambda: nn.Linear(6, C).bfloat16(), "the layer '' is torch.bfloat16"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_that_do_not_end_in_the_layer_are_refused(case, X):
    make, message = REFUSED[case]
    model = make()
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    with pytest.raises((ValueError, TypeError), match=message):
        last_layer_hessian(model, (X[:, 0].to(dtype), targets("labels")), nn.CrossEntropyLoss())


def test_randomness_of_ones_own_is_noticed(X):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, C)

        def forward(self, x):
            return self.fc(nn.functional.dropout(x, training=True))

    with pytest.raises(ValueError, match="other features when it gets the same batch again"):
        last_layer_hessian(Noisy().eval(), (X[:, 0].float(), targets("labels")), nn.CrossEntropyLoss())


def test_samples_of_another_shape_in_a_later_batch():
    torch.manual_seed(0)
    model = Reshaped(3, lambda out: out.flatten(1)).double()
    X = [torch.randn(5, 4, 6).double(), torch.randn(5, 2, 6).double()]
    data = [(each, torch.randn_like(model(each))) for each in X]
    with pytest.raises(ValueError, match=r"model returns shape \(5, 6\) for batch 1 of data; expected \(n, 12\)"):
        last_layer_hessian(model, data, lambda a, b: (a - b).square().mean())
    expected = autograd(  # each number weighs the same
        model.head,
        torch.cat([each.reshape(-1, 6) for each in X]),
        lambda out: nn.functional.mse_loss(out, torch.cat([Y.reshape(-1, 3) for _, Y in data])),
    )
    agree(last_layer_hessian(model, data, nn.MSELoss()).toarray(), expected)
