"""Exact curvature of linear networks at compiled speed.

Conventions: samples in rows, weights (out, in) as ``nn.Linear.weight``, arrays row-major, parameters in
``named_parameters()`` order, loss half the squared norm of the residual unless said otherwise.
"""

from typing import TYPE_CHECKING, Any

from hesskern import datasets
from hesskern._core import version as __version__
from hesskern.backends import use_backend
from hesskern.condition import Condition
from hesskern.information import info
from hesskern.loss import SquaredLoss
from hesskern.network import LinearNetwork
from hesskern.training import Run, fit

if TYPE_CHECKING:
    from hesskern.kronecker import KroneckerHessian

__all__ = [
    "Condition",
    "KroneckerHessian",
    "LinearNetwork",
    "Run",
    "SquaredLoss",
    "__version__",
    "datasets",
    "fit",
    "info",
    "use_backend",
]


def __getattr__(name: str) -> Any:
    if name == "KroneckerHessian":  # loads scipy.sparse.linalg, which `import hesskern` need not do
        from hesskern.kronecker import KroneckerHessian  # noqa: PLC0415

        return KroneckerHessian
    raise AttributeError(f"module 'hesskern' has no attribute {name!r}")
