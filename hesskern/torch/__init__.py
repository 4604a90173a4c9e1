"""Exact curvature of PyTorch models that are linear networks: replacements for autograd's Hessians and their spectra.

`hesskern.torch.hessian` describes which models, losses and data are possible; docs/torch.md has the conventions and
examples.

Examples
--------
>>> import torch, hesskern.torch
>>> _ = torch.manual_seed(0)
>>> model = torch.nn.Sequential(torch.nn.Linear(5, 100, bias=False), torch.nn.Linear(100, 5, bias=False))
>>> data = torch.randn(40, 5), torch.randn(40, 5)
>>> hesskern.torch.hessian(model, torch.nn.MSELoss(), data, params=["1.weight"]).shape
torch.Size([500, 500])
>>> hesskern.torch.spectrum(model, torch.nn.MSELoss(), data).shape
torch.Size([1000])
"""

try:
    import torch as _torch  # noqa: F401
except (ImportError, OSError) as error:  # OSError: one of its shared libraries is broken
    raise ImportError(
        f"hesskern.torch needs PyTorch, which cannot be imported ({error}); install it with "
        'pip install "hesskern[torch]".'
    ) from error
from hesskern.torch.curvature import condition, hessian, hvp, sharpness, spectrum
from hesskern.torch.last_layer import last_layer_hessian
from hesskern.torch.linear_stack import LinearStack, linear_stack
from hesskern.torch_modules.export import LinearChain

__all__ = [
    "LinearChain",
    "LinearStack",
    "condition",
    "hessian",
    "hvp",
    "last_layer_hessian",
    "linear_stack",
    "sharpness",
    "spectrum",
]
