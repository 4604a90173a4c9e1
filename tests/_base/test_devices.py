"""Arrays of other libraries: recognised by the protocols they follow, and taken without a copy."""

from __future__ import annotations

import numpy as np
import pytest

from hesskern._base import devices

torch = pytest.importorskip("torch")


class Exchanged:
    """What follows DLPack and nothing else, with its memory where `place` says (1: CPU, 2: CUDA, 13: managed)."""

    def __init__(self, tensor, place=1):
        self.tensor, self.place = tensor, place

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.place, 0


class Interfaced:
    """What follows the CUDA array interface, as Numba's device arrays do."""

    @property
    def __cuda_array_interface__(self):
        return {"shape": (2, 3), "typestr": "<f8", "data": (0, False), "version": 3}


def test_recognised():
    tensor = torch.ones(2, 3)
    assert not devices.on_device(np.ones(3))
    assert not devices.on_device([1.0])
    assert not devices.on_device(tensor)
    assert [devices.on_device(Exchanged(tensor, place)) for place in (1, 2, 13)] == [False, True, True]
    assert devices.on_device(Interfaced())


def test_taken_without_a_copy(monkeypatch):
    tensor = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    assert devices.shared_tensor(tensor, "X").data_ptr() == tensor.data_ptr()
    assert devices.shared_tensor(Exchanged(tensor), "X").data_ptr() == tensor.data_ptr()
    given = Interfaced()
    monkeypatch.setattr(torch, "as_tensor", lambda value: tensor if value is given else None)  # it needs a driver
    assert devices.shared_tensor(given, "X").data_ptr() == tensor.data_ptr()


def test_refused():
    with pytest.raises(TypeError, match=r"X has dtype torch.int64; expected torch.float64 .*X.to\(torch.float64\)"):
        devices.shared_tensor(Exchanged(torch.ones(2, dtype=torch.int64)), "X")
