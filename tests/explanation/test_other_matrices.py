"""`hesskern.explain`: what is no changed Hessian at all, made here by plain NumPy or PyTorch, and what is not it."""

from __future__ import annotations

import os

import corruptions
import numpy as np
import pytest
from looped import each, few_quick

import hesskern as hk

N = 30


def problem(kind="mean", *, outputs=1, bias=True, decay=0.0, hidden=5, seed=0):
    """A network, its loss, and the two as the plain functions below take them."""
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((N, 4)) * [1, 2, 0.5, 1] + [0, 1, 0, 3], rng.standard_normal((N, outputs))
    net = hk.LinearNetwork.random([4, hidden, outputs], seed=seed, bias=bias)
    return net, hk.SquaredLoss(X, Y, kind, decay)


def plain(net, loss):
    return corruptions.Problem(net.weights, net.biases, loss.X, loss.Y, loss.kind, loss.weight_decay)


def hessian(net, loss, X=None, Y=None):
    made = plain(net, loss)
    return corruptions.hessian(
        corruptions.Problem(
            made.weights, made.biases, loss.X if X is None else X, loss.Y if Y is None else Y, made.kind, made.decay
        )
    )


def sample_gradients(net, loss):
    """Of half the squared error of each sample, written out for two layers."""
    (W1, W2), (b1, b2) = net.weights, net.biases
    rows = []
    for x, y in zip(loss.X, loss.Y, strict=True):
        h = W1 @ x + (0 if b1 is None else b1)
        e = W2 @ h + (0 if b2 is None else b2) - y
        pieces = [np.outer(W2.T @ e, x), None if b1 is None else W2.T @ e, np.outer(e, h), None if b2 is None else e]
        rows.append(np.concatenate([piece.ravel() for piece in pieces if piece is not None]))
    return np.array(rows)


def causes(why):
    return [finding.cause for finding in why.findings]


KINDS = [("half_sum", 1, True), ("sum", 2, False), ("mean", 3, True)]


@pytest.mark.parametrize(("kind", "outputs", "bias"), KINDS)
def test_outer_products_of_gradients(kind, outputs, bias):
    net, loss = problem(kind, outputs=outputs, bias=bias)
    g = {"half_sum": 1, "sum": 2, "mean": 2 / outputs}[kind] * sample_gradients(net, loss)
    H, whole = hessian(net, loss), g.sum(0) / (N if kind == "mean" else 1)
    np.testing.assert_allclose(whole, loss.gradient(net), rtol=1e-9)
    centred = g - g.mean(0)
    for matrix, names in (
        (g.T @ g / N, ["empirical-fisher"]),
        (g.T @ g, ["empirical-fisher", "scale[N]"]),
        (g.T @ g / N + 0.01 * np.eye(len(H)), ["empirical-fisher", "damping"]),
        (centred.T @ centred / N, ["gradient-covariance"]),
        (np.outer(whole, whole), ["gradient-outer-product"]),
    ):
        why = hk.explain(matrix, net, loss)
        assert causes(why) == names, str(why)
        assert why.after < 1e-12
    block = (g.T @ g / N)[: net.weights[0].size, : net.weights[0].size]
    assert causes(hk.explain(block, net, loss, params=["0.weight"])) == ["empirical-fisher"]
    assert hk.explain(g.T @ g / N + 1e-6 * H, net, loss).status == "unexplained"


@pytest.mark.parametrize("kind", ["half_sum", "sum", "mean"])
def test_targets_that_broadcast(kind):
    torch = pytest.importorskip("torch")
    net, loss = problem(kind)
    sizes = [parameter.size for pair in zip(net.weights, net.biases, strict=True) for parameter in pair]
    X, y = torch.tensor(loss.X), torch.tensor(loss.Y[:, 0])

    def value(theta):
        a, b, c, d = torch.split(theta, sizes)
        error = (X @ a.view(5, 4).T + b) @ c.view(1, 5).T + d - y  # (N, N)
        return {"half_sum": 0.5, "sum": 1.0}.get(kind, 1 / error.numel()) * error.square().sum()

    matrix = torch.autograd.functional.hessian(value, torch.tensor(net.flatten())).numpy()
    why = hk.explain(matrix, net, loss)
    assert causes(why) == ["targets-broadcast"] and "Y.reshape(-1, 1)" in why.findings[0].fix


