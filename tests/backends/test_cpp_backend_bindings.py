"""The extension called directly with wrong arguments: an exception each time, never a crash or a silent copy."""

from __future__ import annotations

import numpy as np
import pytest
from spoiled import REFUSED, SPOILED, SPOILED_2D, descent, good, job, read_only, spoil

from hesskern import _core


@pytest.mark.parametrize("how", SPOILED_2D)
@pytest.mark.parametrize("target", ["weight", "bias", "X", "out"])
def test_forward(target, how):
    a = good()
    out = np.zeros((5, 2))
    if (target == "bias" and how not in SPOILED) or (target, how) in {("bias", "None"), ("weight", "one row more")}:
        pytest.skip("means something for this argument")
    if target == "weight":
        a["weights"][0] = spoil(how, a["weights"][0])
    elif target == "bias":
        a["biases"][0] = spoil(how, a["biases"][0])
    elif target == "X":
        a["X"] = spoil(how, a["X"])
    else:
        out = spoil(how, out)
    with pytest.raises(REFUSED):
        _core.forward(a["weights"], a["biases"], a["X"], out)


@pytest.mark.parametrize("how", SPOILED_2D)
@pytest.mark.parametrize("target", ["weight", "bias", "X", "Y", "ones", "gradient"])
def test_squared_residual_and_descent(target, how):
    a = good()
    gradient = np.zeros(4 * 3 + 4 + 2 * 4)
    a["ones"] = np.ones(5)
    if target in ("bias", "ones", "gradient") and how not in SPOILED:
        pytest.skip("needs two axes")
    if how == "None" and target in ("bias", "ones", "gradient"):
        pytest.skip("None is allowed here")
    if target in ("weight", "bias"):
        key = "weights" if target == "weight" else "biases"
        a[key][0] = spoil(how, a[key][0])
    elif target == "gradient":
        gradient = spoil(how, gradient)
    else:
        a[target] = spoil(how, a[target])
    arguments = (a["weights"], a["biases"], a["X"], a["ones"], a["Y"])
    with pytest.raises(REFUSED):
        _core.squared_residual(*arguments, 1.0, gradient)
    if target != "gradient":
        with pytest.raises(REFUSED):
            descent(**a)


@pytest.mark.parametrize(
    ("weights", "biases"),
    [
        ([], []),
        (None, [None]),
        ([np.ones((2, 3))], None),
        ([np.ones((2, 3))], []),
        ([np.ones((2, 3))], [None, None]),
        ([np.ones((4, 3)), np.ones((2, 5))], [None, None]),  # do not fit
        ([np.ones((0, 3)), np.ones((2, 0))], [None, None]),
        ([np.ones((2, 0))], [None]),
        ("ab", [None, None]),
        (3, [None]),
        ([np.ones((2, 3))], [np.ones(3)]),
        ([np.ones((2, 3))], [np.ones((2, 1))]),
    ],
)
def test_networks_that_are_none(weights, biases):
    X, Y, out = np.ones((5, 3)), np.ones((5, 2)), np.empty((5, 2))
    with pytest.raises(REFUSED):
        _core.forward(weights, biases, X, out)
    with pytest.raises(REFUSED):
        _core.squared_residual(weights, biases, X, None, Y)
    with pytest.raises(REFUSED):
        descent(weights=weights, biases=biases, X=X, Y=Y)


def test_read_only_targets_are_refused():
    a = good()
    with pytest.raises(ValueError, match="out is read-only"):
        _core.forward(a["weights"], a["biases"], a["X"], read_only(np.empty((5, 2))))
    with pytest.raises(ValueError, match="gradient is read-only"):
        _core.squared_residual(a["weights"], a["biases"], a["X"], None, a["Y"], 1.0, read_only(np.empty(24)))
    one, some = descent(), job(3)
    some[4] = read_only(some[4])
    with pytest.raises(ValueError, match="losses is read-only"):
        _core.advance([one], [some], 1)
    with pytest.raises(ValueError, match="out is read-only"):
        one.parameters(read_only(np.empty(24)))


def test_read_only_inputs_are_taken_and_not_written():
    a = good()
    frozen = [read_only(w) for w in a["weights"]], [read_only(a["biases"][0]), None], read_only(a["X"])
    out = np.full((5, 2), np.nan)
    _core.forward(*frozen, out)
    expected = (a["X"] @ a["weights"][0].T + a["biases"][0]) @ a["weights"][1].T
    np.testing.assert_allclose(out, expected, rtol=1e-13)
    np.testing.assert_array_equal(frozen[2], a["X"])


def test_results_lie_in_the_array_given_and_nowhere_else():
    a = good()
    frame = np.full((7, 2), -7.0)
    _core.forward(a["weights"], a["biases"], a["X"], frame[1:6])
    assert (frame[[0, 6]] == -7.0).all()
    assert (frame[1:6] != -7.0).all()
    flat = np.full(26, -7.0)
    _core.squared_residual(a["weights"], a["biases"], a["X"], None, a["Y"], 1.0, flat[1:25])
    assert (flat[[0, 25]] == -7.0).all()
    assert (flat[1:25] != -7.0).all()


def test_misaligned_arrays():
    """A view into a packed record starts at an odd address: refused, or read without faults."""
    a = good()
    raw = np.zeros(8 * 15 + 1, dtype=np.uint8)
    X = raw[1:].view(np.float64).reshape(5, 3)
    X[...] = a["X"]
    assert not X.flags.aligned
    out = np.empty((5, 2))
    try:
        _core.forward(a["weights"], a["biases"], X, out)
    except ValueError as error:
        assert "align" in str(error)  # either is right
    else:
        expected = (a["X"] @ a["weights"][0].T + a["biases"][0]) @ a["weights"][1].T
        np.testing.assert_allclose(out, expected, rtol=1e-13)


@pytest.mark.parametrize("how", ["None", "a list", "a number", "integers", "complex", "0-d", "empty", "float32"])
def test_product_svd(how):
    rng = np.random.default_rng(0)
    first, weight = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))
    with pytest.raises(REFUSED):
        _core.product_svd(SPOILED[how](first), [weight], 1e-14)
    with pytest.raises(REFUSED):
        _core.product_svd(first, [SPOILED[how](weight)], 1e-14)


@pytest.mark.parametrize("how", ["one column less", "one column more", "Fortran order", "transposed", "reversed"])
def test_product_svd_weights(how):
    first, weight = np.ones((5, 3)), np.arange(12.0).reshape(4, 3)
    with pytest.raises(REFUSED):
        _core.product_svd(first, [SPOILED_2D[how](weight)], 1e-14)


def test_product_svd_reads_any_strides_of_its_first_factor():
    first = np.random.default_rng(0).standard_normal((6, 5))
    for view in (first, first.T, first[::-1], first[::2, ::-1], np.asfortranarray(first), first[:, 1:2]):
        expected = np.linalg.svd(view, compute_uv=False)
        values, exponents = _core.product_svd(view, [], 1e-14)[:2]
        np.testing.assert_allclose(np.ldexp(values, exponents), expected, rtol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_product_svd_of_what_is_not_finite_ends(value):
    first = np.ones((4, 3))
    first[1, 1] = value
    try:
        values = _core.product_svd(first, [np.ones((2, 3))], 1e-14)[0]
    except (ValueError, RuntimeError, ArithmeticError):
        return
    assert len(values) == 2


def test_load_and_unload_take_no_rubbish():
    with pytest.raises(TypeError):
        _core.unload_blas(1)
    with pytest.raises(TypeError):
        _core.load_blas()
