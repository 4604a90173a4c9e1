"""Products with the Hessian on the GPU's path, on tensors in main memory."""

from __future__ import annotations

import numpy as np
import pytest
from looped import each

pytest.importorskip("torch")
import torch
from host_cuda import BACKEND, REFERENCE, SEEDS, case, close


@pytest.mark.parametrize("parts", [(True, True), (True, False), (False, True)], ids=["full", "gauss-newton", "rest"])
@each("seed", SEEDS)
def test_products(seed, parts, dtype):
    loss, net, data, there, moved = case(seed, dtype)
    options = {"scale": loss.scale, "decay": 0.375, "gauss_newton": parts[0], "functional": parts[1]}
    product, reference = (
        BACKEND.hessian_product(there, moved, **options),
        REFERENCE.hessian_product(net, data, **options),
    )
    for shape in [(net.num_parameters,), (net.num_parameters, 1), (net.num_parameters, 4)]:
        v = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
        wanted, out = np.empty_like(v), torch.empty(shape, dtype=moved.X.dtype)
        reference.apply(v, wanted)
        product.apply(torch.tensor(v), out)
        close(out, wanted, dtype)
