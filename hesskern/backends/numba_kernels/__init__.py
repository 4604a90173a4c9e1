"""The kernels of the backend "numba" and of `hesskern.numba`."""
