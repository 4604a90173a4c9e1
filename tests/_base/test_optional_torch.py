"""PyTorch where it is not there, or does not load: the sentence says which."""

import sys

import pytest

from hesskern._base import optional_torch


def test_broken_torch_is_reported_as_broken(monkeypatch):
    def fails(name):
        raise OSError("libtorch_cpu.so: cannot open shared object file")

    monkeypatch.setattr(optional_torch.importlib, "import_module", fails)
    with pytest.raises(optional_torch.TorchUnavailableError, match=r"installed but does not load: libtorch_cpu\.so"):
        optional_torch.load_torch()


def test_missing_part_of_torch_is_not_missing_torch(monkeypatch):
    def fails(name):
        raise ModuleNotFoundError("No module named 'typing_extensions'", name="typing_extensions")

    monkeypatch.setattr(optional_torch.importlib, "import_module", fails)
    with pytest.raises(optional_torch.TorchUnavailableError, match=r"installed but does not load: .*typing_extensions"):
        optional_torch.load_torch()


def test_where_it_is_not_there_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(optional_torch.TorchUnavailableError, match=r'pip install "hesskern\[torch\]"'):
        optional_torch.load_torch()


def test_where_it_is_there_it_is_returned():
    torch = pytest.importorskip("torch")
    assert optional_torch.load_torch() is torch
