"""The rules by which a chain of linear layers is known: what each operation makes of samples and parameters."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hesskern.torch_modules.chain import (  # noqa: E402
    RULES,
    Layer,
    Parameter,
    TracedSamples,
    TracedShape,
    UnsupportedError,
    apply,
    described,
    passed,
)

W1, b1, W2 = (Parameter(name, torch.zeros(shape)) for name, shape in (("a", (4, 3)), ("b", (4,)), ("c", (2, 4))))
X = TracedSamples()


def names(samples):
    return [[parameter.name for parameter in layer.parameters] for layer in samples.layers]


def test_layers_in_every_form():
    wanted = [["a", "b"], ["c"]]
    by_linear = apply("linear", (apply("linear", (X, W1, b1), {}), W2), {})
    assert names(by_linear) == wanted
    turned = apply("t", (W1,), {})
    assert turned.transposed and turned.matrix.shape == (3, 4)
    by_hand = apply("add", (apply("matmul", (X, turned), {}), b1), {})
    by_hand = apply("mm", (by_hand, apply("transpose", (W2, 0, 1), {})), {})
    assert names(by_hand) == wanted and not by_hand.layers[0].weight.transposed
    assert names(apply("addmm", (b1, X, turned), {})) == [["a", "b"]]
    assert apply("getattr", (W1, "mT"), {}) == turned == apply("permute", (W1, (1, 0)), {})
    assert apply("transpose", (turned, -1, -2), {}) == W1


def test_samples_become_rows_once():
    flat = apply("flatten", (X,), {"start_dim": 1})
    assert flat.flat and not flat.layers
    count = apply("size", (X, 0), {})
    assert count == TracedShape(count=True) == apply("getitem", (apply("getattr", (X, "shape"), {}), 0), {})
    assert apply("view", (X, count, -1), {}) == flat == apply("reshape", (X, (-1, 12)), {})
    after = passed(X, Layer(W1))
    assert apply("view", (after, -1, 4), {}) == after == apply("dropout", (after, 0.5, False), {})


REFUSED = {
    "no rule": ("relu", (X,), "^$"),
    "an argument nobody knows": ("matmul", (X, W1, 3), "^$"),
    "of parameters only": ("matmul", (W1, W2), "^$"),
    "widths": ("linear", (passed(X, Layer(W1)), W1), "used twice"),
    "sizes": ("linear", (passed(X, Layer(W2)), W1), "takes 3 inputs, but the layer before it has 2 outputs"),
    "a vector as weight": ("linear", (X, b1), r"the weight 'b' has shape \(4,\); expected a matrix"),
    "a bias of another layer": ("linear", (X, W2, b1), "'b' has shape .*; expected .* for the bias of .* 'c'"),
    "a bias before all layers": ("add", (X, b1), "to the data, before the first layer"),
    "a residual connection": ("add", (X, X), "a residual connection"),
    "two biases": ("add", (passed(X, Layer(W1, b1)), Parameter("d", torch.zeros(4))), "a layer that has the bias 'b'"),
    "dropout": ("dropout", (X,), r"drops at random in training mode"),
    "rows taken apart": ("view", (passed(X, Layer(W1)), -1, 2), "it splits rows of samples"),
    "everything made one row": ("flatten", (X,), "expected start_dim=1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_rule_covers(case):
    name, arguments, message = REFUSED[case]
    with pytest.raises(UnsupportedError, match=message):
        apply(name, arguments, {})


def test_tied_weights_are_refused():
    shared = torch.zeros(3, 3)
    one = passed(X, Layer(Parameter("one", shared)))
    with pytest.raises(
        UnsupportedError, match=r"the parameters 'one' and 'other' are the same tensor \(tied weights\)"
    ):
        passed(one, Layer(Parameter("other", shared)))
    assert names(passed(one, Layer(Parameter("other", shared.clone())))) == [["one"], ["other"]]


def test_functions_as_a_user_writes_them():
    assert described(torch.relu) == "the function torch.relu"
    assert described(torch.nn.functional.gelu) == "the function torch.nn.functional.gelu"
    assert described(torch.Tensor.tanh) == "the method Tensor.tanh"
    assert described(torch.Tensor.T.__get__) == "the attribute Tensor.T"
    assert set(RULES) >= {"linear", "matmul", "add", "flatten"}
