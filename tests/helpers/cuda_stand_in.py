"""The module that the registry loads as "cuda" in tests without a GPU: all of the backend but the launch."""

import cuda_host

from hesskern.backends.cuda.operations import CudaBackend

BACKEND = CudaBackend(cuda_host.launch, cuda_host.limits)
