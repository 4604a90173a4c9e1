"""(Stochastic) gradient descent: the update of ``torch.optim.SGD``, some steps at a time.

Steps alternate between two buffers of parameters, so that those before the last update are still there when its loss
turns out not to be finite. A step is: losses and gradient at the present parameters, then the update.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels.compile import jit
from hesskern.backends.numba_kernels.hessian_product import prepare
from hesskern.backends.numba_kernels.layout import BIAS, PAD, START, Layout
from hesskern.backends.numba_kernels.leak import leak_is_due, watch_leak
from hesskern.backends.numba_kernels.memory import Places, places, rows_of_product
from hesskern.backends.numba_kernels.passes import squared_residual
from hesskern.backends.numba_kernels.sharpness import largest_eigenvalue
from hesskern.backends.numba_kernels.vectors import VECTOR_BYTES, add, load, store, times, total

RUNNING, CONVERGED, DIVERGED = range(3)
#: Counters of a descent.
STEPS, LOOKED = range(2)


class Rule(NamedTuple):
    """The loss ``scale/2 ‖E‖² + decay/2 ‖θ‖² + constant``, the update, the test for convergence, the records."""

    scale: float
    constant: float
    rtol: float
    momentum: float
    nesterov: bool
    decay: float
    every: int
    loss: bool


class DescentShape(NamedTuple):
    """The sizes and options that determine a descent's memory; see `places`."""

    samples: int
    product: bool
    hessian: bool
    momentum: bool
    batch: int
    vectors: int
    diagonal: bool  # whether the product form has a diagonal X


class Leak(NamedTuple):
    """The growth of rounding errors across hidden layers, counted from 1."""

    layers: NDArray[np.int64]
    growth: NDArray[np.float64]
    growing: NDArray[np.float64]


class Steps(NamedTuple):
    """The inputs of some steps, and the arrays for their records, empty for quantities that are not recorded.

    ``order[ends[k-1]:ends[k]]`` are the samples of step k, of a loss ``scales[k]/2 ‖E‖²``; empty: all samples.
    """

    rates: NDArray[np.float64]
    scales: NDArray[np.float64]
    order: NDArray[np.int64]
    ends: NDArray[np.int64]
    losses: NDArray[np.float64]
    batch_losses: NDArray[np.float64]
    gradient_norms: NDArray[np.float64]
    sharpness: NDArray[np.float64]


@jit
def places_of(memory: Array, layout: Layout, shape: DescentShape) -> Places:
    """Return where everything begins in the memory of a descent."""
    return places(memory, layout, shape.samples, shape.product, shape.hessian, True, shape.momentum, shape.batch,
                  shape.vectors)  # fmt: skip


@jit
def update(memory: Array, at: Places, theta: int, target: int, count: int, rate: float, momentum: float, nesterov: bool,
           decay: float) -> None:  # fmt: skip
    """d = g + decay theta; v = momentum v + d; target = theta - rate (nesterov ? d + momentum v : v)."""
    number, lanes = memory.dtype.type, VECTOR_BYTES // memory.itemsize
    down, carry, shrink = number(-rate), number(momentum), number(decay)
    for k in range(0, count, lanes):
        now = load(memory, theta + k)
        step = times(add(load(memory, at.gradient + k), now, shrink), load(memory, at.mask + k))
        if momentum != 0:
            velocity = add(step, load(memory, at.velocity + k), carry)
            store(memory, at.velocity + k, velocity)
            step = add(step, velocity, carry) if nesterov else velocity
        store(memory, target + k, add(now, step, down))


@jit
def squared_norm(memory: Array, values: int, other: int, decay: float, mask: int, count: int) -> float:
    """Return ``‖values + decay other‖²`` over all parameters."""
    lanes, shrink, norm = VECTOR_BYTES // memory.itemsize, memory.dtype.type(decay), 0.0
    for k in range(0, count, lanes):
        some = times(add(load(memory, values + k), load(memory, other + k), shrink), load(memory, mask + k))
        norm += np.float64(total(times(some, some)))
    return norm


@jit
def gather(memory: Array, layout: Layout, X: Array, Y: Array, order: NDArray[np.int64], begin: int, end: int, x: int,
           y: int) -> None:  # fmt: skip
    """Copy the samples ``order[begin:end]`` into padded rows."""
    inputs, outputs, pad_in, pad_out = X.shape[1], Y.shape[1], layout[0, PAD], layout[-1, PAD]
    for n in range(end - begin):
        sample = order[begin + n]
        for a in range(inputs):
            memory[x + n * pad_in + a] = X[sample, a]
        if layout[0, BIAS]:
            memory[x + n * pad_in + inputs] = 1.0
        for c in range(outputs):
            memory[y + n * pad_out + c] = Y[sample, c]


