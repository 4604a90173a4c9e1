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


@pytest.fixture
def prepared(monkeypatch):
    """Kernels that are looked up and given their shared memory, on a device with this much of it."""
    asked = []
    launch._loaded.cache_clear()
    module = SimpleNamespace(get_kernel=lambda name: SimpleNamespace(handle=f"handle of {name}"))
    monkeypatch.setattr(launch, "_module", lambda program, device: asked.append((program, device)) or module)
    properties = SimpleNamespace(
        multiprocessor_count=132,
        max_shared_memory_per_block_optin=227 << 10,
        max_shared_memory_per_multiprocessor=228 << 10,
    )
    monkeypatch.setattr(launch, "Device", lambda index: SimpleNamespace(properties=properties))
    status = SimpleNamespace(found=launch.driver.CUresult.CUDA_SUCCESS)
    monkeypatch.setattr(
        launch.driver, "cuKernelSetAttribute", lambda *arguments: asked.append(arguments) or (status.found,)
    )
    yield asked, status
    launch._loaded.cache_clear()


def test_a_kernel_may_have_all_the_shared_memory_of_a_block(prepared):
    asked, _ = prepared
    assert launch._loaded("train_warp_float64", 1).handle == "handle of train_warp_float64"
    name = launch.driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    assert asked == [("training", 1), (name, 227 << 10, "handle of train_warp_float64", 1)]
    assert launch.limits(torch.device("cuda:1")) == (132, 227 << 10, 228 << 10)


def test_a_refusal_of_the_driver_is_said(prepared):
    _, status = prepared
    status.found = launch.driver.CUresult.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(RuntimeError, match=r"train_block_float32 cannot have 232448 bytes .*CUDA_ERROR_INVALID_VALUE"):
        launch._loaded("train_block_float32", 0)
