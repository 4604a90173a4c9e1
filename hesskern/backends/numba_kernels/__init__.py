"""The kernels of the backend "numba", which `hesskern.numba` is made of too."""