@jit
def descend(memory: Array, layout: Layout, X: Array, Y: Array, shape: DescentShape, rule: Rule, leak: Leak,
            counters: NDArray[np.int64], target: NDArray[np.float64], steps: Steps,
            sharpness: bool | None) -> tuple[int, int]:  # fmt: skip
    """Take some steps; return how they ended and how many had a finite loss.

    Stops before a step whose loss is not finite, and restores the parameters before the last update. Also stops after a
    step whose loss of all samples is at most ``target[0]``, which is `rtol` times the first loss. Minibatches are
    gathered from X and Y. `sharpness` is None if it is not recorded: then its code is not compiled either.
    """
    at = places_of(memory, layout, shape)
    full_batch, samples, product, count = len(steps.ends) == 0, shape.samples, shape.product, layout[0, START]
    for k in range(len(steps.rates)):
        step = counters[STEPS]
        theta, following = (at.theta, at.other) if step % 2 == 0 else (at.other, at.theta)
        recorded = step % rule.every == 0
        decayed = 0.0
        if rule.decay != 0:
            decayed = 0.5 * rule.decay * squared_norm(memory, theta, theta, 0.0, at.mask, count)

        norm_wanted = recorded and len(steps.gradient_norms) > 0
        loss = np.nan
        if full_batch or norm_wanted or rule.rtol >= 0 or (recorded and rule.loss):
            loss = (
                decayed
                + rule.constant
                + 0.5
                * rule.scale
                * squared_residual(
                    memory,
                    layout,
                    at,
                    theta,
                    at.x,
                    at.y,
                    samples,
                    product,
                    rule.scale,
                    full_batch or norm_wanted,
                    shape.diagonal,
                )
            )
        if len(steps.gradient_norms) > 0:
            steps.gradient_norms[k] = np.nan
            if norm_wanted:
                steps.gradient_norms[k] = np.sqrt(squared_norm(memory, at.gradient, theta, rule.decay, at.mask, count))
        steps.losses[k] = used = loss
        x, y, rows, scale = at.x, at.y, samples, rule.scale
        if not full_batch:
            begin = steps.ends[k - 1] if k > 0 else 0
            x, y, rows, scale = at.batch_x, at.batch_y, steps.ends[k] - begin, steps.scales[k]
            gather(memory, layout, X, Y, steps.order, begin, steps.ends[k], x, y)
            used = decayed + 0.5 * scale * squared_residual(memory, layout, at, theta, x, y, rows, product, scale, True)
            if len(steps.batch_losses) > 0:
                steps.batch_losses[k] = used
        if not np.isfinite(used):
            counters[STEPS] = max(0, step - 1)
            return DIVERGED, k

        if sharpness is not None and len(steps.sharpness) > 0:
            steps.sharpness[k] = np.nan
            if recorded:
                prepare(memory, layout, at, theta, at.x, at.y, samples, product, rule.scale)
                steps.sharpness[k] = largest_eigenvalue(
                    memory, layout, at, theta, at.x, rows_of_product(layout) if product else samples, product,
                    rule.scale, rule.decay, step, shape.vectors)  # fmt: skip
        if len(leak.layers) > 0 and leak_is_due(step, counters[LOOKED]):
            # What multiplies the rounding errors of this step is the residual of its own batch.
            prepare(memory, layout, at, theta, x, y, rows, product, scale)
            watch_leak(memory, layout, at, theta, x, rows_of_product(layout) if product else rows, product,
                       steps.rates[k], rule.momentum, rule.nesterov, rule.decay,
                       step - counters[LOOKED] if counters[LOOKED] >= 0 else 0, leak.layers, leak.growth,
                       leak.growing)  # fmt: skip
            counters[LOOKED] = step

        update(memory, at, theta, following, count, steps.rates[k], rule.momentum, rule.nesterov, rule.decay)
        if step == 0 and rule.rtol >= 0:
            target[0] = rule.rtol * loss
        counters[STEPS] = step + 1
        if loss <= target[0]:
            return CONVERGED, k + 1
    return RUNNING, len(steps.rates)
