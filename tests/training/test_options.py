"""Bad arguments of fit and fit_ensemble: one sentence that names the argument, what it was and what was expected."""

from __future__ import annotations

import re

import numpy as np
import problems
import pytest
from trainings import starts, with_biases

import hesskern as hk


def given(**options):
    return problems.normal([3, 9, 2], 8, bias=True, **options)


def fit(problem=None, **options):
    problem = problem or given()
    return hk.fit(problem.network(), problem.loss(), **({"lr": 0.001, "max_steps": 5} | options))


def ensemble(nets="given", loss="given", **options):
    problem = given()
    nets = starts(problem, 3) if isinstance(nets, str) and nets == "given" else nets
    loss = problem.loss() if isinstance(loss, str) and loss == "given" else loss
    return hk.fit_ensemble(nets, loss, **({"lr": 0.001, "max_steps": 5} | options))


#: Names of parameters are refused by the list of those that there are.
EXPECTED = "(expected|the network has|layers are counted from)"


def refuses(call, name, value=None):
    """Expect an error that begins with the name, says "expected", and shows the value where it is short."""
    shown = "" if value is None or len(repr(value)) > 30 else f".*{re.escape(repr(value))}"
    with pytest.raises((TypeError, ValueError), match=rf"(?s)^{name}(?!\w){shown}.*{EXPECTED}") as caught:
        call()
    message = str(caught.value)
    assert len(message) < 400
    assert message.endswith(".")
    assert type(caught.value) in (TypeError, ValueError)


