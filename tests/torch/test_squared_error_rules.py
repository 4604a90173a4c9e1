"""Each rule against the operation itself: half the second derivative of what it says is that of PyTorch's result."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hesskern.torch.squared_error_rules import RULES, Norm, Residual, Squared  # noqa: E402
from hesskern.torch_modules.chain import TracedSamples, UnsupportedError  # noqa: E402

E = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
RESIDUAL = Residual(TracedSamples(), E)


def rule(name, *arguments, result=E, **options):
    return RULES[name](*arguments, result=result, count=E.numel(), **options)


ENTRIES = E.square()
SUMMED = ENTRIES.sum()
CASES = {
    "a square, summed": (lambda: rule("sum", rule("square", RESIDUAL), result=SUMMED), SUMMED),
    "a power, averaged": (lambda: rule("mean", rule("pow", RESIDUAL, 2), result=SUMMED), ENTRIES.mean()),
    "sums of rows": (lambda: rule("sum", rule("pow", RESIDUAL, 2), result=ENTRIES.sum(1), dim=1), SUMMED),
    "means of rows": (
        lambda: rule("mean", rule("pow", RESIDUAL, 2), result=ENTRIES.mean(1), dim=1), ENTRIES.mean(1).sum(),
    ),
    "a product with itself": (lambda: rule("mul", RESIDUAL, RESIDUAL), SUMMED),
    "scaled on the way": (lambda: rule("mul", 3.0, rule("pow", RESIDUAL, 2)), 3.0 * SUMMED),
    "divided": (lambda: rule("div", rule("pow", RESIDUAL, 2), torch.tensor(4.0)), SUMMED / 4.0),
    "negative": (lambda: rule("neg", rule("pow", RESIDUAL, 2)), -SUMMED),
    "a norm, squared": (lambda: rule("pow", rule("norm", RESIDUAL, result=SUMMED), 2), SUMMED),
    "another norm": (lambda: rule("square", rule("linalg_vector_norm", RESIDUAL, result=SUMMED)), SUMMED),
    "a constant beside it": (lambda: rule("add", 7.0, rule("sum", rule("pow", RESIDUAL, 2)), result=SUMMED), SUMMED),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_factor_is_that_of_the_numbers(case):
    make, value = CASES[case]
    found = make()
    assert isinstance(found, Squared)
    torch.testing.assert_close(found.factor * found.residual.factor**2 * SUMMED, value)


def test_factors_of_a_residual():
    found = rule("neg", rule("mul", RESIDUAL, 0.5))
    assert isinstance(found, Residual) and found.factor == -0.5
    norm = rule("div", rule("norm", RESIDUAL, result=SUMMED), 2)
    assert isinstance(norm, Norm) and norm.residual.factor == 0.5


REFUSED = {
    "a cube": lambda: rule("pow", RESIDUAL, 3),
    "a sum that is not squared": lambda: rule("sum", RESIDUAL),
    "the largest singular value": lambda: rule("linalg_norm", RESIDUAL, 2, result=SUMMED),
    "a norm of rows": lambda: rule("norm", RESIDUAL, result=ENTRIES.sum(1)),
    "the sum of absolute values": lambda: rule("linalg_vector_norm", RESIDUAL, 1, result=SUMMED),
    "weights": lambda: rule("mul", rule("pow", RESIDUAL, 2), torch.ones(2)),
    "a truth value": lambda: rule("mul", rule("pow", RESIDUAL, 2), True),
    "a product of two squares": lambda: rule("mul", rule("pow", RESIDUAL, 2), rule("pow", RESIDUAL, 2)),
    "another dtype on the way": lambda: rule("sum", rule("pow", RESIDUAL, 2), dtype=torch.float32),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_squared_error(case):
    with pytest.raises(UnsupportedError):
        REFUSED[case]()
