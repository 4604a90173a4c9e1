"""The tasks, one a file, in the order of the report."""

from typing import cast

from bench.task import Task
from bench.tasks import (
    assemble_block,
    condition,
    descent,
    forward,
    gemm,
    import_time,
    train_case,
    value_and_gradient,
)

_MODULES = (train_case, descent, assemble_block, condition, forward, value_and_gradient, gemm, import_time)
TASKS: dict[str, Task] = {module.NAME: cast(Task, module) for module in _MODULES}
