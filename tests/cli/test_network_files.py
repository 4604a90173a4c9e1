"""Networks from files, and the sentence for a file that holds none."""

import numpy as np
import pytest

import hesskern as hk
from hesskern.cli.common import RefusedError
from hesskern.cli.network_files import read_network


def test_what_was_saved_is_read(tmp_path):
    net = hk.LinearNetwork.random([3, 4, 2], seed=1, bias=True)
    net.save(tmp_path / "net.npz")
    np.testing.assert_array_equal(read_network(str(tmp_path / "net.npz")).flatten(), net.flatten())


def test_the_option_and_the_file_are_named(tmp_path):
    with pytest.raises(RefusedError, match=r"^--start: cannot read '.*net\.npz': No such file or directory\.$"):
        read_network(str(tmp_path / "net.npz"), "--start")
    (tmp_path / "net.npz").write_text("no network")
    with pytest.raises(RefusedError, match=r"^--net: '.*net\.npz' is not a network") as refused:
        read_network(str(tmp_path / "net.npz"))
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")
