"""Linear networks inside your own jitted loops: losses, gradients, Hessians, training steps.

Numba compiles every function on first use, for the current processor, and caches it on disk. The functions work in
``@njit`` code and from Python, and release the GIL. `hesskern.numba.curvature` and `hesskern.numba.training` describe
the arguments, docs/numba.md has examples.

Examples
--------
>>> import numba, numpy as np, hesskern.numba as nb
>>> @numba.njit
... def descend(weights, X, Y, steps):
...     for _ in range(steps):
...         value, g = nb.value_and_gradient(weights, X, Y)
...         lr = value / (g @ g)  # Polyak's step: the loss at the minimum is 0
...         nb.gd_step(weights, X, Y, lr)
...     return nb.loss(weights, X, Y)
>>> rng = np.random.default_rng(0)
>>> X = rng.standard_normal((20, 3))
>>> weights = rng.standard_normal((8, 3)), rng.standard_normal((2, 8))
>>> bool(descend(weights, X, X @ rng.standard_normal((3, 2)), 200) < 1e-6)
True
"""

try:
    import numba as _numba  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"hesskern.numba needs Numba, which cannot be imported ({error}); install it with "
        'pip install "hesskern[numba]".'
    ) from error
from hesskern.numba._parameters import assign, flatten
from hesskern.numba.curvature import (
    HALF_SUM,
    MEAN,
    SUM,
    block_hessian,
    forward,
    full_hessian,
    gradient,
    hvp,
    loss,
    value_and_gradient,
)
from hesskern.numba.training import CONVERGED, DIVERGED, MAX_STEPS, STOPPED, fit, gd_step, sgd_epoch

__all__ = [
    "CONVERGED",
    "DIVERGED",
    "HALF_SUM",
    "MAX_STEPS",
    "MEAN",
    "STOPPED",
    "SUM",
    "assign",
    "block_hessian",
    "fit",
    "flatten",
    "forward",
    "full_hessian",
    "gd_step",
    "gradient",
    "hvp",
    "loss",
    "sgd_epoch",
    "value_and_gradient",
]
