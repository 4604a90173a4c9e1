"""Ladders of sizes: one quantity grows while the others stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.contest import Rung
from bench.problems import Size


@dataclass(frozen=True)
class Ladder:
    """Sizes in which one quantity grows."""

    name: str
    variable: str
    sizes: tuple[Size, ...]
    value: Callable[[Size], float]


def by_samples(widths: Sequence[int], counts: Iterable[int]) -> Ladder:
    """Return networks of these widths on more and more samples."""
    sizes = tuple(Size(count, tuple(widths)) for count in counts)
    return Ladder("-".join(map(str, widths)), "N", sizes, lambda size: size.samples)


def by_width(samples: int, inputs: int, outputs: int, widths: Iterable[int]) -> Ladder:
    """Return networks of two layers with more and more hidden units."""
    sizes = tuple(Size(samples, (inputs, width, outputs)) for width in widths)
    return Ladder(f"{inputs}-h-{outputs}, N = {samples}", "h", sizes, lambda size: size.widths[1])


def by_depth(samples: int, inputs: int, width: int, outputs: int, depths: Iterable[int]) -> Ladder:
    """Return networks of more and more layers, all hidden ones of one width."""
    sizes = tuple(Size(samples, (inputs, *(width,) * (depth - 1), outputs)) for depth in depths)
    name = f"{inputs}-{width}-...-{width}-{outputs}, N = {samples}"
    return Ladder(name, "layers", sizes, lambda size: len(size.widths) - 1)


#: Of single passes through a network.
PASSES = (
    by_samples((20, 200, 20), (100, 1000, 10_000)),
    by_width(100, 20, 20, (50, 200, 800, 3200)),
    by_depth(100, 32, 64, 32, (2, 4, 8)),
)
#: What a quick run has: networks so small that only calls cost.
TINY = (by_width(3, 4, 2, (3, 6, 12)),)


def union(ladders: Iterable[Ladder], more: Iterable[Size] = ()) -> list[Size]:
    """Return every size once: those of the ladders, then others."""
    return list(dict.fromkeys([*(size for ladder in ladders for size in ladder.sizes), *more]))


def rungs(size: Size, ladders: Iterable[Ladder]) -> list[Rung]:
    """Return the places of a size on the ladders it is on."""
    return [Rung(ladder.name, ladder.variable, ladder.value(size)) for ladder in ladders if size in ladder.sizes]
