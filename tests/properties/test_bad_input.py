"""Bad input: each message names the argument, what it was and what was expected. Odd but good input: right results."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import problems
import pytest

import hesskern as hk


def problem():
    return problems.normal([3, 4, 2], 6, bias=True)


def loss_of(X=None, Y=None, **options):
    given = problem()
    return hk.SquaredLoss(given.X if X is None else X, given.Y if Y is None else Y, **options)


def net_of(weights=None, biases="given"):
    given = problem()
    return hk.LinearNetwork(
        given.weights if weights is None else weights, given.biases if biases == "given" else biases
    )


def fit(**options):
    given = problem()
    return hk.fit(given.network(), given.loss(), **({"lr": 0.01, "max_steps": 2} | options))


NOT_FLOATS = {
    "int64": np.ones((6, 3), dtype=np.int64),
    "uint8": np.ones((6, 3), dtype=np.uint8),
    "bool": np.ones((6, 3), dtype=bool),
    "complex128": np.ones((6, 3), dtype=np.complex128),
    "complex64": np.ones((6, 3), dtype=np.complex64),
    "float16": np.ones((6, 3), dtype=np.float16),
    "object": np.ones((6, 3), dtype=object),
    "<U3": np.full((6, 3), "1.0"),
}


@pytest.mark.parametrize("dtype", NOT_FLOATS)
def test_other_dtypes_are_refused(dtype):
    bad = NOT_FLOATS[dtype]
    message = rf"has dtype {re.escape(dtype)}; expected float64 \(or float32\).*astype\(numpy\.float64\)"
    with pytest.raises(TypeError, match="^X " + message):
        loss_of(X=bad)
    with pytest.raises(TypeError, match="^Y " + message):
        loss_of(Y=bad)
    with pytest.raises(TypeError, match=r"^weights\[0\] " + message):
        net_of([bad])
    with pytest.raises(TypeError, match=r"^weights\[1\] " + message):
        net_of([np.ones((3, 3)), bad])
    with pytest.raises(TypeError, match=r"^biases\[0\] " + message):
        net_of([np.ones((6, 3))], [bad[:, 0]])
    with pytest.raises(TypeError, match="^X " + message):
        net_of().forward(bad)
    with pytest.raises(TypeError, match="^vector " + message):
        net_of().unflatten(bad[0])


def test_long_double_is_refused_where_it_is_longer():
    if np.dtype(np.longdouble) == np.dtype(np.float64):
        pytest.skip("long double is double here")
    with pytest.raises(TypeError, match=r"^X has dtype"):
        loss_of(X=np.ones((6, 3), dtype=np.longdouble))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_nan_and_infinity_are_found(value, dtype):
    one = np.ones((6, 3), dtype=dtype)
    one[2, 1] = value
    with pytest.raises(ValueError, match=r"^X holds 1 value that is NaN or infinite, the first at index \(2, 1\); exp"):
        loss_of(X=one)
    one[4, 0] = value
    with pytest.raises(ValueError, match=r"^Y holds 2 values that are NaN or infinite.*\(2, 1\)"):
        loss_of(X=np.ones((6, 3), dtype=dtype), Y=one)
    with pytest.raises(ValueError, match=r"^weights\[0\] holds 2 values"):
        net_of([one])
    with pytest.raises(ValueError, match=r"^biases\[0\] holds 1 value .*\(2,\)"):
        net_of([np.ones((6, 3), dtype=dtype)], [one[:, 1]])
    with pytest.raises(ValueError, match=r"^X holds 2 values"):
        hk.LinearNetwork([np.ones((2, 3), dtype=dtype)]).forward(one)
    with pytest.raises(ValueError, match=r"^vector holds 1 value"):
        hk.LinearNetwork([np.ones((1, 3), dtype=dtype)]).unflatten(one[2])


@pytest.mark.parametrize("shape", [(0, 3), (6, 0), (0, 0)])
def test_empty_arrays(shape):
    message = rf"has shape {re.escape(str(shape))} and is empty; expected at least one row and one column"
    with pytest.raises(ValueError, match="^X " + message):
        loss_of(X=np.ones(shape))
    with pytest.raises(ValueError, match="^Y " + message):
        loss_of(Y=np.ones(shape))
    with pytest.raises(ValueError, match=r"^weights\[0\] " + message):
        net_of([np.ones(shape)])
    with pytest.raises(ValueError, match="^X " + message):
        net_of().forward(np.ones(shape))


@pytest.mark.parametrize("array", [np.float64(1.0), np.array(1.0), 1.0, np.ones(3), np.ones((2, 3, 3)), [1.0, 2.0]])
def test_wrong_number_of_dimensions(array):
    message = rf"has shape {re.escape(str(np.shape(array)))}; expected 2 dimensions"
    with pytest.raises(ValueError, match="^X " + message):
        loss_of(X=array)
    with pytest.raises(ValueError, match="^Y " + message):
        loss_of(Y=array)
    with pytest.raises(ValueError, match=r"^weights\[0\] " + message):
        net_of([array])
    with pytest.raises(ValueError, match="^X " + message):
        net_of().forward(array)


def test_wrong_dimensions_of_vectors():
    with pytest.raises(ValueError, match=r"^biases\[0\] has shape \(4, 1\); expected 1 dimension\."):
        net_of(biases=[np.ones((4, 1)), None])
    with pytest.raises(ValueError, match=r"^vector has shape \(2, 3\); expected 1 dimension\."):
        net_of().unflatten(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"^vector has shape \(5,\); expected \(26,\)"):
        net_of().unflatten(np.ones(5))


def test_samples_do_not_match():
    with pytest.raises(ValueError, match=r"^Y has 5 rows, but X has 6; expected .*\(6, 3\) and \(5, 2\): samples are"):
        loss_of(Y=np.ones((5, 2)))


def test_data_do_not_match_the_network():
    net = net_of()
    calls = [
        lambda loss: loss(net),
        lambda loss: loss.gradient(net),
        lambda loss: loss.value_and_gradient(net),
        lambda loss: loss.hessian(net, params=[1]),
        lambda loss: hk.fit(net, loss, lr=0.1, max_steps=1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^X has shape \(6, 4\); expected \(N, 3\) for a network with 3 inputs"):
            call(loss_of(X=np.ones((6, 4))))
        with pytest.raises(ValueError, match=r"^Y has shape \(6, 5\); expected \(N, 2\) for a network with 2 outputs"):
            call(loss_of(Y=np.ones((6, 5))))


def test_transposed_samples_are_recognised():
    with pytest.raises(ValueError, match=r"^X has shape \(3, 6\); expected \(N, 3\).*looks transposed: samples are"):
        net_of().forward(np.ones((3, 6)))


def test_weights_that_do_not_fit():
    message = r"^weights\[1\] has shape \(2, 5\), but weights\[0\] has \(4, 3\); expected shape \(out, 4\)"
    with pytest.raises(ValueError, match=message):
        hk.LinearNetwork([np.ones((4, 3)), np.ones((2, 5))])
    with pytest.raises(ValueError, match=r"^biases\[0\] has shape \(3,\); expected \(4,\)"):
        net_of(biases=[np.ones(3), None])
    for wrong in ([None], [None] * 3):
        with pytest.raises(ValueError, match=rf"^biases has {len(wrong)} entries; expected 2"):
            net_of(biases=wrong)


@pytest.mark.parametrize("weights", [np.ones((2, 3, 3)), 5, None, {"0.weight": np.ones((2, 2))}])
def test_weights_that_are_no_list(weights):
    with pytest.raises(TypeError, match=r"^weights is a \w+; expected a list of matrices"):
        hk.LinearNetwork(weights)


def test_no_weights():
    with pytest.raises(ValueError, match=r"^weights is empty; expected at least one matrix"):
        hk.LinearNetwork([])


def test_mixed_dtypes_are_refused():
    f64, f32 = np.ones((6, 3)), np.ones((6, 3), dtype=np.float32)
    mixed = r"has dtype float32, but {} has float64; convert one of them"
    with pytest.raises(TypeError, match=r"^Y " + mixed.format("X")):
        loss_of(X=f64, Y=f32)
    with pytest.raises(TypeError, match=r"^weights\[1\] " + mixed.format(r"weights\[0\]")):
        hk.LinearNetwork([np.ones((3, 3)), f32])
    with pytest.raises(TypeError, match=r"^biases\[0\] " + mixed.format(r"weights\[0\]")):
        hk.LinearNetwork([f64], [f32[:, 0]])
    with pytest.raises(TypeError, match="^X " + mixed.format("the network")):
        net_of().forward(f32)
    with pytest.raises(TypeError, match="^X " + mixed.format("the network")):
        hk.SquaredLoss(f32, f32[:, :2])(net_of())


@pytest.mark.parametrize("net", [None, 3, [np.ones((2, 3))]])
def test_what_is_no_network(net):
    with pytest.raises(TypeError, match=r"^net is a \w+; expected a hesskern\.LinearNetwork"):
        loss_of()(net)
    with pytest.raises(TypeError, match=r"^net is a \w+; expected a hesskern\.LinearNetwork"):
        hk.fit(net, loss_of(), lr=0.1, max_steps=1)


def test_what_is_no_loss():
    with pytest.raises(TypeError, match=r"^loss is a function; expected a hesskern\.SquaredLoss"):
        hk.fit(net_of(), lambda net: 0.0, lr=0.1, max_steps=1)


@pytest.mark.parametrize("kind", ["half-sum", "SUM", "", None, 3])
def test_unknown_kind(kind):
    with pytest.raises(ValueError, match=r"^kind is .*; expected one of 'half_sum', 'sum', 'mean'"):
        loss_of(kind=kind)


NUMBERS = [
    (0, ValueError, r"is 0\.0; expected a number greater than 0"),
    (-0.1, ValueError, r"is -0\.1; expected a number greater than 0"),
    (float("nan"), ValueError, "is nan; expected a finite number"),
    (float("inf"), ValueError, "is inf; expected a finite number"),
    (-float("inf"), ValueError, "is -inf; expected a finite number"),
    (10**400, ValueError, "is .*; expected a finite number"),
    ("0.1", TypeError, r"is '0\.1' \(of type str\); expected a real number"),
    (None, TypeError, r"is None .*; expected a real number"),
    (1j, TypeError, "is 1j .*; expected a real number"),
    (True, TypeError, "is True .*; expected a real number"),
    ([0.1], ValueError, "has rates for 1 steps; expected one for each of max_steps = 2"),
    (np.array([[0.1]]), ValueError, r"has shape \(1, 1\); expected a number, a function of the step"),
]


@pytest.mark.parametrize(("value", "error", "message"), NUMBERS, ids=[str(n[0])[:10] for n in NUMBERS])
def test_learning_rate(value, error, message):
    with pytest.raises(error, match="^lr " + message):
        fit(lr=value)


@pytest.mark.parametrize("value", [1, np.float32(0.5), np.float64(0.5), np.array(0.5), Fraction(1, 2)])
def test_any_real_number_is_a_learning_rate(value):
    np.testing.assert_array_equal(fit(lr=value).network.flatten(), fit(lr=float(value)).network.flatten())


@pytest.mark.parametrize("name", ["rtol", "weight_decay"])
def test_numbers_that_may_be_zero(name):
    def call(value):
        return fit(rtol=value) if name == "rtol" else loss_of(weight_decay=value)

    call(0)
    with pytest.raises(ValueError, match=rf"^{name} is -1\.0; expected a number greater than or equal to 0"):
        call(-1)
    with pytest.raises(ValueError, match=f"^{name} is nan; expected a finite number"):
        call(np.nan)
    with pytest.raises(TypeError, match=f"^{name} is 'no' .*expected a real number"):
        call("no")


@pytest.mark.parametrize("name", ["max_steps", "record_every"])
def test_counts(name):
    for value in (0, -3):
        with pytest.raises(ValueError, match=f"^{name} is {value}; expected at least 1"):
            fit(**{name: value})
    for value in (1.0, "5", None, True):
        with pytest.raises(TypeError, match=f"^{name} is .*; expected an integer"):
            fit(**{name: value})
    assert fit(**{name: np.int32(1)}).steps >= 1


def test_words_of_fit():
    with pytest.raises(ValueError, match=r"^reduce is 'yes'; expected one of 'auto', 'none'"):
        fit(reduce="yes")
    with pytest.raises(ValueError, match=r"^record holds 'sharpnes' .*; expected names of"):
        fit(record=("sharpnes",))
    with pytest.raises(TypeError, match=r"^record is 'loss' .*; expected a list"):
        fit(record="loss")


@pytest.mark.parametrize("widths", [[3], [], [3, 0], [3, 2.5], [3, -1]])
def test_random_widths(widths):
    with pytest.raises((ValueError, TypeError), match=r"^widths"):
        hk.LinearNetwork.random(widths)


@pytest.mark.parametrize("thing", [object(), "data", None, [[1.0, 2.0], [3.0]], {1.0: 2.0}])
def test_what_is_no_array_at_all(thing):
    with pytest.raises((TypeError, ValueError), match=r"^X (is|has) "):
        hk.SquaredLoss(thing, np.ones((6, 2)))


# out=


def frozen(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def block():
    given = problem()
    return given.loss().hessian(given.network(), params=[1])  # (10, 10): 2 outputs, 4 inputs and a bias


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty((9, 10)), ValueError, r"out has shape \(9, 10\); expected \(10, 10\)\. Make it with numpy\.empty\("),
        (np.empty(100), ValueError, r"out has shape \(100,\); expected \(10, 10\)"),
        (np.empty((1, 10, 10)), ValueError, r"out has shape \(1, 10, 10\); expected"),
        (np.empty((10, 10), dtype=np.float32), TypeError, "out has dtype float32; expected float64"),
        (np.empty((10, 10), dtype=np.complex128), TypeError, "out has dtype complex128; expected float64"),
        (np.empty((10, 10), dtype=np.int64), TypeError, "out has dtype int64; expected float64"),
        (np.empty((10, 10), dtype=np.dtype("f8").newbyteorder("S")), TypeError, "out has dtype .f8; expected float64"),
        (np.empty((10, 10), order="F"), ValueError, r"out is not C-contiguous \(strides \(8, 80\)\)"),
        (np.empty((10, 20))[:, ::2], ValueError, r"out is not C-contiguous \(strides \(160, 16\)\)"),
        (np.empty((10, 10))[::-1], ValueError, r"out is not C-contiguous \(strides \(-80, 8\)\)"),
        (frozen(np.zeros((10, 10))), ValueError, "out is read-only; expected an array that can be written"),
        ([[0.0] * 10] * 10, TypeError, "out is a list; expected a numpy array"),
        (5, TypeError, "out is a int; expected a numpy array"),
    ],
)
def test_wrong_out(backend, out, error, message):
    before = np.array(out)
    with pytest.raises(error, match="^" + message):
        block().toarray(out=out)
    np.testing.assert_array_equal(np.array(out), before)


def test_out_inside_a_larger_array(backend):
    frame = np.full((12, 10), -7.0)
    H = block()
    assert H.toarray(out=frame[1:11]) is not None
    np.testing.assert_array_equal(frame[1:11], H.toarray())
    assert (frame[[0, 11]] == -7.0).all()


def test_divergence_gives_no_nan_silently(backend):
    given = problems.normal([3, 20, 2], 6)
    run = hk.fit(given.network(), given.loss(), lr=10.0, max_steps=100)
    assert run.status == "diverged"
    assert "diverged" in repr(run)
    assert np.isfinite(run.network.flatten()).all()
    assert np.isfinite(run.history["loss"]).all()
