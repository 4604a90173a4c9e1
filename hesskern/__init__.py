"""Exact curvature of linear networks at compiled speed.

Conventions: samples in rows, weights (out, in) as ``nn.Linear.weight``, arrays row-major, parameters in
``named_parameters()`` order, loss half the squared norm of the residual by default.
"""

import importlib
from typing import TYPE_CHECKING, Any

# Before the imports that it is for.
from hesskern import _interrupted_start  # noqa: F401  # isort: split

# Then, since it refuses a subinterpreter, in which NumPy's import need not come to an end.
from hesskern._core import version as __version__  # isort: split

from hesskern import datasets
from hesskern.backends import use_backend
from hesskern.backends.info import info
from hesskern.linalg.condition import Condition
from hesskern.linalg.spectrum import Spectrum
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.network_stack import NetworkStack
from hesskern.network.predicted_rank import PredictedRank, predicted_rank
from hesskern.training.fit import Run, fit
from hesskern.training.fit_ensemble import Ensemble, fit_ensemble
from hesskern.training.reduction import Reduction

if TYPE_CHECKING:
    from hesskern.curvature.cross_block import CrossBlock
    from hesskern.curvature.hessian import Hessian, KroneckerHessian
    from hesskern.curvature.kfac import KFAC
    from hesskern.curvature.softmax import SoftmaxHessian
    from hesskern.explanation import Explanation
    from hesskern.explanation.entry import explain
    from hesskern.validation import ValidationReport, validate

__all__ = [
    "KFAC",
    "Condition",
    "CrossBlock",
    "Ensemble",
    "Explanation",
    "Hessian",
    "KroneckerHessian",
    "LinearNetwork",
    "NetworkStack",
    "PredictedRank",
    "Reduction",
    "Run",
    "SoftmaxHessian",
    "Spectrum",
    "SquaredLoss",
    "ValidationReport",
    "__version__",
    "datasets",
    "explain",
    "fit",
    "fit_ensemble",
    "info",
    "predicted_rank",
    "use_backend",
    "validate",
]


#: Operators load scipy.sparse.linalg, which `import hesskern` need not do.
_LAZY = {
    "CrossBlock": "hesskern.curvature.cross_block",
    "Explanation": "hesskern.explanation",
    "Hessian": "hesskern.curvature.hessian",
    "KFAC": "hesskern.curvature.kfac",
    "KroneckerHessian": "hesskern.curvature.hessian",
    "SoftmaxHessian": "hesskern.curvature.softmax",
    "ValidationReport": "hesskern.validation",
    "explain": "hesskern.explanation",
    "validate": "hesskern.validation",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'hesskern' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
