"""Arguments for the extension, and ways to spoil them."""

from __future__ import annotations

import numpy as np

from hesskern import _core

REFUSED = (ValueError, TypeError, IndexError)


def good():
    """Arguments of a 3-4-2 network on five samples."""
    rng = np.random.default_rng(0)
    return {
        "weights": [rng.standard_normal((4, 3)), rng.standard_normal((2, 4))],
        "biases": [rng.standard_normal(4), None],
        "X": rng.standard_normal((5, 3)),
        "ones": None,
        "Y": rng.standard_normal((5, 2)),
    }


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


#: Ways to spoil an array that has to have its exact shape, dtype and layout.
SPOILED = {
    "None": lambda a: None,
    "a list": lambda a: a.tolist(),
    "a string": lambda a: "array",
    "a number": lambda a: 1.0,
    "float32": lambda a: a.astype(np.float32),
    "integers": lambda a: a.astype(np.int64),
    "complex": lambda a: a.astype(np.complex128),
    "objects": lambda a: a.astype(object),
    "big-endian": lambda a: a.astype(">f8"),
    "one axis more": lambda a: a[None],
    "0-d": lambda a: np.float64(1.0).reshape(()),
    "one row less": lambda a: a[:-1].copy(),
    "one row more": lambda a: np.concatenate([a, a[:1]]),
    "empty": lambda a: a[:0].copy(),
    "every other element": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: a[::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
}
SPOILED_2D = SPOILED | {
    "one column less": lambda a: a[:, :-1].copy(),
    "one column more": lambda a: np.hstack([a, a[:, :1]]),
    "Fortran order": np.asfortranarray,
    "transposed": lambda a: a.T,
}


def spoil(how, array):
    return (SPOILED_2D if array.ndim == 2 else SPOILED)[how](array)


def descent(**changes):
    """Return a descent on the arguments of `good`, some of them changed."""
    nothing = {"samples_X": None, "samples_Y": None, "largest_batch": 0, "scale": 1.0, "constant": 0.0, "rtol": -1.0}
    rule = {"momentum": 0.0, "nesterov": False, "decay": 0.0}
    watch = {"every": 1, "loss_recorded": True, "sharpness": False, "leak_layers": [], "packed": False}
    return _core.Descent(**(good() | nothing | rule | watch | changes))


def job(steps, *, rate=1e-3, scale=1.0, order=None, ends=None, batch_losses=None, gradient_norms=None, sharpness=None):
    """Return a job of some steps, as a list that can be changed."""
    rates, scales, losses = np.full(steps, rate), np.full(steps, scale), np.zeros(steps)
    return [rates, scales, order, ends, losses, batch_losses, gradient_norms, sharpness]
