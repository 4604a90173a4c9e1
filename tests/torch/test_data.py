"""Data in batches: the loss is that of all samples at once, and never are all of them in memory."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from hesskern.torch import data as module  # noqa: E402
from hesskern.torch_modules.tracing import trace  # noqa: E402


def model(*, bias=True, flat=False):
    layers = [nn.Linear(3, 4, bias=bias), nn.Linear(4, 2, bias=False)]
    return trace(nn.Sequential(*([nn.Flatten()] if flat else []), *layers).double())


def samples(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(count, width, generator=generator, dtype=torch.float64) for width in (3, 2))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 40, 401])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_batches_are_reduced_to_what_all_samples_are(monkeypatch, bias, count, size):
    monkeypatch.setattr(module, "_ROWS", 16)
    X, Y = samples(count)
    found, number = module.reduced(DataLoader(TensorDataset(X, Y), batch_size=size, shuffle=True), model(bias=bias))
    assert number == count
    assert len(found.X) <= 3 + bias
    joined = np.column_stack([X, *([np.ones(count)] if bias else []), Y])
    expected, rows = joined.T @ joined, np.column_stack([found.X, *([found.column] if bias else []), found.Y])
    inputs = 3 + bias
    np.testing.assert_allclose((rows.T @ rows)[:, :inputs], expected[:, :inputs], rtol=0, atol=1e-12 * expected.max())
    # Of Y alone the rows have what weights can reach; its norm is made up by the constant.
    total = (rows.T @ rows)[inputs:, inputs:].trace() + 2 * found.constant
    np.testing.assert_allclose(total, expected[inputs:, inputs:].trace(), rtol=1e-12)


def test_rows_in_memory_are_few(monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 64)
    most = []
    add = module._Stack.add
    monkeypatch.setattr(
        module._Stack, "add", lambda stack, X, Y: (add(stack, X, Y), most.append(sum(map(len, stack._rows))))
    )
    _, number = module.reduced((samples(10, seed) for seed in range(100)), model())
    assert number == 1000
    assert max(most) < 64 + 10


def test_badly_scaled_samples_keep_their_digits():
    """The normal equations would have lost the small column: it stands for 1e-16 of their entries."""
    X, Y = samples(300)
    X[:, 1] *= 1e-8
    whole = module.reduced((X, Y), model(bias=False))[0]
    batches = module.reduced(DataLoader(TensorDataset(X, Y), batch_size=64), model(bias=False))[0]
    expected = np.linalg.svd(X.numpy(), compute_uv=False)
    for found in (whole, batches):
        np.testing.assert_allclose(np.linalg.svd(found.X, compute_uv=False), expected, rtol=1e-7)


def test_images_are_made_rows_where_the_model_does():
    X, Y = samples(20)
    plain = module.reduced((X, Y), model(flat=True))[0]
    image = module.reduced((X.reshape(20, 3, 1, 1), Y), model(flat=True))[0]
    np.testing.assert_array_equal(plain.X, image.X)
    with pytest.raises(ValueError, match=r"X of data has shape \(20, 3, 1, 1\); expected \(N, 3\), samples in rows"):
        module.reduced((X.reshape(20, 3, 1, 1), Y), model())


X, Y = samples(6)


def _exhausted():
    batches = iter([(X, Y)])
    next(batches)
    return batches


REFUSED = {
    "nothing": (
        lambda: None,
        TypeError,
        r"data is None \(of type NoneType\); expected a pair of tensors \(X, Y\) or a DataLoader",
    ),
    "one tensor": (lambda: X, TypeError, r"data is a Tensor"),
    "arrays": (lambda: (X.numpy(), Y.numpy()), TypeError, r"batch 0 of data is a ndarray; expected a pair of tensors"),
    "triples": (lambda: [(X, Y, Y)], TypeError, r"batch 0 of data is a tuple; expected a pair"),
    "a dataset": (lambda: TensorDataset(X, Y), ValueError, r"X of batch 0 .* \(3,\); .* pass batches, not single"),
    "empty loader": (list, ValueError, r"data holds no samples; expected at least one \(a generator can be read only"),
    "exhausted": (_exhausted, ValueError, r"data holds no samples"),
    "no rows": (lambda: (X[:0], Y[:0]), ValueError, r"data holds no samples"),
    "float32": (
        lambda: (X.float(), Y),
        TypeError,
        r"X of data is torch.float32, but the model is torch.float64; ",
    ),
    "classes": (lambda: (X, Y.long()), TypeError, r"Y of data is torch.int64"),
    "device": (
        lambda: (X, Y.to("meta")),
        TypeError,
        r"Y of data is on meta, but the model is on cpu; move",
    ),
    "NaN": (lambda: [(X, Y), (X, Y / 0)], ValueError, r"Y of batch 1 of data holds NaN or infinite"),
    "inputs": (lambda: (X[:, :2], Y), ValueError, r"X of data has shape \(6, 2\); expected \(N, 3\)"),
    "outputs": (lambda: (X, Y[:, :1]), ValueError, r"Y of data has shape \(6, 1\); expected \(6, 2\)\."),
    "counts": (lambda: (X, Y[:5]), ValueError, r"Y of data has shape \(5, 2\); expected \(6, 2\)"),
    "flat Y": (
        lambda: (X, Y[:, 0]),
        ValueError,
        r"expected \(6, 2\): pass Y.unsqueeze\(1\), otherwise PyTorch",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    make, error, message = REFUSED[case]
    with pytest.raises(error, match=message) as caught:
        module.reduced(make(), model())
    assert str(caught.value).endswith(".")
