"""Learning rates of the one step of gradient descent that the weights may be off by, estimated from the candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from hesskern.explanation.given.gradient_steps import after, before, step_cause
from hesskern.explanation.given.variants import WeightVariant
from hesskern.explanation.search.matrices import Base, Search
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork

Net = Callable[[float], LinearNetwork | None]


def estimated_steps(search: Search, net: LinearNetwork, loss: SquaredLoss, decay: float) -> Iterator[WeightVariant]:
    """Yield networks one step away whose Hessian has the candidate's trace.

    The trace of the Hessian after a step is a polynomial in the learning rate, so its roots are all the possible rates.
    Before a step, the secant method finds the one near the linear estimate.
    """
    if not search.selections or len(search.selections[0].causes):
        return
    full = SquaredLoss(loss.X, loss.Y, loss.kind, decay, backend=loss.backend)
    gradient = full.gradient(net)
    size = float(np.linalg.norm(gradient))
    if size <= 1e-10 * max(1.0, float(np.linalg.norm(net.flatten()))):
        return
    trace = float(search.matrix.trace()) - decay * len(search.matrix)

    def gap(stepped: LinearNetwork) -> float:
        curvature = search.curvature(Base(search.data[0], WeightVariant((), stepped), search.selections[0]))
        return float(curvature.diagonal.sum()) - trace

    reach = float(np.linalg.norm(net.flatten())) / size
    for ahead in (True, False):

        def at(rate: float, ahead: bool = ahead) -> LinearNetwork | None:
            return after(net, full, rate) if ahead else before(net, full, rate)

        rates = _roots(at, gap, net.depth, reach) if ahead else _secant(at, gap, reach)
        for rate in rates:
            polished = _polished(search, at, rate)
            network = None if polished is None else at(polished)
            if polished is not None and network is not None:
                yield WeightVariant((step_cause(polished, ahead=ahead, estimated=True),), network)


def _roots(at: Net, gap: Callable[[LinearNetwork], float], depth: int, reach: float) -> list[float]:
    degree = 2 * (depth - 1)
    if degree == 0:
        return []
    points = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1)) * 0.5 * reach
    nets = [at(float(point)) for point in points]
    values = [gap(stepped) for stepped in nets if stepped is not None]
    if len(values) <= degree:
        return []
    roots = np.polynomial.Chebyshev.fit(points, values, degree).roots()
    real = roots.real[np.abs(roots.imag) <= 1e-3 * np.abs(roots.real)]
    return sorted(float(root) for root in real if root > 0)


def _secant(at: Net, gap: Callable[[LinearNetwork], float], reach: float) -> list[float]:
    start = at(1e-7 * reach)
    network = at(0.0)
    if start is None or network is None:
        return []
    one, value_one = 0.0, gap(network)
    slope = (gap(start) - value_one) / (1e-7 * reach)
    two = -value_one / slope if slope else 0.0
    for _ in range(40):
        stepped = at(two) if two > 0 else None
        if stepped is None:
            return []
        value_two = gap(stepped)
        if value_two == value_one or abs(two - one) <= 1e-15 * abs(two):
            break
        one, two, value_one = two, two - value_two * (two - one) / (value_two - value_one), value_two
    return [two] if two > 0 else []


def _polished(search: Search, at: Net, rate: float) -> float | None:
    """Return the learning rate near this one whose products with the random vectors match, or None."""
    selection = search.selections[0]

    def products(value: float, index: NDArray[np.intp] | None) -> NDArray[np.float64] | None:
        stepped = at(value)
        if stepped is None:
            return None
        curvature = search.curvature(Base(search.data[0], WeightVariant((), stepped), selection))
        return search.product(curvature, "full", index, "both")

    norm = float(np.linalg.norm(search.products))
    for order in search.orders_of(selection.tensors):
        modelled = products(rate, order.source)
        if modelled is None:
            return None
        residual = search.products - modelled - search.scales.decay * search.vectors
        if float(np.linalg.norm(residual)) > 1e-2 * norm:
            continue
        for _ in range(4):
            step = 1e-4 * rate
            high, low = products(rate + step, order.source), products(rate - step, order.source)
            modelled = products(rate, order.source)
            if high is None or low is None or modelled is None:
                return None
            slope = (high - low) / (2 * step)
            residual = search.products - modelled - search.scales.decay * search.vectors
            square = float(np.vdot(slope, slope))
            rate += float(np.vdot(slope, residual)) / square if square else 0.0
        return rate if rate > 0 else None
    return None
