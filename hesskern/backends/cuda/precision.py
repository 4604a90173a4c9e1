"""Products in full float32: PyTorch may be set to multiply in TF32, which has three digits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply in the precision of the tensors inside this block, for any setting of the user outside."""
    settings: Any = torch.backends.cuda.matmul
    exact: Any
    try:
        name, exact, before = "allow_tf32", False, settings.allow_tf32
    except RuntimeError:  # set through the newer name, which may not be mixed with the older one
        name, exact, before = "fp32_precision", "ieee", settings.fp32_precision
    setattr(settings, name, exact)
    try:
        yield
    finally:
        setattr(settings, name, before)
