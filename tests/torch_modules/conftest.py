"""What holds for every test of PyTorch's modules."""

import pytest


@pytest.fixture(autouse=True)
def double():
    """Random numbers from one seed, in float64 unless something else is asked for."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
