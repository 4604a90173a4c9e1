"""How far rounding errors may take a run at full width from the exact trajectory.

Let q be a unit vector orthogonal to all weights that touch a hidden layer l wider than its neighbours together. The
exact trajectory never moves along q. Each step multiplies rounding errors along q by at most ``1 + rate ‖C‖₂``, ``C =
D_{l+1}.T Z_{l-1}``, with momentum by the larger root of the recurrence's polynomial. C is computed after 0, 1, 2, 4,
... 64 and then every 64 steps, the growth in between by the trapezoidal rule.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels.compile import jit
from hesskern.backends.numba_kernels.layout import BIAS, PAD, WIDTH, Layout
from hesskern.backends.numba_kernels.memory import Places
from hesskern.backends.numba_kernels.passes import activation, delta

_INTERVAL = 64


@jit
def leak_is_due(step: int, looked: int) -> bool:
    """Return whether the leak is computed in this step."""
    return step != looked and (step % _INTERVAL == 0 or (step < _INTERVAL and step & (step - 1) == 0))


@jit
def _coupling(memory: Array, layout: Layout, at: Places, theta: int, x: int, rows: int, product: bool,
              l: int) -> NDArray[np.float64]:  # fmt: skip
    """Return C of a hidden layer, counted from 1, from what `prepare` computed."""
    d, outputs, stride = delta(layout, at.below, rows, product, at.d, l + 1), layout[l + 1, WIDTH], layout[l + 1, PAD]
    z, inputs, pad = activation(layout, theta, x, rows, product, at.z, l - 1), layout[l - 1, WIDTH], layout[l - 1, PAD]
    identity = l == 1 and product
    inputs += layout[0, BIAS]
    coupling = np.zeros((outputs, inputs))
    for n in range(rows):
        for r in range(outputs):
            if identity:
                coupling[r, n] = memory[d + n * stride + r]
            else:
                for a in range(inputs):
                    coupling[r, a] += memory[d + n * stride + r] * memory[z + n * pad + a]
    return coupling


@jit
def _spectral_norm(matrix: NDArray[np.float64]) -> float:
    """Return ‖A‖₂ to two digits, from below, by power iteration."""
    m, n = matrix.shape
    right, left, norm = np.empty(n), np.empty(m), 0.0
    for b in range(n):
        right[b] = 1.0 / (b + 1)
    for _ in range(20):
        size = np.sqrt(np.sum(right * right))
        if not size > 0:
            return norm
        before, square = norm, 0.0
        for r in range(m):
            left[r] = 0.0
            for b in range(n):
                left[r] += matrix[r, b] * right[b] / size
            square += left[r] * left[r]
        norm = np.sqrt(square)
        if norm - before <= 1e-2 * norm:
            break
        right[:] = 0.0
        for r in range(m):
            for b in range(n):
                right[b] += left[r] * matrix[r, b]
    return norm


@jit
def watch_leak(memory: Array, layout: Layout, at: Places, theta: int, x: int, rows: int, product: bool, rate: float,
               momentum: float, nesterov: bool, decay: float, passed: int, layers: NDArray[np.int64],
               growth: NDArray[np.float64], growing: NDArray[np.float64]) -> None:  # fmt: skip
    """Add the growth in the `passed` steps since the last call, and store the present rate."""
    for k in range(len(layers)):
        coupling = _coupling(memory, layout, at, theta, x, rows, product, layers[k])
        push = 1.0 + rate * max(_spectral_norm(coupling) - decay, 0.0)
        b, last = ((1 + momentum) * push, momentum * push) if nesterov else (push + momentum, momentum)
        now = max(0.0, np.log(0.5 * (b + np.sqrt(max(0.0, b * b - 4 * last)))))
        growth[k] += 0.5 * passed * (growing[k] + now)
        growing[k] = now
