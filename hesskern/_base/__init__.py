"""Helpers that do not depend on networks: arguments, arrays, devices, memory, files, interruptions."""