BAD = {
    "momentum": [-0.1, float("nan"), float("inf"), "0.9", None, 1j, True, [0.9]],
    "nesterov": ["yes", None, 1.5, [True]],
    "batch_size": [0, -3, 2.5, "all", True, [2]],
    "shuffle": ["no", None, 2.0, [True]],
    "seed": [-1, 1.5, "a", None, True],
    "checkpoint_every": [0, -1, 2.5, "10", True],
    "checkpoint": [5, True, ["a"], 1.5],
    "resume": [5, True, ["a"], 1.5],
    "record": [("sharpnes",), ("loss[0]",), ("balance[0]",), ("condition[9]",), ("rank[9.weight]",), ("condition[]",),
               ("smallest[1.weight",), ("condition [0]x",), (1,), (None,), "loss", 5, None, {"loss": 1}],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_bad_values(backend, tmp_path, name, value):
    options = {name: value}
    if name == "checkpoint_every":
        options["checkpoint"] = tmp_path / "state.npz"
    if name in ("shuffle", "seed"):
        options["batch_size"] = 2
    if name == "nesterov":
        options["momentum"] = 0.5
    shown = value[0] if name == "record" and isinstance(value, tuple) else value
    refuses(lambda: fit(**options), name, shown)
    if not (name == "seed" and value is None):
        refuses(lambda: ensemble(**options), name, shown)


BAD_RATES = [
    np.zeros((5, 2)), np.full(4, 0.1), np.array([]), [], np.array([0.1, 0.1, -0.1, 0.1, 0.1]),
    np.array([0.1, np.nan, 0.1, 0.1, 0.1]), np.array([0.1, np.inf, 0.1, 0.1, 0.1]), np.full(5, 1j), np.full(5, "0.1"),
    ["a"] * 5, [[0.1], [0.1, 0.2]], np.array([None] * 5), np.full(5, True), {"lr": 0.1}, object(),
]  # fmt: skip


@pytest.mark.parametrize("value", BAD_RATES, ids=range(len(BAD_RATES)))
def test_bad_schedules(backend, value):
    refuses(lambda: fit(lr=value), "lr")


@pytest.mark.parametrize(
    "value", [np.full((2, 5), 0.1), np.full(4, 0.1), np.full((3, 4), 0.1), np.full((3, 5, 1), 0.1), -np.ones(3), [0.1]]
)
def test_bad_schedules_of_ensembles(backend, value):
    refuses(lambda: ensemble(lr=value), "lr")


@pytest.mark.parametrize(
    "value", [-0.1, float("nan"), float("inf"), "0.1", None, np.full(2, 0.1), [0.1], 1j, object()], ids=range(9)
)
def test_bad_answers_of_a_function(backend, value):
    """They are found at their step, and the message says at which."""

    def lr(step):
        return value if step == 3 else 0.001

    refuses(lambda: fit(lr=lr), r"lr\(3\)")
    if not isinstance(value, np.ndarray):
        refuses(lambda: ensemble(lr=lr), r"lr\(3\)")
    refuses(lambda: ensemble(lr=lambda step: np.full(2, 0.1)), r"lr\(0\)")


def test_what_goes_together(backend):
    refuses(lambda: fit(nesterov=True), "nesterov")  # without momentum, as torch.optim.SGD
    refuses(lambda: fit(checkpoint_every=5), "checkpoint_every")
    with pytest.raises(ValueError, match=r"^record holds .batch_loss., but batch_size is None"):
        fit(record=("loss", "batch_loss"))


def test_a_bias_that_is_not_there(backend):
    problem = with_biases(given(), [0])
    fit(problem, record=("condition[0.bias]", "rank[1.weight]"))
    refuses(lambda: fit(problem, record=("condition[1.bias]",)), "record", "condition[1.bias]")
    refuses(lambda: fit(problem, record=("condition[0.weight,1.bias]",)), "record")


def test_a_batch_larger_than_the_data_is_all_of_it(backend):
    """As a DataLoader does."""
    whole, larger = fit(batch_size=8, seed=3), fit(batch_size=100, seed=3)
    np.testing.assert_array_equal(whole.network.flatten(), larger.network.flatten())


def test_nets_that_are_no_ensemble(backend):
    problem = given()
    nets = starts(problem, 3)
    plain, single = problems.normal([3, 9, 2], 8).network(), problem.network("float32")
    other = hk.LinearNetwork.random([3, 8, 2], seed=0, bias=True)
    for wrong in ([], nets[0], None, "nets", 5, [nets[0], None], [nets[0], "net"], np.ones(3)):
        refuses(lambda wrong=wrong: ensemble(wrong), "nets")
    for wrong, index in ((other, 1), (plain, 2), (single, 1)):
        mixed = list(nets)
        mixed[index] = wrong
        refuses(lambda mixed=mixed: ensemble(mixed), "nets")
        with pytest.raises((TypeError, ValueError), match=rf"nets\[{index}\]"):
            ensemble(mixed)


def test_losses_that_do_not_fit(backend):
    problem = given()
    one = problem.loss()
    for wrong in ([], [one, one], [one] * 4, None, "loss", [one, one, None], problem.X):
        refuses(lambda wrong=wrong: ensemble(loss=wrong), "loss")
    for wrong in (
        hk.SquaredLoss(problem.X[:5], problem.Y[:5]),
        hk.SquaredLoss(problem.X, problem.Y, "mean"),
        hk.SquaredLoss(problem.X, problem.Y, weight_decay=0.1),
    ):
        with pytest.raises(ValueError, match=r"\bloss\[1\]"):
            ensemble(loss=[one, wrong, one])
    with pytest.raises(TypeError, match=r"X has dtype float32"):
        ensemble(loss=[one, problem.loss("float32"), one])


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, [1]], ids=repr)
def test_threads(backend, value):
    refuses(lambda: ensemble(threads=value), "threads", value)


@pytest.mark.parametrize(
    "value", [[1, 2], [1, 2, -3], [1, 2, 3.5], ["a", "b", "c"], np.zeros((3, 1), int), -1, 1.5, "abc"]
)
def test_seeds_of_an_ensemble(backend, value):
    refuses(lambda: ensemble(seed=value, batch_size=2), "seed")


def test_arguments_are_checked_before_training(backend):
    """Nothing of it waits for the end of a long run, which asks for the rate of each of its steps."""
    asked = []

    def rate(step):
        asked.append(step)
        return 0.1

    for options in ({"momentum": -1}, {"record": ("loss", "nothing")}, {"seed": -1}, {"batch_size": 0}):
        with pytest.raises((TypeError, ValueError)):
            fit(**({"max_steps": 10**9, "lr": rate} | options))
    with pytest.raises(ValueError, match="lr"):
        fit(max_steps=10**9, lr=np.full(5, 0.1))
    assert len(asked) <= 1


def test_positional_arguments_are_refused():
    """lr and max_steps are easily swapped."""
    problem = given()
    with pytest.raises(TypeError, match="positional"):
        hk.fit(problem.network(), problem.loss(), 0.1, 5)
    with pytest.raises(TypeError, match="positional"):
        hk.fit_ensemble([problem.network()], problem.loss(), 0.1, 5)
