"""Eigenvalues of a last layer under cross-entropy, to many digits, from the definition.

With ``S_n = root(s_n) (diag(root p_n) - p_n root(p_n).T)``, ``S_n S_n.T`` is ``s_n (diag(p_n) - p_n p_n.T)``. So the
nonzero eigenvalues of the Hessian are those of the Gram matrix with the blocks ``(f_n . f_m) S_n.T S_m``. It has C rows
for each sample, whatever the number of features.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np

_DIGITS = 60
#: Eigenvalues below this fraction of the largest are zeros.
_ZERO = mpmath.mpf(10) ** -45


def eigenvalues(features: np.ndarray, logits: np.ndarray, weights: np.ndarray, *, bias: bool) -> list[Any]:
    """Return the nonzero eigenvalues, descending."""
    samples, classes = logits.shape
    with mpmath.workdps(_DIGITS):
        rows = [[mpmath.mpf(x) for x in row] + [mpmath.mpf(1)] * bias for row in features.astype(float).tolist()]
        roots = [
            _root(row, weight)
            for row, weight in zip(logits.astype(float).tolist(), weights.astype(float).tolist(), strict=True)
        ]
        gram = mpmath.zeros(samples * classes)
        for n in range(samples):
            for m in range(n + 1):
                block = mpmath.fdot(rows[n], rows[m]) * (roots[n].T * roots[m])
                for a in range(classes):
                    for b in range(classes):
                        gram[n * classes + a, m * classes + b] = gram[m * classes + b, n * classes + a] = block[a, b]
        values = sorted(mpmath.eigsy(gram, eigvals_only=True), reverse=True)
        return [value for value in values if value > _ZERO * values[0]]


def _root(logits: list[float], weight: float) -> Any:
    odds = [mpmath.exp(mpmath.mpf(value) - mpmath.mpf(max(logits))) for value in logits]
    p = [value / mpmath.fsum(odds) for value in odds]
    root = mpmath.sqrt(mpmath.mpf(weight))
    count = range(len(p))
    return mpmath.matrix(
        [[root * ((mpmath.sqrt(p[i]) if i == j else 0) - p[i] * mpmath.sqrt(p[j])) for j in count] for i in count]
    )


def expanded(values: list[Any], size: int) -> np.ndarray:
    """Return all eigenvalues of a matrix of this size, ascending, as float64."""
    return np.array([0.0] * (size - len(values)) + [float(value) for value in reversed(values)])
