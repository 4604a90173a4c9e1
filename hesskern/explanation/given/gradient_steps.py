"""Weights that are one step of gradient descent away."""

from __future__ import annotations

import numpy as np

from hesskern._base import decompositions
from hesskern.explanation.given.causes import Cause
from hesskern.explanation.given.variants import WeightVariant
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork

#: Parameters up to which the step before is found by Newton's method, with a dense Hessian.
_DENSE = 1500


def known_steps(net: LinearNetwork, loss: SquaredLoss, decay: float, rate: float) -> list[WeightVariant]:
    """Return the networks one step of this learning rate before and after."""
    full = SquaredLoss(loss.X, loss.Y, loss.kind, decay, backend=loss.backend)
    variants = []
    for stepped, ahead in ((before(net, full, rate), False), (after(net, full, rate), True)):
        if stepped is not None:
            variants.append(WeightVariant((step_cause(rate, ahead=ahead, estimated=False),), stepped))
    return variants


def step_cause(rate: float, *, ahead: bool, estimated: bool) -> Cause:
    """Return the cause for weights one step ahead, or one step behind."""
    how = f"lr = {rate:.6g}{' (estimated)' if estimated else ''}"
    if ahead:
        words = f"the weights are those after one more step of gradient descent, {how}"
        fix = "take the Hessian before optimizer.step(), at the weights you compare with"
    else:
        words = f"the weights are stale: those before the last step of gradient descent, {how}"
        fix = "take the Hessian after optimizer.step(), at the weights you compare with"
    return Cause("step-ahead" if ahead else "stale", words, fix)


def after(net: LinearNetwork, loss: SquaredLoss, rate: float) -> LinearNetwork | None:
    """Return the network after one step, or None where that overflows."""
    theta = net.flatten() - rate * loss.gradient(net)
    return net.unflatten(theta) if np.isfinite(theta).all() else None


def before(net: LinearNetwork, loss: SquaredLoss, rate: float) -> LinearNetwork | None:
    """Return the network that one step leads from to `net`: Newton's method for ``t - rate * g(t) = theta``."""
    theta = net.flatten()
    t = theta + rate * loss.gradient(net)
    best, small = None, np.inf
    for _ in range(60):
        if not np.isfinite(t).all():
            return None
        network = net.unflatten(t)
        residual = t - rate * loss.gradient(network) - theta
        size = float(np.linalg.norm(residual))
        if size >= small:
            break
        best, small = network, size
        if len(theta) <= _DENSE:
            slope = -rate * loss.hessian(network).toarray()
            slope[np.diag_indices_from(slope)] += 1.0
            try:
                t = t - decompositions.solve(slope, residual)
            except np.linalg.LinAlgError:
                break
        else:
            t = t - residual
    return best if small <= 1e-12 * float(np.linalg.norm(theta)) else None
