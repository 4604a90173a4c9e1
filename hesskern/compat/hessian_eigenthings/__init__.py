"""hessian-eigenthings for linear networks, exact and without autograd: `compute_hessian_eigenthings` and its operators.

Of version 0.0.2 (the repository until 2021) `compute_hessian_eigenthings` and `HVPOperator`; of version 1.0
`HessianOperator`, with `supervised_loss`, `lanczos`, `deflated_power_iteration` and `trace` for it. Its other functions
take this `HessianOperator` as they take their own.

Both versions average over batches without weights, so of batches of unequal size samples of a short batch weigh more
than others in the mean. Here the loss is that of all samples at once, which for batches of equal size is the same.
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
