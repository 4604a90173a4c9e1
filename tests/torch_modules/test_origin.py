"""The module that a chain was read from: weights that it computes, and its state, which stays as it was."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, prune, spectral_norm  # noqa: E402

from hesskern.torch_modules.chain import UnsupportedError  # noqa: E402
from hesskern.torch_modules.origin import (  # noqa: E402
    AttributePath,
    Origin,
    effective,
    is_computed,
    known_hooks,
    restored,
    state_kept,
)


@pytest.fixture
def normed():
    """A layer whose weight is computed from its direction and its length."""
    return parametrizations.weight_norm(nn.Linear(3, 2))


def test_weights_follow_the_parameters_that_they_are_computed_from(normed):
    origin = Origin(normed, {"weight": AttributePath("", "weight")})
    g, v = "parametrizations.weight.original0", "parametrizations.weight.original1"
    assert set(origin.parameters()) == {g, v, "bias"}
    twice = origin.tensors_at({g: 2 * normed.parametrizations.weight.original0.detach()})
    torch.testing.assert_close(twice["weight"], 2 * normed.weight)
    torch.testing.assert_close(origin.tensors_at({})["weight"], normed.weight)
    assert origin.sources() == {g, v}
    assert Origin(normed, {}).sources() == set()


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_second_derivatives_of_weight_norm_are_right():
    """Those of PyTorch's own operation take the norms for constants; here they are differences of the first."""
    layer = torch.nn.utils.weight_norm(nn.Linear(3, 2, bias=False))
    origin = Origin(layer, {"weight": AttributePath("", "weight")})

    def value(v):
        weight = origin.tensors_at({"weight_v": v})["weight"]
        return weight[0, 0] * weight[1, 2] + weight.sin().sum()

    v = layer.weight_v.detach().clone()
    assert torch.autograd.gradgradcheck(value, v.requires_grad_())


def test_parameters_that_are_gone_are_named(normed):
    with pytest.raises(ValueError, match="the model no longer has a parameter 'weight_g' of this shape"):
        Origin(normed, {}).require(["bias", "weight_g"])
    Origin(normed, {}).require(["bias"])


def test_float64_on_the_cpu(normed):
    origin = Origin(normed.float(), {"weight": AttributePath("", "weight")})
    found = origin.float64_tensors_at({})
    assert found["weight"].dtype == torch.float64
    torch.testing.assert_close(found["weight"].float(), normed.weight)


def test_the_weight_in_effect():
    plain, pruned = nn.Linear(3, 2), prune.l1_unstructured(nn.Linear(3, 2), "weight", 2)
    assert effective(plain, "weight") is plain.weight and not is_computed(plain, "weight")
    assert is_computed(pruned, "weight") and not is_computed(pruned, "bias")
    torch.testing.assert_close(effective(pruned, "weight"), pruned.weight_orig * pruned.weight_mask)
    assert known_hooks(plain) and known_hooks(pruned)
    plain.register_forward_hook(lambda module, given, found: found)
    assert not known_hooks(plain)
    with pytest.raises(UnsupportedError, match="spectral_norm changes its weight with each call in training mode"):
        effective(spectral_norm(nn.Linear(3, 2)), "weight")


def test_a_module_gets_its_tensors_back():
    layer = nn.Linear(3, 2)
    weight = layer.weight
    with restored(layer):
        layer._parameters["weight"] = nn.Parameter(torch.zeros(2, 3))
    assert layer.weight is weight


def test_buffers_that_change_are_given_back_and_named():
    norm = nn.BatchNorm1d(3)
    before = norm.running_mean.clone()
    with (
        pytest.raises(ValueError, match=r"module changes its buffer 'num_batches_tracked' at every call"),
        state_kept(norm),
    ):
        norm(torch.randn(5, 3))
    assert torch.equal(norm.running_mean, before) and norm.num_batches_tracked == 0
    norm.eval()
    with state_kept(norm):
        norm(torch.randn(5, 3))
