"""What is handed to cuda-core for a launch, recorded instead of launched."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("cuda.core", reason="cuda-core is not installed", exc_type=ImportError)

import torch

from hesskern.backends.cuda import launch


def test_the_current_stream_of_the_tensors_device_and_eight_bytes_for_each_argument(monkeypatch):
    calls = []
    chosen = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: chosen.append(device) or nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=(77, device)))
    monkeypatch.setattr(launch, "Device", lambda index: SimpleNamespace(set_current=lambda: chosen.append(index)))
    monkeypatch.setattr(launch, "Stream", SimpleNamespace(from_handle=lambda handle: ("stream", handle)))
    monkeypatch.setattr(launch, "_loaded", lambda kernel, device: (kernel, device))
    monkeypatch.setattr(launch, "launch_kernel", lambda *arguments: calls.append(arguments))

    tensor = torch.ones(3)
    launch.launch("assemble_float32", 5, 256, tensor, None, 1 << 40, tensor[1:], shared=1 << 17)

    ((stream, config, kernel, *words),) = calls
    assert chosen == [tensor.device, tensor.device.index]
    assert stream == ("stream", (77, tensor.device))
    assert (config.grid, config.block, config.shmem_size) == ((5, 1, 1), (256, 1, 1), 1 << 17)
    assert kernel == ("assemble_float32", tensor.device.index)
    assert words == [tensor.data_ptr(), 0, 1 << 40, tensor.data_ptr() + 4]
    assert all(type(word) is int for word in words)  # what cuda-core passes as eight bytes
