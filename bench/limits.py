"""The limit of a problem: what "x of the limit" is taken from."""

from __future__ import annotations

from typing import Any

from bench.timing import summary


def limit_of(problem: dict[str, Any]) -> dict[str, Any] | None:
    """Return the floor that is the limit: the fastest way to do a part of the job, of the part that takes longest."""
    parts: dict[str, tuple[float, dict[str, Any]]] = {}
    for contestant in problem["contestants"]:
        if contestant["role"] == "floor" and contestant["status"] == "timed":
            part, median = contestant["part"], summary(contestant["seconds"]).median
            if part not in parts or median < parts[part][0]:
                parts[part] = median, contestant
    return max(parts.values(), key=lambda found: found[0], default=(0.0, None))[1]
