"""The tasks, one a file, in the order of the report."""

from typing import cast

from bench.task import Task
from bench.tasks import (
    assemble_block,
    condition,
    curvature_along,
    data_reduction,
    descent,
    ensemble,
    forward,
    full_hessian,
    gemm,
    hvp,
    import_time,
    jitted_gemm,
    migration,
    minibatch,
    numba_backend,
    records,
    reduced_training,
    reductions,
    spectrum,
    train_case,
    training,
    value_and_gradient,
)

_MODULES = (
    train_case,
    descent,
    training,
    minibatch,
    ensemble,
    curvature_along,
    records,
    reduced_training,
    reductions,
    assemble_block,
    full_hessian,
    hvp,
    data_reduction,
    spectrum,
    condition,
    migration,
    forward,
    value_and_gradient,
    numba_backend,
    gemm,
    jitted_gemm,
    import_time,
)
TASKS: dict[str, Task] = {module.NAME: cast(Task, module) for module in _MODULES}
