"""How far rounding can move a Hessian that was computed in another order of operations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hesskern._base.array_types import Array

#: Rounding errors of sums of k terms grow like ``LAMBDA sqrt(k) u``, up to a negligible probability (Higham and Mary
#: 2019, LAMBDA from their Theorem 2.4 at 1e-13); u is half of epsilon.
LAMBDA = 8.0


def bound(
    weights: Sequence[Array], biases: Sequence[Array | None], X: Array, Y: Array, scale: float, epsilon: float
) -> float:
    """Return a bound on the Frobenius norm of the rounding error in the Hessian, any block or part of it.

    The error of a product of matrices is at most ``LAMBDA sqrt(k) u`` times the product of their norms. With a_l the
    norm of a layer's input and b_l that of the map above it, both as products of Frobenius norms, the Gauss-Newton part
    is made of terms of norm ``a_l b_l a_m b_m``, the functional part of terms with the residual's norm.
    """
    norms = [float(np.linalg.norm(weight)) for weight in weights]
    shifts = [0.0 if bias is None else float(np.linalg.norm(bias)) for bias in biases]
    outputs, samples = len(weights[-1]), len(X)
    ones = np.sqrt(samples) if any(shifts) or any(bias is not None for bias in biases) else 0.0
    below = [float(np.hypot(np.linalg.norm(X), ones))]
    for norm, shift in zip(norms, shifts, strict=True):
        below.append(float(np.hypot(below[-1] * norm + ones * shift, ones)))
    above = [float(np.prod(norms[layer + 1 :])) for layer in range(len(norms))]
    above[-1] = outputs**0.25  # the norm of the identity, whose square in the last block is that of I_o
    gauss_newton = float(np.dot(above, below[:-1])) ** 2
    residual = below[-1] + float(np.linalg.norm(Y))
    functional = 0.0
    for lower in range(len(norms)):
        for upper in range(lower + 1, len(norms)):
            between = float(np.prod(norms[lower + 1 : upper])) if upper > lower + 1 else np.sqrt(len(weights[lower]))
            functional += 2.0 * between * residual * float(np.prod(norms[upper + 1 :])) * below[lower]
    terms = samples + sum(len(weight) for weight in weights) + X.shape[1]
    return float(LAMBDA * np.sqrt(terms) * 0.5 * epsilon * scale * (gauss_newton + functional))
