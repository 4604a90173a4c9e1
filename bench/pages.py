"""Tables inside pages: between two comments that say from which run they are, so that none can differ from its file.

``<!-- bench targets machine/run task task:2 -->`` begins one, ``<!-- end -->`` ends it. ``task:2`` is the second
problem of that task alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import tables
from bench.runs import UnreadableRunError, load

KINDS: dict[str, Callable[[dict[str, Any], Sequence[str]], str]] = {
    "machine": lambda run, _: tables.machine_line(run) + "\n",
    "method": lambda run, _: tables.method_line(run) + "\n",
    "headlines": tables.headlines,
    "brief": tables.brief,
    "targets": tables.targets,
    "growth": tables.growth,
    "times": tables.times,
}
MARKED = re.compile(r"(<!-- bench (\w+) (\S+)((?: [\w:]+)*) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def renewed(text: str) -> str:
    """Return a page with every marked table made again from its run."""

    def made(found: re.Match[str]) -> str:
        head, kind, run, tasks, _, end = found.groups()
        return f"{head}\n{KINDS[kind](load(run), tasks.split())}\n{end}"

    return MARKED.sub(made, text)


def renew(path: Path) -> bool:
    """Write a page's tables again; return whether anything changed.

    Raises
    ------
    UnreadableRunError
        If there is no such page, or a run of it cannot be read.
    """
    if not path.is_file():
        raise UnreadableRunError(f"There is no page {path}.")
    before = path.read_text(encoding="utf-8")
    after = renewed(before)
    path.write_text(after, encoding="utf-8")
    return after != before
