"""hessian-eigenthings for linear networks, exact and without autograd: `compute_hessian_eigenthings` and its operators.

From version 0.0.2 (the repository until 2021): `compute_hessian_eigenthings` and `HVPOperator`. From version 1.0:
`HessianOperator`, with `supervised_loss`, `lanczos`, `deflated_power_iteration` and `trace`. The library's other
functions accept this `HessianOperator` like their own.

Both versions average over batches without weights, so the samples of a short batch count more than others in the mean.
Here the loss counts all samples at once, which is the same for batches of equal size.
"""

from hesskern.compat.hessian_eigenthings.algorithms import (
    EigenResult,
    TraceResult,
    deflated_power_iteration,
    lanczos,
    trace,
)
from hesskern.compat.hessian_eigenthings.operator import HessianOperator, supervised_loss
from hesskern.compat.hessian_eigenthings.products import HVPOperator, compute_hessian_eigenthings

__all__ = [
    "EigenResult",
    "HVPOperator",
    "HessianOperator",
    "TraceResult",
    "compute_hessian_eigenthings",
    "deflated_power_iteration",
    "lanczos",
    "supervised_loss",
    "trace",
]
