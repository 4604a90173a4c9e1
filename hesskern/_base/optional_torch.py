"""PyTorch, loaded only when it is needed: it is an optional dependency, and loading it takes seconds."""

from __future__ import annotations

import importlib
from typing import Any


class TorchUnavailableError(Exception):
    """PyTorch cannot be loaded; the message says why and what to do."""


def load_torch() -> Any:
    """Import PyTorch.

    Raises
    ------
    TorchUnavailableError
        If it is not installed or does not load, in plain words.
    """
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise TorchUnavailableError(f"PyTorch is installed but does not load: {error}") from error
        raise TorchUnavailableError(
            'PyTorch is not installed; to see it here: pip install "hesskern[torch]"'
        ) from error
    except (ImportError, OSError) as error:  # a shared library of it is missing or broken
        raise TorchUnavailableError(f"PyTorch is installed but does not load: {error}") from error
