"""Times hesskern's own contestants of one checkout, as told line by line in JSON; `bench.side_by_side` starts it.

    python bench/worker.py CHECKOUT

It takes the tasks of that checkout, which may be an older one, and the hesskern that is installed for this Python. So
it uses nothing but `problems` of a task; `contestants`, `error`, `tolerance` and `spoil` of a problem; `name`, `role`,
`run` and `context` of a contestant.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import timeit
from collections.abc import Callable
from typing import Any

#: A call that takes so many seconds is not repeated within a round.
LONG = 0.5


def main(checkout: str) -> None:
    """Answer each line of standard input with one line on standard output, until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    sys.path.append(checkout)
    from bench.tasks import TASKS
    from bench.threads import extension_threads

    gc.disable()
    ours: dict[str, Any] = {}
    with extension_threads(1):
        for line in sys.stdin:
            request = json.loads(line)
            if "problem" in request:
                ours.clear()
                gc.collect()
                makers = TASKS[request["task"]].problems(request["quick"]) if request["task"] in TASKS else ()
                answer: Any = None
                if request["problem"] < len(makers):
                    problem = makers[request["problem"]]()
                    ours |= {c.name: c for c in problem.contestants if _is_ours(c) and c.run is not None}
                    wrong = {name: why for name, c in ours.items() if (why := _wrong(problem, c))}
                    calls = {name: _calls(c) for name, c in ours.items() if name not in wrong}
                    answer = {"label": problem.label, "calls": calls, "wrong": wrong}
            else:
                contestant = ours[request["contestant"]]
                with contestant.context():
                    answer = _seconds(contestant.run, request["calls"])
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _is_ours(contestant: Any) -> bool:
    return bool(contestant.role == "ours" or contestant.name.startswith("hesskern"))


def _wrong(problem: Any, contestant: Any) -> str:
    """Return why the result of a contestant is wrong; empty for a right one."""
    problem.spoil()
    try:
        with contestant.context():
            error = problem.error(contestant.run())
    except Exception as failure:  # it is reported, and the others are timed
        return f"{type(failure).__name__}: {failure}"
    return "" if error <= problem.tolerance else f"relative error {error:.1e} > {problem.tolerance:.0e}"


def _calls(contestant: Any, least: float = 0.01) -> int:
    """Return how many calls last at least `least` seconds."""
    calls = 1
    with contestant.context():
        while (took := timeit.timeit(contestant.run, number=calls)) < least:
            calls *= max(2, min(100, int(1.2 * least / max(took, 1e-9))))
    return calls


def _seconds(run: Callable[[], object], calls: int) -> float:
    began = timeit.timeit(run, number=1)  # warms up
    return began if calls == 1 and began >= LONG else timeit.timeit(run, number=calls) / calls


if __name__ == "__main__":
    main(sys.argv[1])
