"""info(): what is running, as plain data."""

from __future__ import annotations

import json

import numpy as np
import scipy

import hesskern as hk
from hesskern import _core


def test_info_is_json_and_true():
    found = hk.info()
    assert json.loads(json.dumps(found)) == found
    assert found["hesskern"] == hk.__version__ == _core.version
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["scipy"] == scipy.__version__
    assert found["isa"] in found["available_isas"]
    assert found["backends"] == ["cpp", "numba", "numpy", "cuda"]
    assert found["cpus"] >= 1
    assert found["blas_in_kernels"] in ("scipy", "none")
    for pool in found["blas"]:
        assert pool["threads"] >= 1


def test_info_names_the_backend_in_use():
    with hk.use_backend("numpy"):
        assert hk.info()["backend"] == "numpy"
    with hk.use_backend("cpp"):
        assert hk.info()["backend"] == "cpp"
