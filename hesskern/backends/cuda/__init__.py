"""The CUDA backend: kernels compiled at run time, on tensors of PyTorch."""
