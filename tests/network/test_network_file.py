"""Files of networks: what is read, and the sentence for what is not a network."""

from __future__ import annotations

import numpy as np
import pytest
from looped import each

import hesskern as hk
from hesskern._base import array_files


@pytest.fixture
def network():
    return hk.LinearNetwork.random([3, 4, 2], seed=0, bias=True)


@pytest.fixture
def path(tmp_path, network):
    network.save(tmp_path / "net.npz")
    return tmp_path / "net.npz"


CHANGES = {
    "a format to come": ({"format": np.array("hesskern network 2")}, "its format is 'hesskern network 2'"),
    "a format of numbers": ({"format": np.ones(2)}, "its format is"),
    "a layer that is missing": ({"3.weight": np.ones((1, 2))}, "expected '0.weight', '1.weight', ... for all layers"),
    "a bias without a weight": ({"2.bias": np.ones(2)}, "expected '0.weight', '1.weight', ... for all layers"),
    "an array of something else": ({"something": np.ones(2)}, r"it holds \['something'\], which are not part"),
    "NaN": ({"1.bias": np.full(2, np.nan)}, r"biases\[1\] holds 2 values that are NaN"),
    "integers": ({"0.weight": np.ones((4, 3), dtype=int)}, r"weights\[0\] has dtype int64"),
    "two precisions": ({"1.bias": np.ones(2, dtype=np.float32)}, r"biases\[1\] has dtype float32"),
    "a shape that does not fit": ({"1.weight": np.ones((2, 5))}, r"weights\[1\] has shape \(2, 5\)"),
    "names that are numbers": ({"names": np.ones(4)}, "'names' has shape"),
    "names that repeat": ({"names": np.array(["a", "a", "b", "c"])}, r"names\[1\] is 'a'"),
}


@each("change", CHANGES)
def test_changed_files_are_refused(path, tmp_path, change):
    changes, reason = CHANGES[change]
    arrays = array_files.read_npz(str(path))
    np.savez(tmp_path / "changed.npz", **(arrays | changes))
    with pytest.raises(ValueError, match=rf"^path is .*changed\.npz', which is not a network .*{reason}"):
        hk.LinearNetwork.load(tmp_path / "changed.npz")


def test_a_network_without_a_format_is_read(path, network):
    arrays = array_files.read_npz(str(path))
    assert str(arrays.pop("format")) == "hesskern network 1"
    np.savez(path, **arrays)
    np.testing.assert_array_equal(hk.LinearNetwork.load(path).flatten(), network.flatten())


def test_a_network_without_its_last_layer_is_not_another_network(tmp_path):
    path, part = tmp_path / "net.npz", tmp_path / "part.npz"
    hk.LinearNetwork.random([3, 9, 2], seed=0).save(path)
    with np.load(path) as arrays:
        np.savez(part, **{name: array for name, array in arrays.items() if name != "1.weight"})
    with pytest.raises(ValueError, match="names"):
        hk.LinearNetwork.load(part)


def test_a_file_of_other_arrays_is_refused(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, something=np.ones(2))
    with pytest.raises(ValueError, match=r"path is .*other\.npz.*something.*expected '0\.weight'"):
        hk.LinearNetwork.load(path)


def test_a_file_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        hk.LinearNetwork.load(tmp_path / "none.npz")
