"""The CUDA backend; the registry imports this module on first use, and it needs PyTorch, cuda-core and a GPU."""

from __future__ import annotations

try:
    import torch
    from cuda.core import Program  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"the backend 'cuda' needs PyTorch and cuda-core, which cannot be imported ({error}); install them with "
        'pip install "hesskern[cuda]", or choose another backend.'
    ) from error
if not torch.cuda.is_available():
    built = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
    raise ImportError(
        f"the backend 'cuda' needs an NVIDIA GPU, and PyTorch {torch.__version__} (built {built}) sees none; install "
        'a CUDA build with pip install "hesskern[cuda]" on a machine with a GPU and its driver, or choose another '
        "backend."
    )

from hesskern.backends.cuda.launch import launch, limits
from hesskern.backends.cuda.operations import CudaBackend

BACKEND = CudaBackend(launch, limits)