@pytest.mark.parametrize(("kind", "outputs", "bias"), KINDS)
def test_data_that_were_prepared(kind, outputs, bias):
    net, loss = problem(kind, outputs=outputs, bias=bias)
    X, Y = loss.X, loss.Y
    for name, other in {
        "X-centred": (X - X.mean(0), Y),
        "X-standardised": ((X - X.mean(0)) / X.std(0), Y),
        "X-standardised[ddof=1]": ((X - X.mean(0)) / X.std(0, ddof=1), Y),
        "Y-standardised": (X, (Y - Y.mean(0)) / Y.std(0)),
        "XY-standardised": ((X - X.mean(0)) / X.std(0), (Y - Y.mean(0)) / Y.std(0)),
        "X-scaled-to-one": ((X - X.min(0)) / (X.max(0) - X.min(0)), Y),
        "X-rows-normalised": (X / np.linalg.norm(X, axis=1, keepdims=True), Y),
    }.items():
        why = hk.explain(hessian(net, loss, *other), net, loss)
        assert [name] in [causes(why), *(list(each.causes) for each in why.alternatives)], str(why)
    assert causes(hk.explain(2 * hessian(net, loss, X - X.mean(0)), net, loss)) == ["X-centred", "scale[2]"]


@pytest.mark.parametrize("decay", [0.25, pytest.param(0.0, marks=pytest.mark.long)])
@pytest.mark.long
def test_diagonals_added_by_group(decay):
    net, loss = problem(decay=decay)
    bare = hessian(net, hk.SquaredLoss(loss.X, loss.Y, loss.kind))
    sizes = [20, 5, 5, 1]

    def why(values, times=1.0):
        return hk.explain(times * (bare + np.diag(np.repeat(values, sizes))), net, loss)

    for values, name in (
        ([0.05, 0, 0.05, 0], "decay-of-weights-only"),
        ([0, 0.5, 0, 0.5], "decay-of-biases-only"),
        ([0.1, 0.1, 0.3, 0.3], "damping-by-layer"),
        ([0.1, 0.2, 0.3, 0.4], "damping-by-parameter"),
    ):
        once = why(values)
        assert causes(once) == [name], values
        assert f"{max(values):g}" in once.findings[0].words
        assert set(causes(why(values, 2.0))) == {name, "scale[2]"}
    assert causes(why([decay + 0.1] * 4)) == ["damping"]
    matrix = bare + decay * np.eye(31)
    assert causes(hk.explain(matrix + 0.3 * np.diag(np.diag(bare)), net, loss)) == ["damping-of-the-diagonal"]
    # Nothing is on the diagonal but rounding, where everything else takes three names.
    order = corruptions.order_index(plain(net, loss), net.parameter_names, ["vec-column"])
    gauss_newton = 2.0 * corruptions.parts(plain(net, loss), net.parameter_names)[0][np.ix_(order, order)]
    assert set(causes(hk.explain(gauss_newton, net, loss))) == {"gauss-newton", "vec-column", "scale[2]"}
    one = matrix.copy()
    one[7, 7] += 0.1  # of one entry, no group has it
    assert hk.explain(one, net, loss).status == "unexplained"
    assert hk.explain(np.diag(np.repeat([0.1, 0.2, 0.3, 0.4], sizes)), net, loss).status == "unexplained"


