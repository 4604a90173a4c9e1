"""The group "malformed": a hundred calls of `attack.malformed` a seed, in a child process."""

from __future__ import annotations

import itertools

from attack.judge import Judge

_CALLS = 100


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Judge the first hundred calls of this seed; `backend` and `everything` change nothing."""
    from attack import malformed

    judge = Judge()
    judge.cases = 0
    for line, wrong in malformed.in_children(itertools.islice(malformed.cases(seed), _CALLS)):
        judge.cases += 1
        judge.tried["malformed call"] += 1
        if wrong:
            judge.wrong.append(f"{line}: {wrong}")
    return judge
