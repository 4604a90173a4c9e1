"""A model that ends in a linear layer."""

import pytest


@pytest.fixture
def model():
    torch = pytest.importorskip("torch")
    from last_layer_models import Convolutions

    torch.manual_seed(0)
    return Convolutions().double().eval()
