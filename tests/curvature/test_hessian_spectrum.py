"""The complete spectrum, against eigenvalues of the dense matrix from autograd."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
import witness
from looped import each
from scipy.sparse.linalg import eigsh
from witness import relative

import hesskern as hk


def near(values, at, distance):
    return int(np.sum(np.abs(values - at) <= distance))


def check_complete(spectrum, dense, tolerance=1e-12):
    """All eigenvalues, and every multiplicity stated is that of the dense matrix."""
    values = np.linalg.eigvalsh(dense)
    size = np.abs(values).max(initial=0.0)
    assert spectrum.size == len(values) == spectrum.multiplicities.sum()
    assert (np.diff(spectrum.values) >= 0).all()
    assert (spectrum.multiplicities > 0).all()
    np.testing.assert_allclose(spectrum.expand(), values, rtol=0, atol=tolerance * size)
    all_values = spectrum.expand()
    for value, count in zip(spectrum.values, spectrum.multiplicities, strict=True):
        found = near(values, value, 2 * tolerance * size)
        assert count <= found
        assert found == near(all_values, value, 2 * tolerance * size)


@each("seed", problems.GENERAL, quick=16)
def test_the_spectrum_is_complete(backend, seed):
    problem = problems.general(seed)
    full, gauss_newton = witness.of_general(seed)
    functional = full - gauss_newton - problem.weight_decay * np.eye(len(full))
    H = problem.loss().hessian(problem.network())
    size = np.abs(np.linalg.eigvalsh(full)).max()
    check_complete(H.spectrum(), full)
    check_complete(H.gauss_newton().spectrum(), gauss_newton)
    found = H.functional().spectrum()
    np.testing.assert_allclose(found.expand(), np.linalg.eigvalsh(functional), rtol=0, atol=1e-12 * size)
    assert H.spectrum().trace == pytest.approx(np.trace(full), rel=1e-11, abs=1e-11 * size)
    np.testing.assert_array_equal(H.eigvalsh(), H.spectrum().expand())
    for layer, at in enumerate(oracle.layer_slices(problem.weights, problem.biases)):
        check_complete(H.block(layer, layer).spectrum(), full[at, at])


@each("seed", [seed for seed in range(300) if seed % 5 >= 2][::4], quick=14)
def test_spectra_of_selections(backend, seed):
    problem = problems.general(seed)
    net, loss = problem.network(), problem.loss()
    rng = np.random.default_rng(seed)
    for _ in range(3):
        names = [name for name in net.parameter_names if rng.random() < 0.5] or ["0.weight"]
        H = loss.hessian(net, names)
        for operator in (H, H.gauss_newton(), H.functional()):
            check_complete(operator.spectrum(), operator.toarray())


def wide(seed, widths, bias, kind="half_sum", decay=0.0, samples=9):
    return problems.normal(widths, samples, seed, bias=bias, kind=kind, weight_decay=decay)


@pytest.mark.parametrize("decay", [0.0, 0.625])
@pytest.mark.parametrize("kind", problems.KINDS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("widths", [[3, 20, 2], [2, 20, 4], [1, 12, 1], [4, 30, 4]])
def test_multiplicities_of_a_wide_layer(backend, widths, bias, kind, decay):
    """Exactly (h - r) times each of ±σ(G), with G on [X 1], and (h - r)|i + b - o| zeros beside those of the rest."""
    problem = wide(0, widths, bias, kind, decay)
    inputs, hidden, outputs = widths
    left_over = hidden - inputs - bias - outputs
    data = np.hstack([problem.X, np.ones((9, 1))]) if bias else problem.X
    E = problem.network().forward(problem.X) - problem.Y
    scale = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[kind]
    sigma = scale * np.linalg.svd(E.T @ data, compute_uv=False)
    H = problem.loss().hessian(problem.network())
    spectrum = H.spectrum()
    check_complete(spectrum, H.toarray())
    repeated = spectrum.multiplicities >= left_over
    expected = np.sort(np.concatenate([sigma, -sigma, [0.0]])) + decay
    if inputs + bias == outputs:  # no zeros are left over, and no other part has so many
        expected = np.sort(np.concatenate([sigma, -sigma])) + decay
    relative(spectrum.values[repeated], expected, 1e-12)
    counts = spectrum.multiplicities[repeated]
    assert set(counts[spectrum.values[repeated] != decay]) == {left_over}


def distinct(widths, bias):
    """How many eigenvalues can differ: those of the network reduced until nothing is wide, the ± pairs, and zero."""
    widths, pairs = list(widths), 0
    for layer in [*range(1, len(widths) - 1)] * len(widths):
        around = widths[layer - 1] + bias + widths[layer + 1]
        if widths[layer] > around:
            pairs += 2 * min(widths[layer - 1] + bias, widths[layer + 1])
            widths[layer] = around
    return sum((i + bias) * o for i, o in zip(widths[:-1], widths[1:], strict=True)) + pairs + 1


@pytest.mark.quick_in_cpp
def test_several_wide_layers_at_once(backend):
    for seed, (widths, bias) in enumerate(
        [
            ([2, 9, 3, 9, 2], False),
            ([2, 9, 3, 9, 2], True),
            ([2, 30, 20, 2], False),  # the second only after the first
            ([2, 20, 30, 2], True),
            ([1, 8, 2, 9, 2, 8, 1], False),
            ([2, 40, 9, 3, 2], True),
            ([3, 12, 13, 14, 2], False),
        ]
    ):
        problem = wide(seed, widths, bias, "sum", 0.25)
        H = problem.loss().hessian(problem.network())
        for operator in (H, H.gauss_newton(), H.functional()):
            check_complete(operator.spectrum(), operator.toarray())
        assert len(H.spectrum().values) <= distinct(widths, bias)


def test_float32_spectra(backend):
    for seed in range(0, 60, 7):
        problem = problems.general(seed)
        H = problem.loss("float32").hessian(problem.network("float32"))
        values = np.linalg.eigvalsh(witness.of_general(seed)[0])
        found = H.spectrum().expand()
        assert found.dtype == np.float64
        relative(found, values, 2e-5)


HUGE = """
import sys, threading, time
import numpy as np, psutil, hesskern as hk