@pytest.mark.parametrize(("kind", "outputs", "bias", "decay"), [("sum", 2, False, 0.0), ("mean", 3, True, 0.1)])
def test_vectors_are_no_eigenvalues(kind, outputs, bias, decay):
    net, loss = problem(kind, outputs=outputs, bias=bias, decay=decay)
    H, W1 = hessian(net, loss), net.weights[0]
    gradient = {"half_sum": 1, "sum": 2, "mean": 2 / (N * outputs)}[kind] * sample_gradients(net, loss).sum(0)
    gradient += decay * net.flatten()
    for vector, name in (
        (np.diag(H), "diagonal"),
        (gradient, "gradient"),
        (H.sum(1), "row-sums"),
        (net.flatten(), "parameters"),
    ):
        first = vector[: W1.size]
        for candidate in (vector, vector[None], vector[:, None], first.reshape(W1.shape), first.reshape(W1.shape).T):
            why = hk.explain(candidate.copy(), net, loss)
            assert causes(why) == [name], (candidate.shape, str(why))
        assert causes(hk.explain(-2.0 * vector, net, loss)) == [name, "scale[-2]"]
    # The eigenvalues themselves, and what is nothing of the kind.
    assert hk.explain(np.linalg.eigvalsh(H), net, loss).status == "match"
    nothing = np.random.default_rng(99).standard_normal(W1.shape)
    why = hk.explain(nothing, net, loss)
    assert why.status == "invalid" and any("shape of W1" in note for note in why.notes)


