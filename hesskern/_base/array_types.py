"""Type names for arrays, shared by all modules."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: An array of float32 or float64.
Array: TypeAlias = NDArray[np.floating[Any]]

#: An array in main memory, or a PyTorch tensor on a GPU: no type describes the operators that both have.
AnyArray: TypeAlias = Any

#: An array of float64.
Matrix: TypeAlias = NDArray[np.float64]