h = 1_000_000
rng = np.random.default_rng(0)
net = hk.LinearNetwork([rng.standard_normal((h, 10)) / 1000, rng.standard_normal((10, h)) / 1000])
loss = hk.SquaredLoss(rng.standard_normal((50, 10)), rng.standard_normal((50, 10)))
H = loss.hessian(net)
process, peak, done = psutil.Process(), [0], threading.Event()
def watch():
    while not done.is_set():
        peak[0] = max(peak[0], process.memory_info().rss)
        time.sleep(0.002)
before = process.memory_info().rss
watcher = threading.Thread(target=watch)
watcher.start()
spectrum, rank = H.spectrum(), H.rank()
done.set()
watcher.join()
weights = 2 * 8 * 10 * h
assert peak[0] - before <= 2 * weights, (peak[0] - before, weights)
P = 20 * h
assert spectrum.size == P == H.shape[0]
assert len(spectrum.values) == 400 + 20
sigma = np.linalg.svd((net.forward(loss.X) - loss.Y).T @ loss.X, compute_uv=False)
repeated = spectrum.multiplicities == h - 20
found, wanted = spectrum.values[repeated], np.sort(np.concatenate([sigma, -sigma]))
assert np.abs(found - wanted).max() <= 1e-12 * spectrum.max, np.abs(found - wanted).max()
all_of_them = np.abs(spectrum.values) @ spectrum.multiplicities
assert abs(spectrum.trace - H.trace()) <= 1e-14 * all_of_them
frobenius = np.sum(spectrum.values**2 * spectrum.multiplicities)
# The norm of the whole, block by block, from small matrices only.
W1, W2 = net.weights
S, Z = loss.X.T @ loss.X, loss.X @ W1.T
small = W2 @ W2.T
G = (net.forward(loss.X) - loss.Y).T @ loss.X
first = np.sum(small**2) * np.sum(S**2)
gram = Z @ Z.T
second = 10 * np.sum(gram**2)
# ||W_2[c,k] (X.T Z)[a,n] + G[c,a] d_kn||² = ||W_2||² ||X.T Z||² + h ||G||² + 2 <G, W_2 W_1 S>
cross = np.sum(W2**2) * np.sum((loss.X.T @ Z)**2) + h * np.sum(G**2) + 2 * np.sum(G * (W2 @ W1 @ S))
expected = first + second + 2 * cross
assert abs(frobenius / expected - 1) <= 1e-12, frobenius / expected
assert rank == P
print("done")
"""


@pytest.mark.long
def test_a_million_units(python):
    """P = 2e7, no matrix larger than 400 x 400 and no more memory than another copy of the weights twice."""
    done = python(HUGE, OPENBLAS_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


@pytest.mark.quick_in_cpp
def test_a_hundred_thousand_units_and_samples(backend):
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork([rng.standard_normal((20_000, 3)), rng.standard_normal((2, 20_000)) / 100])
    X, Y = rng.standard_normal((100_000, 3)), rng.standard_normal((100_000, 2))
    H = hk.SquaredLoss(X, Y, "mean").hessian(net)
    spectrum = H.spectrum()
    assert spectrum.size == 100_000
    v = rng.standard_normal(100_000)
    for which, expected in (("LA", spectrum.max), ("SA", spectrum.min)):
        found = eigsh(H, k=1, which=which, v0=v, return_eigenvectors=False)[0]
        assert found == pytest.approx(expected, rel=1e-10)
    assert spectrum.trace == pytest.approx(H.trace(), rel=1e-12)
