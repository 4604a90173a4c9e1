"""A few extreme eigenpairs of a network's Hessian after the reductions of width, and whether any was missed.

Products with the reduced network take microseconds, so a Krylov method finds a few eigenvalues in a small part of the
time that all of them take. It may miss copies of a repeated eigenvalue. A certificate shows whether it did
(`hesskern.linalg.certificate`); if so, the search goes on with more start vectors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from hesskern._base.flat_layout import FlatLayout
from hesskern._base.interrupt import RATE
from hesskern.backends.data import Data
from hesskern.backends.hidden_units import reducible
from hesskern.backends.protocol import HostBackend, PlainLayers
from hesskern.curvature.eigenvalue_errors import EigenvalueErrors
from hesskern.curvature.layer_factors import Factors, Mode
from hesskern.curvature.shifted import DenseShifted, TwoLayers
from hesskern.linalg.certificate import Shifted
from hesskern.linalg.extreme_pairs import FewPairs, searched
from hesskern.linalg.krylov import End
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import Part
from hesskern.reductions.deep_ranks import largest_size


def reduced_sizes(net: LinearNetwork, parts: Sequence[Part], mode: Mode, samples: int) -> tuple[int, int]:
    """Return about how large the dense problem is after all reductions, and how many parameters those of width leave."""
    widths, biases = list(net.widths), [bias is not None for bias in net.biases]
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


def of_network(
    factors: Factors,
    parts: Sequence[Part],
    mode: Mode,
    backend: HostBackend,
    k: int,
    which: End,
    offset: float,
    errors: EigenvalueErrors,
    *,
    sure: bool,
) -> FewPairs:
    """Return a few eigenpairs of the Hessian of a network after the reductions of width.

    Parameters
    ----------
    factors : Factors
        Of the reduced network.
    parts, mode
    backend : HostBackend
    k, which, offset, sure
        As in `searched`.
    errors : EigenvalueErrors
        Of this Hessian.
    """
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
    dense = DenseShifted(factors, parts, mode, errors.residual_error, backend)
    tests: list[Callable[[], Shifted]] = [lambda: dense]
    size = dense.size
    if factors.depth == 2 and len(parts) == 2 and mode != "functional":
        tests.insert(0, lambda: TwoLayers(factors, parts, mode))
    seconds = 8.0 * length * len(factors.X) / RATE
    return searched(
        take, length, k, which, offset, tests, size, inside, chosen, seconds=seconds, sure=sure
    )
