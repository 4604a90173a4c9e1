"""A model that ends in a linear layer, and samples for it."""

import pytest


@pytest.fixture
def model():
    torch = pytest.importorskip("torch")
    from last_layer_models import Convolutions

    torch.manual_seed(0)
    return Convolutions().double().eval()


@pytest.fixture(name="X")
def inputs():
    torch = pytest.importorskip("torch")
    from last_layer_models import N

    torch.manual_seed(1)
    return torch.randn(N, 1, 6, dtype=torch.float64)
