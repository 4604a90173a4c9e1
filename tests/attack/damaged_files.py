"""The group "damage": twenty files of `attack.damage` a seed, some spoiled at random and some as its list says."""

from __future__ import annotations

import itertools

import numpy as np

from attack.judge import Judge

_FILES = 20


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Hand damaged files to the doors that read them; `backend` and `everything` change nothing."""
    from attack import damage

    rng = np.random.default_rng([14, seed])
    judge, names = Judge(), list(damage.FIXED)
    judge.cases = 0
    for number, (door, content, doors) in enumerate(itertools.islice(damage.cases(seed), _FILES)):
        what = f"file {number}"
        if number % 4 == 0 and "npy" not in door and "csv" not in door and door != "explain":
            what = names[int(rng.integers(0, len(names)))]
            content = damage.FIXED[what]((doors.folder / doors.FILES[door]).read_bytes())
        judge.cases += 1
        with judge.check(f"damaged file for {door}"):
            wrong = damage.attempt(doors, door, content)
            judge.true(wrong is None, f"{what}: {wrong}")
    return judge
