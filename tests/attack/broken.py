"""The group "broken": cases that go wrong in every way there is, for the tests of the driver itself."""

from __future__ import annotations

import os
import signal

from attack.judge import Judge


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Do well, be wrong, raise, crash or end, by the last digit of the seed."""
    judge = Judge()
    with judge.check("broken"):
        match seed % 10:
            case 3:
                judge.ratio(31.0)
            case 5:
                raise ValueError("a sentence")
            case 7:
                os.kill(os.getpid(), signal.SIGSEGV)
            case 8:
                os._exit(4)
            case _:
                judge.ratio(1.0)
    if seed % 10 == 6:
        raise RuntimeError("outside of a check")
    return judge
