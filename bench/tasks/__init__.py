"""The tasks, one a file, in the order of the report."""

from typing import cast

from bench.task import Task
from bench.tasks import (
    assemble_block,
    condition,
    data_reduction,
    descent,
    forward,
    full_hessian,
    gemm,
    hvp,
    import_time,
    spectrum,
    train_case,
    value_and_gradient,
)

_MODULES = (
    train_case,
    descent,
    assemble_block,
    full_hessian,
    hvp,
    data_reduction,
    spectrum,
    condition,
    forward,
    value_and_gradient,
    gemm,
    import_time,
)
TASKS: dict[str, Task] = {module.NAME: cast(Task, module) for module in _MODULES}
