"""The least-squares data as backends see it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hesskern._base import devices
from hesskern._base.array_types import Array


class Data(NamedTuple):
    """Rows of inputs and targets, the column that biases multiply, and the part of the loss that the rows lack."""

    X: Array
    ones: Array | None  # (N,), None: ones
    Y: Array
    constant: float  # half the squared norm of the part of Y that no weights can reach

    def astype(self, dtype: np.dtype[Any]) -> Data:
        """Return the data rounded to NumPy's dtype `dtype`; itself where it has that already."""
        if devices.numpy_dtype(self.X) == dtype:
            return self
        ones = None if self.ones is None else devices.converted(self.ones, dtype)
        return Data(devices.converted(self.X, dtype), ones, devices.converted(self.Y, dtype), self.constant)

    @property
    def column(self) -> Array:
        """The column that biases multiply, (N,)."""
        if self.ones is not None:
            return self.ones
        column: Array = devices.ones((len(self.X),), self.X)
        return column
