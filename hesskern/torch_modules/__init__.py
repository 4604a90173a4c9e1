"""What a `torch.nn.Module` is as arrays and names."""
