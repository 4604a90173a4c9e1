"""CUDA graphs: work recorded once and replayed, on the GPU of its tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Recorded:
    """Work on a device, recorded without being done; `replay` does it on the current stream.

    Recording waits for all work of the process on the device.

    Parameters
    ----------
    work : callable
        It must have run before, because the initialisation of libraries on first use cannot be recorded.
    device : torch.device
    """

    def __init__(self, work: Callable[[], Any], device: torch.device) -> None:
        self._device, self._graph = device, torch.cuda.CUDAGraph()
        # PyTorch's own stream for this is on the first device that ever recorded.
        stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(device), torch.cuda.graph(self._graph, stream=stream):
            self.result = work()

    def replay(self) -> None:
        """Do the work again; its result is written where it was."""
        with torch.cuda.device(self._device):
            self._graph.replay()
