"""A few extreme eigenpairs of a network's Hessian after the reductions of width, and whether any was missed.

Products with the reduced network take microseconds, so a Krylov method finds a few eigenvalues in a small part of the
time that all of them take. It may miss copies of a repeated eigenvalue. A certificate shows whether it did
(`hesskern.linalg.certificate`); if so, the search goes on with more start vectors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hesskern._base.flat_layout import FlatLayout
from hesskern._base.interrupt import RATE
from hesskern.backends.data import Data
from hesskern.backends.hidden_units import reducible
from hesskern.backends.protocol import HostBackend, Layers, PlainLayers
from hesskern.curvature.eigenvalue_errors import EigenvalueErrors
from hesskern.curvature.layer_factors import Factors, Mode
from hesskern.curvature.shifted import DenseShifted, TwoLayers
from hesskern.linalg.extreme_pairs import NOT_ASKED, FewPairs, Test, searched
from hesskern.linalg.krylov import End
from hesskern.network.parameters import Part
from hesskern.reductions.deep_ranks import largest_size


def reduced_sizes(net: Layers, parts: Sequence[Part], mode: Mode, samples: int) -> tuple[int, int]:
    """Return the size of the dense problem that all reductions leave in general position, and that of vectors."""
    widths = [net.weights[0].shape[1], *(len(weight) for weight in net.weights)]
    biases = [bias is not None for bias in net.biases]
    for layer in reducible(net, {part.layer for part in parts}):
        widths[layer + 1] = widths[layer] + biases[layer] + widths[layer + 2]
    length = sum(n * m + m * bias for n, m, bias in zip(widths, widths[1:], biases, strict=False))
    bias, bounds = any(biases), []
    for part in parts:
        m, n = widths[part.layer + 1], widths[part.layer] * part.weight + part.bias
        below, above = widths[: part.layer + 1], widths[part.layer + 1 :]
        bounds.append((m, n, min(above), min(samples, n, min(below) + bias)))
    inputs = widths[parts[0].layer] + bias
    return largest_size(bounds, widths[-1], min(inputs, samples), mode), length


class Question(NamedTuple):
    """Which eigenpairs of which Hessian."""

    parts: Sequence[Part]
    mode: Mode
    backend: HostBackend
    k: int
    which: End
    offset: float  # a multiple of the identity that decides which are the largest in magnitude
    sure: bool  # whether a certificate is wanted


def of_network(factors: Factors, question: Question, errors: EigenvalueErrors) -> FewPairs:
    """Return a few eigenpairs of the Hessian of a network after the reductions of width.

    Parameters
    ----------
    factors : Factors
        Of the reduced network.
    question : Question
    errors : EigenvalueErrors
        Of this Hessian.
    """
    parts, mode, backend, k, which, offset, sure = question
    layers = PlainLayers(tuple(factors.weights), tuple(factors.biases))
    layout = FlatLayout.of(layers.weights, layers.biases)
    chosen = layout.positions(parts)
    length = sum(weight.size for weight in layers.weights) + sum(b.size for b in layers.biases if b is not None)
    inside = None
    if chosen is not None:
        inside = np.zeros(length)
        inside[chosen] = 1.0
    product = backend.hessian_product(
        layers,
        Data(factors.X, factors.column if factors.has_bias else None, factors.Y, 0.0),
        scale=factors.scale,
        decay=0.0,
        gauss_newton=mode != "functional",
        functional=mode != "gauss_newton",
    )
    take = functools.partial(backend.krylov_steps, product, inside)
    dense, _ = reduced_sizes(layers, parts, mode, len(factors.X))
    tests = [Test(dense, lambda: DenseShifted(factors, parts, mode, errors.residual_error, backend))]
    if factors.depth == 2 and len(parts) == 2 and mode != "functional":
        upper, weight = parts[1], layers.weights[1]
        rows = len(weight) * (weight.shape[1] * upper.weight + upper.bias)
        tests.insert(0, Test(rows, lambda: TwoLayers(factors, parts, mode)))
    seconds = 8.0 * length * len(factors.X) / RATE
    refusal = "" if sure else NOT_ASKED
    return searched(take, length, k, which, tests, inside, chosen, offset=offset, seconds=seconds, refusal=refusal)
