"""Training steps, epochs and whole runs for jitted code; they change the weights in place.

The update is the same as in ``torch.optim.SGD``: with g the gradient of the loss (weight decay included),
``θ ← θ - lr g``; with momentum ``v ← momentum v + g``, ``θ ← θ - lr v``; with `nesterov`
``θ ← θ - lr (g + momentum v)``. `hesskern.numba.curvature` describes the other arguments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import overload
from numpy.typing import NDArray

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels.compile import jit, jit_inlined
from hesskern.backends.numba_kernels.descent import gather, squared_norm, update
from hesskern.backends.numba_kernels.layout import START, Layout, pack, pack_mask, pack_samples, unpack
from hesskern.backends.numba_kernels.memory import Places, make_memory, places
from hesskern.backends.numba_kernels.passes import product_is_cheaper, squared_residual
from hesskern.numba._parameters import assign, check_targets, flatten, layout_of
from hesskern.numba.curvature import HALF_SUM, scale_of

MAX_STEPS, CONVERGED, DIVERGED, STOPPED = range(4)


def _velocity(velocity: Any, momentum: Any, layout: Any, flat: Any) -> Any:
    """Return the velocity at the start of a step."""


@overload(_velocity, jit_options={"nogil": True}, strict=False)
def _velocity_of(velocity: Any, momentum: Any, layout: Any, flat: Any) -> Any:
    if isinstance(velocity, types.NoneType | types.Omitted):

        def no_velocity(velocity: Any, momentum: Any, layout: Any, flat: Any) -> Any:
            if momentum != 0:
                raise ValueError("velocity is missing: expected an array (P,), zeros before the first step")
            return flat

        return no_velocity

    def checked_velocity(velocity: Any, momentum: Any, layout: Any, flat: Any) -> Any:
        if velocity.ndim != 1 or len(velocity) != len(flat):
            raise ValueError("velocity has the wrong length: expected one number for each parameter")
        return velocity

    return checked_velocity


@jit_inlined
def _started(weights: Any, biases: Any, X: Array, Y: Array, velocity: Any, momentum: float, nesterov: bool,
             batch: int) -> tuple[Layout, Array, Places, bool, Array, Array]:  # fmt: skip
    """Return the filled memory of a descent, its layout and offsets, and the flat parameters and velocity."""
    layout = layout_of(weights, biases, X)
    check_targets(layout, weights, X, Y)
    if nesterov and momentum == 0:
        raise ValueError("nesterov is True, but momentum is 0: expected momentum > 0")
    flat = flatten(weights, biases)
    moving = _velocity(velocity, momentum, layout, flat)
    samples = 1 if batch > 0 else len(X)
    product = product_is_cheaper(layout, batch if batch > 0 else samples, True)
    memory = make_memory(layout, X, samples, product, False, True, momentum != 0, batch, 0)
    offsets = places(memory, layout, samples, product, False, True, momentum != 0, batch, 0)
    pack(layout, flat, 0, 1, memory, offsets.theta, 1.0)
    pack(layout, flat, 0, 1, memory, offsets.other, 1.0)
    pack_mask(layout, memory, offsets.mask)
    if momentum != 0:
        pack(layout, moving, 0, 1, memory, offsets.velocity, 0.0)
    if batch == 0:
        pack_samples(layout, X, np.empty(0, X.dtype), Y, memory, offsets.x, offsets.y)
    return layout, memory, offsets, product, flat, moving


@jit
def gd_step(weights: Any, X: Array, Y: Array, lr: float, biases: Any = None, kind: int = HALF_SUM,
            weight_decay: float = 0.0, momentum: float = 0.0, nesterov: bool = False,
            velocity: Any = None) -> float:  # fmt: skip
    """Take one step on all samples, in place, and return the loss before it.

    Parameters
    ----------
    lr : float
    velocity : (P,) array
        Needed with momentum, changed in place; zeros before the first step.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import numpy as np, hesskern.numba as nb
    >>> weights = np.array([[1.0, 2.0]]), np.array([[3.0]])
    >>> X, Y = np.array([[1.0, 1.0]]), np.array([[8.0]])
    >>> nb.gd_step(weights, X, Y, 0.01), nb.loss(weights, X, Y) < 0.5
    (0.5, True)
    """
    layout, memory, offsets, product, flat, moving = _started(weights, biases, X, Y, velocity, momentum, nesterov, 0)
    scale, count = scale_of(kind, len(X), Y.shape[1]), layout[0, START]
    value = 0.5 * scale * squared_residual(memory, layout, offsets, offsets.theta, offsets.x, offsets.y, len(X),
                                           product, scale, True)  # fmt: skip
    if weight_decay != 0:
        value += 0.5 * weight_decay * squared_norm(memory, offsets.theta, offsets.theta, 0.0, offsets.mask, count)
    update(memory, offsets, offsets.theta, offsets.other, count, lr, momentum, nesterov, weight_decay)
    if momentum != 0:
        unpack(layout, memory, offsets.velocity, moving, 0, 1)
    unpack(layout, memory, offsets.other, flat, 0, 1)
    assign(weights, flat, biases)
    return value


@jit
def sgd_epoch(weights: Any, X: Array, Y: Array, lr: float, order: NDArray[np.int64], batch_size: int,
              biases: Any = None, kind: int = HALF_SUM, weight_decay: float = 0.0, momentum: float = 0.0,
              nesterov: bool = False, velocity: Any = None) -> NDArray[np.float64]:  # fmt: skip
    """Train for one epoch in minibatches, in place, and return each batch's loss before its step.

    Parameters
    ----------
    lr : float
    order : (M,) int64 array
        The samples in the order of their use, for instance ``np.random.permutation(len(X))``.
    batch_size : int, >= 1
        The last batch may be shorter. With kind `MEAN` a batch's loss is the mean over its own samples.
    velocity : (P,) array
        Needed with momentum, changed in place; zeros before the first epoch.

    Raises
    ------
    ValueError
        If shapes do not fit, or `order` holds a number that is not a sample.

    Examples
    --------
    >>> import numpy as np, hesskern.numba as nb
    >>> weights = np.array([[1.0, 2.0]]), np.array([[3.0]])
    >>> X, Y = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), np.array([[8.0], [3.0], [5.0]])
    >>> nb.sgd_epoch(weights, X, Y, 0.01, np.arange(3), 2).round(3)
    array([0.5  , 0.362])
    """
    if batch_size < 1:
        raise ValueError("batch_size is less than 1: expected at least one sample")
    for sample in order:
        if not 0 <= sample < len(X):
            raise ValueError("order holds a number that is not a sample: expected numbers from 0 to N - 1")
    largest = max(1, min(batch_size, len(order)))
    layout, memory, offsets, product, flat, moving = _started(
        weights, biases, X, Y, velocity, momentum, nesterov, largest
    )
    batches, count = (len(order) + batch_size - 1) // batch_size, layout[0, START]
    losses = np.empty(batches)
    for k in range(batches):
        begin, end = k * batch_size, min((k + 1) * batch_size, len(order))
        theta, following = (offsets.theta, offsets.other) if k % 2 == 0 else (offsets.other, offsets.theta)
        scale = scale_of(kind, end - begin, Y.shape[1])
        gather(memory, layout, X, Y, order, begin, end, offsets.batch_x, offsets.batch_y)
        losses[k] = 0.5 * scale * squared_residual(memory, layout, offsets, theta, offsets.batch_x, offsets.batch_y,
                                                   end - begin, product, scale, True)  # fmt: skip
        if weight_decay != 0:
            losses[k] += 0.5 * weight_decay * squared_norm(memory, theta, theta, 0.0, offsets.mask, count)
        update(memory, offsets, theta, following, count, lr, momentum, nesterov, weight_decay)
    if momentum != 0:
        unpack(layout, memory, offsets.velocity, moving, 0, 1)
    unpack(layout, memory, offsets.theta if batches % 2 == 0 else offsets.other, flat, 0, 1)
    assign(weights, flat, biases)
    return losses


def _rate(lr: Any, step: Any, loss: Any, norm: Any) -> Any:
    """Return the learning rate of a step."""


@overload(_rate, jit_options={"nogil": True}, strict=False)
def _rate_of(lr: Any, step: Any, loss: Any, norm: Any) -> Any:
    if isinstance(lr, types.Array):
        return lambda lr, step, loss, norm: lr[step]
    if isinstance(lr, types.Number):
        return lambda lr, step, loss, norm: lr
    return lambda lr, step, loss, norm: lr(step, loss, norm)


#: The losses of this number of steps take 8 TiB: a larger number is a mistake.
_MOST_STEPS = 2**40


@jit_inlined
def _check_rule(max_steps: int, momentum: float, weight_decay: float) -> None:
    """Refuse numbers outside their range, once for a run."""
    if not 0 <= max_steps <= _MOST_STEPS:
        raise ValueError("max_steps is negative, or beyond 2**40: expected 0 to 2**40 steps, whose losses are stored")
    if not 0 <= momentum < np.inf:
        raise ValueError("momentum is negative or not finite: expected a number >= 0")
    if not 0 <= weight_decay < np.inf:
        raise ValueError("weight_decay is negative or not finite: expected a number >= 0")


def _check_rates(lr: Any, max_steps: Any) -> Any:
    """Refuse negative rates, and an array with fewer rates than steps, which would be read beyond its end."""


@overload(_check_rates, jit_options={"nogil": True}, strict=False)
def _check_rates_of(lr: Any, max_steps: Any) -> Any:
    if isinstance(lr, types.Number):

        def check_number(lr: Any, max_steps: Any) -> None:
            if not 0 <= lr < np.inf:
                raise ValueError("lr is negative or not finite: expected a number >= 0")

        return check_number
    if not isinstance(lr, types.Array):
        return lambda lr, max_steps: None

    def check(lr: Any, max_steps: Any) -> None:
        if lr.ndim != 1 or len(lr) < max_steps:
            raise ValueError("lr has fewer rates than max_steps: expected an array with one for each step")
        for rate in lr:
            if not 0 <= rate < np.inf:
                raise ValueError("lr holds a number that is negative or not finite: expected numbers >= 0")

    return check


@jit
def fit(weights: Any, X: Array, Y: Array, lr: Any, max_steps: int, rtol: float = -1.0, biases: Any = None,
        kind: int = HALF_SUM, weight_decay: float = 0.0, momentum: float = 0.0, nesterov: bool = False,
        callback: Any = None) -> tuple[int, NDArray[np.float64]]:  # fmt: skip
    """Train on all samples, in place; return the status at the end and the loss before each step.

    Nothing is reduced before the run; `hesskern.fit` reduces data and widths first.

    Parameters
    ----------
    lr : float >= 0, (max_steps,) array, or jitted function
        A function takes ``(step, loss, gradient_norm)``, steps counted from 0, and returns the rate.
    max_steps : int, >= 0
    rtol : float
        Converged when the loss is at most `rtol` times the first loss; the update of that step is still done. < 0:
        never.
    callback : jitted function, optional
        Called before every update with ``(step, loss, theta)``, theta (P,) being the parameters, not to be changed;
        returns True to stop before the update.

    Returns
    -------
    status : int
        `MAX_STEPS`, `CONVERGED`, `DIVERGED` (the weights are the last ones with a finite loss) or `STOPPED` (by
        `callback`).
    losses : (steps,) array
        After `STOPPED` it has one more entry: the loss of the final weights.

    Raises
    ------
    ValueError
        If shapes do not fit, or `max_steps`, a rate, `momentum` or `weight_decay` is negative.

    Examples
    --------
    >>> import numpy as np, hesskern as hk, hesskern.numba as nb
    >>> case = hk.datasets.two_layer_case()
    >>> weights = tuple(weight.copy() for weight in case.network.weights)
    >>> status, losses = nb.fit(weights, case.X, case.Y, case.lr, 10_000, case.rtol)
    >>> status == nb.CONVERGED, len(losses)
    (True, 608)
    """
    _check_rule(max_steps, momentum, weight_decay)
    layout, memory, offsets, product, flat, _ = _started(
        weights, biases, X, Y, _zeros(weights, biases), momentum, nesterov, 0
    )
    scale, count = scale_of(kind, len(X), Y.shape[1]), layout[0, START]
    _check_rates(lr, max_steps)
    losses, status, steps_taken, target, seen = np.empty(max_steps), MAX_STEPS, 0, -1.0, 0
    for step in range(max_steps):
        theta, following = (offsets.theta, offsets.other) if step % 2 == 0 else (offsets.other, offsets.theta)
        value = 0.5 * scale * squared_residual(memory, layout, offsets, theta, offsets.x, offsets.y, len(X), product,
                                               scale, True)  # fmt: skip
        if weight_decay != 0:
            value += 0.5 * weight_decay * squared_norm(memory, theta, theta, 0.0, offsets.mask, count)
        if not np.isfinite(value):
            status, steps_taken = DIVERGED, max(0, step - 1)
            break
        losses[step] = value
        seen = step + 1
        if callback is not None:
            unpack(layout, memory, theta, flat, 0, 1)
            if callback(step, value, flat):
                status = STOPPED
                break
        norm = np.sqrt(squared_norm(memory, offsets.gradient, theta, weight_decay, offsets.mask, count))
        update(memory, offsets, theta, following, count, _rate(lr, step, value, norm), momentum, nesterov, weight_decay)
        steps_taken = step + 1
        if step == 0 and rtol >= 0:
            target = rtol * value
        if value <= target:
            status = CONVERGED
            break
    unpack(layout, memory, offsets.theta if steps_taken % 2 == 0 else offsets.other, flat, 0, 1)
    assign(weights, flat, biases)
    return status, losses[:seen]


@jit_inlined
def _zeros(weights: Any, biases: Any) -> Array:
    flat = flatten(weights, biases)
    flat[:] = 0
    return flat
