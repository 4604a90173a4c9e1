"""Minibatches: which samples each step uses, the same in every backend."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Chosen(NamedTuple):
    """The samples of some steps: step k has ``order[ends[k-1]:ends[k]]``."""

    order: Indices
    ends: Indices
    sizes: Indices

    def scales(self, scale: float, per_sample: float | None) -> NDArray[np.float64]:
        """Return the factor of each batch's loss: `scale`, or `per_sample` over its number of samples."""
        return np.full(len(self.sizes), scale) if per_sample is None else per_sample / self.sizes


class Batches:
    """Epochs over the samples in batches.

    Epoch e (from 0) goes through the samples in the order ``numpy.random.default_rng([seed, e]).permutation(samples)``,
    or, without shuffling, as they come. Batches are consecutive pieces of that order; the last one of an epoch is
    shorter where `size` does not divide `samples`.

    Examples
    --------
    >>> import numpy as np
    >>> chosen = Batches(samples=5, size=2, shuffle=True, seed=7).steps(0, 3)
    >>> chosen.ends.tolist()
    [2, 4, 5]
    >>> bool((chosen.order == np.random.default_rng([7, 0]).permutation(5)).all())
    True
    """

    def __init__(self, samples: int, size: int, *, shuffle: bool, seed: int) -> None:
        self.samples, self.size = samples, min(size, samples)
        self._shuffle, self._seed = shuffle, seed
        self.per_epoch = -(-samples // self.size)
        self._last: tuple[int, Indices] | None = None

    def _epoch(self, epoch: int) -> Indices:
        if self._last is None or self._last[0] != epoch:
            order = np.arange(self.samples, dtype=np.int64)
            if self._shuffle:
                order = np.random.default_rng([self._seed, epoch]).permutation(order)
            self._last = epoch, order
        return self._last[1]

    def steps(self, start: int, stop: int) -> Chosen:
        """Return the samples of the steps from `start` to before `stop`."""
        pieces: list[Indices] = []
        sizes = np.full(stop - start, self.size, dtype=np.int64)
        for epoch in range(start // self.per_epoch, (stop - 1) // self.per_epoch + 1):
            first = epoch * self.per_epoch
            begin, end = max(start, first) - first, min(stop, first + self.per_epoch) - first
            pieces.append(self._epoch(epoch)[begin * self.size : end * self.size])
            if end == self.per_epoch:
                sizes[first + end - 1 - start] = self.samples - (self.per_epoch - 1) * self.size
        return Chosen(np.concatenate(pieces), np.cumsum(sizes), sizes)
