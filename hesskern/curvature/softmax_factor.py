r"""A factor of the Hessian of softmax cross-entropy, from sums of positive numbers only.

Eigenvalues come from a factor, because squaring would lose half of the digits. The factor of ``diag(p) - p p.T``
follows from a stick that is broken class by class. With the rest ``r_k = p_{k+1} + ... + p_C`` it is

    ``diag(p) - p p.T = Σ_k  p_k r_k / (p_k + r_k)  w_k w_k.T,   w_k = e_k - Σ_{j>k} (p_j / r_k) e_j``,

so that probabilities near 0 and 1 keep their digits. The code uses logarithms of the probabilities, and divides the
factor by a power of two. So samples whose other classes have probabilities below 1e-308 also have a condition number.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import memory
from hesskern._base.array_types import Matrix
from hesskern.backends.protocol import HostBackend

#: Numbers of the Jacobian that go into the triangular factor at once.
_NUMBERS_AT_ONCE = 1 << 21
#: A power of two beyond this is zero in all that is computed from it.
_MOST_EXPONENT = 1 << 30


class Sticks(NamedTuple):
    """The parts of the factor of ``diag(p) - p p.T``."""

    logs: NDArray[np.float64]  # of the probabilities (N, C)
    rests: NDArray[np.float64]  # of the probability of a class and all behind it (N, C)
    sizes: NDArray[np.float64]  # roots of the sizes of all w_k (N, C-1), over two to the power of the exponent
    exponent: int
    error: float  # relative to the largest of the sizes


def sticks(behind: NDArray[np.float64], sample_weights: NDArray[np.float64]) -> Sticks:
    """Return the parts of the factor.

    Parameters
    ----------
    behind : (N, C) array
        Each logit minus the largest of its sample.
    sample_weights : (N,) array
    """
    logs = behind - np.log(np.exp(behind).sum(axis=1, keepdims=True))
    rests = np.logaddexp.accumulate(logs[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        # Of p_k r_k / (p_k + r_k), whose second factor is what the others are of all from the k-th on.
        sizes = logs[:, :-1] + (rests[:, 1:] - rests[:, :-1]) + np.log(sample_weights)[:, None]
    sizes = np.where(np.isnan(sizes), -np.inf, 0.5 * sizes)
    largest = float(sizes.max())
    exponent = max(math.floor(largest / math.log(2)), -_MOST_EXPONENT) if math.isfinite(largest) else 0
    # Rounding changes a logarithm by eps of itself: that is the relative error of its exponential.
    logs_of = np.where(np.isfinite(sizes), np.abs(sizes) + np.abs(logs[:, :-1]) + np.abs(rests[:, 1:]), 0.0)
    error = float((np.exp(sizes - largest) * logs_of).max()) if math.isfinite(largest) else 0.0
    sizes = np.exp(sizes - (largest if exponent == -_MOST_EXPONENT else exponent * math.log(2)))
    return Sticks(logs, rests, sizes, exponent, error * float(np.finfo(np.float64).eps))


def factor(parts: Sticks, features: Matrix, backend: HostBackend) -> Matrix:
    """Return a factor A with ``A.T A = H`` in the basis of contrasts, without the common shift of all classes.

    Over two to the power of the exponent of the sticks; its columns are ordered contrast by contrast. It is the
    Jacobian itself where that has no more rows than columns, and otherwise its triangular factor.

    Parameters
    ----------
    parts : Sticks
    features : (N, d) array
    backend : HostBackend

    Raises
    ------
    MemoryError
        If it would not fit in the free memory.
    """
    (samples, width), kinds = features.shape, parts.logs.shape[1] - 1
    memory.require(
        4 * 8 * ((kinds * width) ** 2 + min(_NUMBERS_AT_ONCE, samples * kinds * width)),
        f"the factor of size {kinds * width} of the last layer's Hessian",
        "use scipy.sparse.linalg.eigsh(H, k) for a few eigenvalues.",
    )
    if samples <= width:
        jacobian = np.zeros((kinds, samples, kinds, width))
        for kind in range(kinds):
            np.multiply(_stick(parts, kind)[:, :, None], features[:, None, :], out=jacobian[kind, :, kind:])
        return jacobian.reshape(kinds * samples, kinds * width)
    # Rows of the k-th kind are zero before the k-th contrast, so they join from the last kind on.
    triangle: Matrix = np.zeros((0, 0))
    for kind in range(kinds - 1, -1, -1):
        stick, columns = _stick(parts, kind), (kinds - kind) * width
        triangle = np.pad(triangle, ((0, 0), (width, 0)))
        step = max(_NUMBERS_AT_ONCE // columns, 1)
        for start in range(0, samples, step):
            some = slice(start, start + step)
            rows = (stick[some, :, None] * features[some, None, :]).reshape(-1, columns)
            triangle = backend.triangular_factor((np.concatenate([triangle, rows]),))
    return triangle


def _stick(parts: Sticks, kind: int) -> NDArray[np.float64]:
    """Return ``w_k`` times the root of its size (N, C-1-k), for k = `kind`, in the contrasts from the k-th on."""
    logs, rests, sizes, *_ = parts
    broken = np.ones((len(logs), logs.shape[1] - kind))
    with np.errstate(invalid="ignore"):
        shares = np.exp(logs[:, kind + 1 :] - rests[:, kind + 1, None])
    broken[:, 1:] = -np.where(np.isnan(shares), 0.0, shares)
    rows: NDArray[np.float64] = sizes[:, kind, None] * (broken @ contrasts(logs.shape[1])[kind:, kind:])
    return rows


@functools.lru_cache(8)
def contrasts(classes: int) -> NDArray[np.float64]:
    """Return an orthonormal basis (C, C-1) orthogonal to a common shift: each class against those after it."""
    behind = np.arange(classes - 1, 0, -1)
    lower = np.tril(np.broadcast_to(-1.0 / behind, (classes, classes - 1)), -1)
    basis: NDArray[np.float64] = (lower + np.eye(classes, classes - 1)) * np.sqrt(behind / (behind + 1))
    basis.setflags(write=False)  # it is kept
    return basis
