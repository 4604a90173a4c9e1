"""float32 products on a GPU are not done in TF32."""

from __future__ import annotations

import pytest
from looped import few_quick

torch = pytest.importorskip("torch")


PRECISION = """
import torch
from hesskern.backends.cuda.precision import full_precision

settings = torch.backends.cuda.matmul
settings.{name} = {mine!r}
with full_precision():
    inside = settings.{name}
    torch._C._get_cublas_allow_tf32()  # what a product on a GPU asks; it raises where two ways to set it were mixed
print(inside, settings.{name} == {mine!r})
"""


@pytest.mark.parametrize(
    ("name", "mine", "inside"),
    few_quick(
        [
            pytest.param(*case)
            for case in [
                ("allow_tf32", True, "False"),
                ("allow_tf32", False, "False"),
                ("fp32_precision", "tf32", "ieee"),
                ("fp32_precision", "ieee", "ieee"),
            ]
        ],
        0,
    ),
)
def test_float32_is_not_tf32(python, name, mine, inside):
    """However the user has set it, and the setting is as before afterwards. In a process of its own: it is global."""
    if not hasattr(torch.backends.cuda.matmul, name):
        pytest.skip(f"this PyTorch has no {name}")
    done = python(PRECISION.format(name=name, mine=mine))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [inside, "True"]
