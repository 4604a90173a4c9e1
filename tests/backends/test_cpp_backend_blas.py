"""SciPy's BLAS: loaded only where its C signature is the known one, and never needed."""

from __future__ import annotations

import ctypes

import numpy as np
import problems
import pytest
from scipy.linalg import cython_blas

import hesskern as hk
from hesskern import _core

_new = ctypes.pythonapi.PyCapsule_New
_new.restype = ctypes.py_object
_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_name = ctypes.pythonapi.PyCapsule_GetName
_name.restype = ctypes.c_char_p
_name.argtypes = [ctypes.py_object]

NAMES = {name: _name(cython_blas.__pyx_capi__[name]).decode() for name in ("dgemm", "sgemm")}
_kept = []  # a capsule does not copy its name


def capsule(name):
    encoded = None if name is None else name.encode()
    _kept.append(encoded)
    # Whoever trusts this pointer crashes: it is never to be called.
    return _new(8, encoded, None)


@pytest.fixture(autouse=True)
def real_blas():
    yield
    _core.load_blas(cython_blas.__pyx_capi__)


def products():
    """Results whose products are all above the BLAS threshold."""
    problem = problems.normal([300, 330, 290], 270, bias=True)
    loss, net = problem.loss(), problem.network()
    return [
        net.forward(problem.X, backend="cpp"),
        loss.gradient(net),
        hk.fit(net, loss, lr=1e-8, max_steps=5, backend="cpp").network.flatten(),
    ]


def test_results_are_the_same_without():
    _core.load_blas(cython_blas.__pyx_capi__)
    with_blas = products()
    _core.unload_blas()
    without = products()
    for ours, theirs in zip(without, with_blas, strict=True):
        # Sums of 330 terms in another order.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())
    # Another order of sums differs somewhere; where nothing does, BLAS was never called.
    assert any(not np.array_equal(ours, theirs) for ours, theirs in zip(without, with_blas, strict=True))


def test_a_capsule_with_the_known_signature_is_taken():
    _core.load_blas({name: cython_blas.__pyx_capi__[name] for name in NAMES})


@pytest.mark.parametrize("which", ["dgemm", "sgemm"])
@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.replace("int *", "int64_t *"),  # ILP64
        lambda name: name.replace("int *", "long *"),
        lambda name: name.replace("int *", "blas_int *"),
        lambda name: name.replace("int *", "npy_int64 *"),
        lambda name: name.replace("void (", "int ("),
        lambda name: name[: name.rindex(",")] + ")",  # an argument less
        lambda name: name[:-1] + ", int *)",  # one more
        lambda name: name.replace("char *", "int *"),
        lambda name: name + " ",
        lambda name: "",
        lambda name: None,
    ],
)
def test_another_signature_is_refused(which, change):
    changed = change(NAMES[which])
    assert changed != NAMES[which]
    before = products()
    capi = dict(cython_blas.__pyx_capi__) | {which: capsule(changed)}
    with pytest.raises(ImportError, match=f"SciPy's {which} has the signature"):
        _core.load_blas(capi)
    for ours, theirs in zip(products(), before, strict=True):  # what was loaded stays, whole
        np.testing.assert_array_equal(ours, theirs)


def test_float_where_double_belongs_is_refused():
    capi = {"dgemm": capsule(NAMES["sgemm"]), "sgemm": capsule(NAMES["sgemm"])}
    with pytest.raises(ImportError, match="dgemm has the signature"):
        _core.load_blas(capi)
    capi = {"dgemm": capsule(NAMES["dgemm"]), "sgemm": capsule(NAMES["dgemm"])}
    with pytest.raises(ImportError, match="sgemm has the signature"):
        _core.load_blas(capi)


@pytest.mark.parametrize("capi", [{}, {"dgemm": cython_blas.__pyx_capi__["dgemm"]}])
def test_a_missing_function_is_named(capi):
    missing = "sgemm" if capi else "dgemm"
    with pytest.raises(ImportError, match=f"has no {missing}"):
        _core.load_blas(capi)


@pytest.mark.parametrize("thing", [None, 3, "dgemm", object()])
def test_what_is_no_capsule_is_refused(thing):
    with pytest.raises(ImportError, match="dgemm is not a capsule"):
        _core.load_blas({"dgemm": thing, "sgemm": thing})


@pytest.mark.parametrize("thing", [None, [], 3])
def test_what_is_no_dict_is_refused(thing):
    with pytest.raises(TypeError):
        _core.load_blas(thing)


def test_the_package_falls_back_and_says_so(monkeypatch):
    from hesskern.backends import cpp_backend

    fake = dict(cython_blas.__pyx_capi__) | {"dgemm": capsule(NAMES["dgemm"].replace("int *", "int64_t *"))}
    monkeypatch.setattr(cython_blas, "__pyx_capi__", fake)
    with pytest.warns(UserWarning, match=r"dgemm has the signature.*64-bit.*own loops"):
        backend = cpp_backend.CppBackend()
    assert backend.blas == "none"
    monkeypatch.undo()
    assert cpp_backend.CppBackend().blas == "scipy"
