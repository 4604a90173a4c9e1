"""What knows nothing of networks: arguments, arrays, devices, memory, files, interruptions."""