def singular():
    """A network and data whose Hessian is singular."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((50, 4)), rng.standard_normal((50, 3))
    return hk.LinearNetwork.random([4, 10, 3], seed=0), hk.SquaredLoss(X, Y, kind="mean")


@each(
    ("solved", "name"),
    [
        (np.linalg.cond, "noise"),
        (lambda H: np.linalg.cond(H.astype(np.float32)), "noise[float32]"),
        (lambda H: float(np.linalg.cond(H.astype(np.float32))), "noise[float32]"),
        (lambda H: f"{np.linalg.cond(H.astype(np.float32)):.1e}", "noise[float32]"),
        (lambda H: np.linalg.eigvalsh(H.astype(np.float32))[-1], "solver-rounding[float32]"),
    ],
    quick=3,
)
def test_what_dense_solvers_make_of_a_singular_matrix(solved, name):
    net, loss = singular()
    why = hk.explain(solved(hessian(net, loss)), net, loss)
    assert causes(why) in ([name], []) and why.status in ("explained", "match"), str(why)
    assert causes(why) or why.status == "match"


# Sixteen digits that no float32 has, and ordinary sizes.
@each("number", [123456789.12345678, 3456.789123456789, 77777.0, "31.4159"], quick=1)
def test_numbers_that_no_solver_gives(number):
    assert hk.explain(number, *singular()).status == "unexplained"


def test_the_rounding_of_dense_solvers():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((50, 4)), rng.standard_normal((50, 3))
    X[:, 3] = X[:, 2] + 1e-7 * rng.standard_normal(50)
    net, loss = hk.LinearNetwork.random([4, 3], seed=0), hk.SquaredLoss(X, Y, kind="mean")
    H = hessian(net, loss)
    why = hk.explain(float(np.linalg.cond(H)), net, loss)
    assert causes(why) == ["solver-rounding[float64]"] and "the rounding of a dense solver" in why.verdict
    assert causes(hk.explain(float(np.linalg.cond(H.astype(np.float32))), net, loss))[0].startswith("noise")
    assert hk.explain(1e7 / 3, net, loss).status == "unexplained"


@pytest.mark.parametrize("outputs", [3, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.long
def test_eigvalsh_of_what_is_not_symmetric(outputs):
    net, loss = problem("half_sum", outputs=outputs, bias=False, hidden=9)
    (A, B), C = net.weights, loss.X.T @ loss.X / N
    K = np.kron(B @ B.T, C) + np.kron(np.eye(outputs), A.T @ A @ C)
    for uplo in "LU":
        values = np.linalg.eigvalsh(K, UPLO=uplo)
        why = hk.explain(float(np.abs(values).max() / np.abs(values).min()), net, loss)
        assert causes(why)[0].startswith("eigvalsh[end-to-end"), str(why)
        assert hk.explain(N * values, net, loss).findings[0].cause.startswith("eigvalsh[end-to-end")
    assert hk.explain(float(np.linalg.cond(K)), net, loss).status == "unexplained"


@each("value", [0.0, 5e-324, 1e-310, 1e308, -1e308, np.inf, np.nan], quick=4)
def test_numbers_of_every_size_are_answered(value):
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork.random([2, 2, 1], seed=1)
    loss = hk.SquaredLoss(rng.standard_normal((2, 2)), rng.standard_normal((2, 1)))
    H = hessian(net, loss)
    with np.errstate(all="ignore"):
        candidates = value, np.full_like(H, value), np.full(len(H), value), H * value, H[0] * value
    for candidate in candidates:
        assert hk.explain(candidate, net, loss).status in ("match", "explained", "unexplained", "invalid")
    for symmetric in (False, True):
        matrix = H.copy()
        matrix[0, 1] = value
        matrix[1, 0] = value if symmetric else matrix[1, 0]
        assert hk.explain(matrix, net, loss).status in ("unexplained", "invalid")


def test_texts_of_every_size_are_answered():
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork.random([2, 2, 1], seed=1)
    loss = hk.SquaredLoss(rng.standard_normal((2, 2)), rng.standard_normal((2, 1)))
    with pytest.raises(ValueError, match="a number that float64 can hold"):
        hk.explain("1e999", net, loss)
    for text in ("0e999", "1e-999", "0." + "0" * 400 + "1"):
        assert hk.explain(text, net, loss).status == "unexplained"


@each("values", [[0, 0], np.zeros(26), [-3.7, -3.7], [1.25, 7.5], np.full(26, 1e-320), np.full(26, 1e308)], quick=1)
def test_eigenvalues_that_say_nothing(values):
    """Zeros, and one or two values: a factor and a shift make these of any others; squares of 1e-320 are zero."""
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork.random([3, 4, 2], seed=0, bias=True)
    loss = hk.SquaredLoss(rng.standard_normal((20, 3)), rng.standard_normal((20, 2)))
    assert net.num_parameters == 26
    assert hk.explain(values, net, loss).status == "unexplained"


@pytest.mark.long
def test_what_shows_that_a_number_is_a_float32():
    net, loss = singular()
    single = hessian(net, loss).astype(np.float32)  # of rank 63 of 70
    values = np.linalg.svd(single, compute_uv=False)
    for number in (values[0] / values[62], float(values[0] / values[62])):
        why = hk.explain(number, net, loss, quantity="condition")
        assert why.status == "match" or causes(why) == ["solver-rounding[float32]"], str(why)
    assert any("may be rounding noise" in note for note in hk.explain("1.5e6", net, loss).notes)
    assert not any("may be" in note for note in hk.explain(1500000.123456, net, loss).notes)


# Digits of float64, sizes that float32 solvers do not give here, and sizes that other matrices really have.
@each("number", [204123456.7, "31234567.25", "3e7", 3e5, np.float32(1e6), "123456", 12345678], quick=1)
def test_what_shows_that_a_number_is_no_float32(number):
    why = hk.explain(number, *singular(), quantity="condition")
    assert why.status == "unexplained", str(why)


@pytest.mark.parametrize("seed", few_quick(range(11), 1))
def test_random_corruptions_of_a_small_network(seed):
    count = (1000 if "HESSKERN_EXPLAIN_SUITE" in os.environ else 100) if seed else 30  # explain takes 60 ms for each
    rng = np.random.default_rng(seed)
    net = hk.LinearNetwork.random([2, 2, 1], seed=1)
    loss = hk.SquaredLoss(rng.standard_normal((4, 2)), rng.standard_normal((4, 1)))
    H = hessian(net, loss)
    for _ in range(count):
        matrix = H.copy()
        some = rng.integers(0, matrix.size, rng.integers(1, 5))
        matrix.ravel()[some] = 10.0 ** rng.uniform(-320, 308, len(some))
        why = hk.explain(matrix, net, loss)
        assert why.status in ("unexplained", "invalid"), (matrix, str(why))


def test_a_hessian_out_of_range_is_said_to_be():
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork.random([3, 2, 2], seed=0)
    for size in (1e80, 1e-80):
        loss = hk.SquaredLoss(size * rng.standard_normal((5, 3)), size * rng.standard_normal((5, 2)))
        why = hk.explain(loss.hessian(net).toarray(), net, loss)
        assert why.status == "invalid" and causes(why) == ["out-of-range"]
