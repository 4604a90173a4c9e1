"""Conversion between a `torch.nn.Module` and arrays with names."""
