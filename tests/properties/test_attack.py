"""The adversary of `tests/attack`: its oracle, its judge, its driver; a few seeds of each group and all fixed cases."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import oracle
import problems
import pytest
from attack import __main__ as command
from attack import driver, exact_hessian, fixed_cases, generator, groups, loops, reduced_problems
from attack.judge import Judge
from attack.loops import RunPlan
from attack.methods import CHECKS
from attack.oracle import LONG, Truth, column_order, rank_of_integers
from looped import each

import hesskern as hk

# The oracle


@each("seed", range(0, 200, 8))
def test_truth_is_that_of_exact_differences(seed):
    problem = problems.deep_integers(seed)
    exact = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, problem.kind, problem.weight_decay)
    truth = Truth(problem)
    tolerance = {"rtol": 1e-15, "atol": 0}
    np.testing.assert_allclose(float(truth.loss), exact.loss, **tolerance)
    np.testing.assert_allclose(truth.gradient[0].astype(float), exact.gradient, **tolerance)
    np.testing.assert_allclose(truth.hessian().astype(float), exact.hessian, **tolerance)
    np.testing.assert_array_equal(
        truth.hessian(),
        truth.hessian("gauss_newton") + truth.hessian("functional") + truth.decay * np.eye(truth.count, dtype=LONG),
    )
    for value, size in ((truth.hessian(), truth.hessian_size()), truth.gradient):
        assert (abs(value) <= size * (1 + 1e-15)).all()


@each("seed", range(40))
def test_truth_is_that_of_autograd(seed):
    torch = pytest.importorskip("torch")
    problem = generator.draw(np.random.default_rng(seed))
    if problem.family in ("scaled", "graded", "deep") or sum(weight.size for weight in problem.weights) > 60:
        pytest.skip("too large or too graded for plain float64")
    theta = torch.from_numpy(loops.flat(problem, np.float64))
    X, Y = (torch.from_numpy(array.astype(np.float64)) for array in (problem.X, problem.Y))

    def loss(theta):
        at, values = 0, X
        for weight, bias in zip(problem.weights, problem.biases, strict=True):
            values = values @ theta[at : at + weight.size].reshape(weight.shape).T
            at += weight.size
            if bias is not None:
                values = values + theta[at : at + bias.size]
                at += bias.size
        squares = ((values - Y) ** 2).sum() * {"half_sum": 0.5, "sum": 1.0, "mean": 1.0 / Y.numel()}[problem.kind]
        return squares + problem.weight_decay / 2 * (theta**2).sum()

    truth = Truth(problem)
    wanted = torch.autograd.functional.hessian(loss, theta).numpy()
    size = truth.hessian_size().astype(float).max()
    assert abs(truth.hessian().astype(float) - wanted).max() <= 1e-13 * size
    theta.requires_grad_()
    gradient = torch.autograd.grad(loss(theta), theta)[0].numpy()
    assert abs(truth.gradient[0].astype(float) - gradient).max() <= 1e-13 * float(truth.gradient[1].max())


def test_rank_of_integers():
    rng = np.random.default_rng(0)
    for rank in range(6):
        matrix = rng.integers(-5, 6, (7, rank)) @ rng.integers(-5, 6, (rank, 6)) if rank else np.zeros((7, 6))
        assert rank_of_integers(matrix) == np.linalg.matrix_rank(matrix) == rank


def test_column_order():
    weights, biases = [np.arange(6.0).reshape(2, 3), np.arange(6.0, 8.0).reshape(1, 2)], [np.array([9.0, 10.0]), None]
    flat = np.concatenate([weights[0].ravel(), biases[0], weights[1].ravel()])
    assert flat[column_order(weights, biases)].tolist() == [0, 3, 1, 4, 2, 5, 9, 10, 6, 7]


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.6, False), (0.6, True)])
def test_the_loop_is_that_of_torch(momentum, nesterov):
    torch = pytest.importorskip("torch")
    normal = problems.normal([3, 4, 2], 6, 5, bias=True, kind="mean", weight_decay=0.1)
    problem = generator.RandomProblem("normal", normal.weights, normal.biases, normal.X, normal.Y, "mean", 0.1)
    found = loops.path(problem, RunPlan([0.05] * 7, 7, momentum=momentum, nesterov=nesterov), LONG)
    model = problem.network().to_torch()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum, weight_decay=0.1, nesterov=nesterov)
    for _ in range(7):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(torch.from_numpy(problem.X)), torch.from_numpy(problem.Y)).backward()
        optimizer.step()
    wanted = torch.cat([parameter.detach().ravel() for parameter in model.parameters()]).numpy()
    np.testing.assert_allclose(found.thetas[-1].astype(float), wanted, rtol=1e-12)


def test_every_family_and_side_is_drawn():
    drawn = [generator.draw(np.random.default_rng(seed)) for seed in range(1500)]
    assert {problem.family for problem in drawn} == set(generator.SHARES)
    assert {problem.kind for problem in drawn} == set(generator.KINDS)
    assert {str(problem.X.dtype) for problem in drawn} == {"float32", "float64"}
    assert max(len(problem.weights) for problem in drawn) >= 30
    assert any(len(problem.X) > 100 for problem in drawn) and any(len(problem.X) == 1 for problem in drawn)
    assert all(np.isfinite(array).all() for problem in drawn for array in (problem.X, problem.Y, *problem.weights))


# The judge


def test_the_judge_sees_a_lost_digit():
    judge = Judge()
    with judge.check("here"):
        judge.close(np.array([1.0, 2.0]), np.array([1.0, 2.0 + 4e-16]), 2.0, 1e-16)
        assert not judge.wrong
        judge.close(np.array([1.0, 2.0]), np.array([1.0, 2.0 + 1e-14]), 2.0, 1e-16)
        judge.close(np.array([np.inf]), np.array([1.0]), 1.0, 1e-16)
        judge.close(np.array([np.nan]), np.array([1.0]), 1.0, 1e-16)
        judge.ratio(np.nan)
        judge.ratio(1.0, 0.0)
        judge.same(np.array([1.0]), np.array([1.0 + 1e-15]), "it")
    assert len(judge.wrong) == 6 and all(sentence.startswith("here: ") for sentence in judge.wrong)
    assert "entry (1,) is 2 instead of 2.00000000000001" in judge.wrong[0]


SPOILED = {
    "product": lambda found: found * (1 + 1e-9),
    "toarray": lambda found: found + np.diag(np.full(len(found), 1e-9 * abs(found).max())),
    "diagonal": lambda found: found[::-1],
    "eigvalsh": lambda found: found * (1 + 1e-8),
    "solve": lambda found: found * 1.001,
}


@pytest.mark.parametrize("method", SPOILED)
def test_a_spoiled_method_is_found(method, monkeypatch):
    name = {"product": "_apply"}.get(method, method)
    true = getattr(hk.Hessian, name)  # also that of a Kronecker product
    monkeypatch.setattr(hk.Hessian, name, lambda self, *args, **more: SPOILED[method](true(self, *args, **more)))
    found = 0
    for seed in range(1, 13):
        judge = driver.run_case("problem", seed, backend="cpp", everything=True)
        found += any(sentence.startswith(f"{method}/cpp") for sentence in judge.wrong)
    assert found >= 4


# The driver


def test_everything_that_breaks_is_reported(tmp_path, capsys):
    path = tmp_path / "found.json"
    code = command.main(["--count", "broken=20", "--seed", "0", "--json", str(path)])
    said = capsys.readouterr().out
    assert code == 1
    assert said.count('again: make attack ATTACK_ARGS="--case broken:') == 10
    group = json.loads(path.read_text())["groups"]["broken"]
    assert (group["cases"], group["wrong"]) == (20, 10)
    sentences = dict(map(tuple, group["sentences"]))
    assert sorted(sentences) == sorted(f"broken:{seed}" for seed in (3, 5, 6, 7, 8, 13, 15, 16, 17, 18))


def test_one_case_again(capsys):
    assert command.main(["--case", "problem:1"]) == 0
    assert command.main(["--case", "broken:3"]) == 1
    assert "normalised residual 31" in capsys.readouterr().out


def test_exact_hessians_are_the_truth_of_all_families():
    seen = set()
    for seed in range(200):
        problem = reduced_problems.draw(np.random.default_rng([1, seed]))
        truth = Truth(problem)
        if truth.count > 20 or len(problem.X) > 12:
            continue
        seen.add(problem.family)
        problem.weight_decay = 0.0
        truth = Truth(problem)
        for mode in ("full", "gauss_newton", "functional"):
            found = exact_hessian.hessian(problem, mode).astype(float)
            off = abs(found - truth.hessian(mode).astype(float))
            assert (off <= 1e-14 * truth.hessian_size(mode).astype(float)).all(), (seed, mode)
    assert len(seen) >= 6


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("spectrum", "an eigenvalue is off"),
        ("condition", "value"),
        ("eigh", "H V - V values"),
        ("logdet", "instead of"),
    ],
)
def test_a_digit_lost_in_a_reduction_is_found(name, sentence, monkeypatch):
    method = getattr(hk.Hessian, name)

    def spoiled(self, *arguments, **options):
        found = method(self, *arguments, **options)
        if name == "spectrum":
            return hk.Spectrum(found.values * (1 + 1e-11), found.multiplicities)
        if name == "condition":
            return dataclasses.replace(found, value=found.value * (1 + 3 * found.uncertainty + 1e-14))
        return (found[0] * (1 + 1e-10), found[1]) if name == "eigh" else found * (1 + 1e-8)

    monkeypatch.setattr(hk.Hessian, name, spoiled)
    wrong = [line for seed in range(12) for line in driver.run_case("reductions", seed, backend="cpp").wrong]
    assert any(sentence in line for line in wrong)


# The package


QUICK = {"problem": 60, "fit": 12, "kill": 1, "softmax": 0, "exact": 6, "torch": 3, "reductions": 12}


@pytest.mark.parametrize("group", QUICK)
def test_some_seeds(group):
    if group not in groups.available():
        pytest.skip("not installed")
    for seed in range(QUICK[group]):
        judge = driver.run_case(group, seed, backend="cpp")
        assert not judge.wrong, f"{group}:{seed} " + "\n".join(judge.wrong)


@pytest.mark.long
def test_every_method_on_every_backend(backend):
    tried = set()
    for seed in range(100, 106):
        judge = driver.run_case("problem", seed, backend=backend.name, everything=True)
        assert not judge.wrong, f"problem:{seed} --everything " + "\n".join(judge.wrong)
        tried |= {name.split("/")[0] for name in judge.tried}
    assert tried == set(CHECKS)


@pytest.mark.parametrize("case", [case for cases in fixed_cases.FIXED.values() for case in cases])
def test_fixed_cases(case):
    group, seed = case.split(":")
    judge = driver.run_case(group, int(seed))
    assert not judge.wrong, f"{case} " + "\n".join(judge.wrong)


GRADED = [case.split(":")[1] for cases in fixed_cases.FIXED.values() for case in cases if case.startswith("grading:")]


@each("seed", GRADED)
def test_fixed_gradings_with_every_backend(backend, seed):
    """The graded decomposition stands in three texts."""
    judge = driver.run_case("grading", int(seed), backend=backend.name)
    assert not judge.wrong, "\n".join(judge.wrong)
