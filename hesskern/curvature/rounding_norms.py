"""Rough bounds on what rounding does to a Hessian: products of the norms of a network's matrices.

They take no time and are enough for most networks. Where they are too large to be of use, `hesskern.curvature.rounding`
has close ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hesskern.curvature.layer_factors import Factors
from hesskern.curvature.rounding import Errors, log2, unit_of_sum
from hesskern.network.parameters import Part


def errors_from_norms(
    factors: Factors, parts: Sequence[Part], widths: Sequence[int], input_error: float, *, functional: bool
) -> Errors:
    """Return bounds as `Magnitudes.errors` does, from norms alone.

    They hold for any network that can be rotated into this one. Infinite where these numbers may overflow.

    Parameters
    ----------
    factors : Factors
    parts : sequence of Part
    widths : sequence of int
        Inputs of each layer before any rotation.
    input_error : float
        Relative error of weights and data.
    functional : bool
        Whether there is a functional part; without one there is no bound on the residual either.
    """
    if not factors.ordinary:
        return Errors(math.inf, math.inf, math.inf)
    units = [unit_of_sum(width) for width in widths]
    weights = [_norm(weight) for weight in factors.weights]
    above = [1.0 if top is None else _norm(top.matrix) for top in factors.above]
    inputs = [_norm(below.matrix) for below in factors.inputs]
    terms = [
        (weight + (0.0 if bias is None else _norm(bias))) * below
        for weight, bias, below in zip(weights, factors.biases, inputs, strict=True)
    ]
    forward, upward = [0.0], [0.0] * len(weights)
    for unit, weight, term in zip(units, weights, terms, strict=True):
        forward.append(forward[-1] * weight + unit * term)
    for layer in range(len(weights) - 3, -1, -1):
        upward[layer] = (upward[layer + 1] + units[layer + 1] * above[layer + 1]) * weights[layer + 1]
    root = math.sqrt(abs(factors.scale))
    jacobian = root * math.hypot(
        *(upward[part.layer] * inputs[part.layer] + above[part.layer] * forward[part.layer] for part in parts)
    )
    if not functional:
        return Errors(jacobian, 0.0, -math.inf)
    # Not the last entry of `forward`, which has gone through all layers: `above` is less where weights cancel.
    reached = sum(top * term for top, term in zip(above, terms, strict=True)) + _norm(factors.Y)
    residual, most, total = _norm(factors.residual.matrix), max(units), 0.0
    residual_error = most * reached
    for number, part in enumerate(parts):
        lower = part.layer
        between, layer = 1.0, lower + 1
        for upper_part in parts[number + 1 :]:
            upper = upper_part.layer
            for passed in range(layer, upper):
                between *= weights[passed]
            layer = upper
            back = (most * (upper - lower) * above[upper] + upward[upper]) * residual + above[upper] * residual_error
            block = between * (back * inputs[lower] + above[upper] * residual * forward[lower])
            total = math.hypot(total, block)
    return Errors(jacobian, math.sqrt(2.0) * root**2 * total, log2(residual_error + input_error * reached))


def _norm(matrix: Any) -> float:
    """Return the Frobenius norm of a matrix of ordinary numbers, fast."""
    return math.sqrt(float(np.vdot(matrix, matrix)))
