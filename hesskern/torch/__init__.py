"""Exact curvature of PyTorch models that are linear networks.

Examples
--------
>>> import hesskern.torch, hesskern as hk
>>> net = hk.LinearNetwork.random([3, 5, 2], seed=0)
>>> hk.LinearNetwork.from_torch(net.to_torch()).widths
(3, 5, 2)
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"hesskern.torch needs PyTorch, which cannot be imported ({error}); install it with "
        'pip install "hesskern[torch]".'
    ) from error
from hesskern.torch.export import LinearChain

__all__ = ["LinearChain"]
