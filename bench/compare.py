"""Two runs against each other: what became slower or faster, and how sure that is.

Times are skewed and have outliers, so nothing here assumes a normal distribution. The size of a change is the ratio of
medians with a bootstrap confidence interval; whether there is one at all is the Mann-Whitney U test, which looks at
ranks only, with the p-values of all comparisons adjusted (Benjamini and Hochberg), since of hundreds some are small by
chance. Both come from SciPy. They see the spread within a run, not that a machine may be slower on another day: that
is seen by the contestants that are not ours, and a change they share is the machine's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from bench.timing import summary
from bench.words import digits, seconds_words

CONFIDENCE = 0.99
#: The largest p-value that counts.
LEVEL = round(1 - CONFIDENCE, 10)
#: A change of the median below this is none: what code moved in memory does to it is as large.
THRESHOLD = 0.05
RESAMPLES = 2000
#: Of a long list of contestants, so many are named.
NAMED = 8


class Change(NamedTuple):
    """A contestant in two runs.

    Attributes
    ----------
    ratio, lower, upper : float
        Median of the second run over that of the first, with its confidence interval.
    p : float
        Adjusted p-value of the Mann-Whitney U test.
    others : float or None
        The same ratio of the contestants of this problem that are not ours: their geometric mean.
    rounds : int
        The rounds of the run that has fewer.
    least : float
        The least p-value that the test can give with so many rounds, not adjusted.
    """

    task: str
    problem: str
    contestant: str
    role: str
    before: float
    after: float
    ratio: float
    lower: float
    upper: float
    p: float
    others: float | None
    rounds: int
    least: float

    @property
    def comparable(self) -> bool:
        """Whether there are enough rounds for the test to tell anything."""
        return self.least <= LEVEL

    def verdict(self, threshold: float = THRESHOLD) -> str:
        """Return "slower", "faster", "machine" (all moved alike) or "" (no change that can be told)."""
        if not self.comparable or self.p > LEVEL:
            return ""
        if self.lower > 1 + threshold:
            word = "slower"
        elif self.upper < 1 / (1 + threshold):
            word = "faster"
        else:
            return ""
        if self.role == "ours" and self.others is not None:
            own = math.log(self.ratio / self.others) * (1 if word == "slower" else -1)
            if own <= math.log(1 + threshold):
                return "machine"
        return word


def interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Return the bootstrap confidence interval of the ratio of medians, `after` over `before`."""
    if min(len(before), len(after)) < 2:
        return 0.0, math.inf

    def ratio(b: Any, a: Any, axis: int) -> Any:
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    found = stats.bootstrap(
        (before, after), ratio, vectorized=True, confidence_level=CONFIDENCE, n_resamples=RESAMPLES,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def compare(first: dict[str, Any], second: dict[str, Any]) -> list[Change]:
    """Return the changes of all contestants that were timed in both runs.

    The p-values of those with enough rounds are adjusted for their number.
    """
    found: list[Change] = []
    before = {(task, problem["label"]): problem for task, problem in _problems(first)}
    for task, problem in _problems(second):
        earlier = before.get((task, problem["label"]))
        if earlier is not None:
            found += _changes(task, earlier, problem)
    able = [change for change in found if change.comparable]
    adjusted = iter(stats.false_discovery_control([change.p for change in able]) if able else ())
    return [change._replace(p=float(next(adjusted))) if change.comparable else change for change in found]


def least_p(before: int, after: int) -> float:
    """Return the p-value of so many rounds in two runs of which one is faster in every round."""
    return float(stats.mannwhitneyu(range(before), range(before, before + after)).pvalue)


def _problems(run: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for task in run["tasks"]:
        for problem in task["problems"]:
            yield task["name"], problem


def _timed(problem: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {found["name"]: found for found in problem["contestants"] if found["status"] == "timed"}


def _changes(task: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    earlier, later = _timed(before), _timed(after)
    shared = {name: (earlier[name]["seconds"], later[name]["seconds"]) for name in later if name in earlier}
    medians = {name: (summary(a).median, summary(b).median) for name, (a, b) in shared.items()}
    logs = [math.log(b / a) for name, (a, b) in medians.items() if not is_ours(later[name])]
    for name, (a, b) in shared.items():
        old, new = medians[name]
        lower, upper = interval(a, b)
        yield Change(
            task, after["label"], name, "ours" if is_ours(later[name]) else later[name]["role"], old, new, new / old,
            lower, upper, float(stats.mannwhitneyu(a, b).pvalue), math.exp(sum(logs) / len(logs)) if logs else None,
            min(len(a), len(b)), least_p(len(a), len(b)),
        )  # fmt: skip


def is_ours(contestant: dict[str, Any]) -> bool:
    """Return whether this is hesskern's own code, in any of its forms."""
    return bool(contestant["role"] == "ours" or contestant["name"].startswith("hesskern"))


def regressions(changes: Sequence[Change], threshold: float = THRESHOLD) -> list[Change]:
    """Return what of ours became slower and is not the machine's doing."""
    return [change for change in changes if change.role == "ours" and change.verdict(threshold) == "slower"]


def markdown(
    first: dict[str, Any], second: dict[str, Any], changes: Sequence[Change], threshold: float = THRESHOLD
) -> str:
    """Return the comparison as text: what changed, then how many did not."""
    lines = [f"- before: {_where(first)}", f"- after: {_where(second)}"]
    if first["machine"]["cpu"] != second["machine"]["cpu"]:
        lines.append("- The processors differ: this compares machines as much as revisions.")
    lines.append("")
    told = [change for change in changes if change.verdict(threshold)]
    if told:
        head = f"| task | problem | contestant | before | after | ratio ({CONFIDENCE:.0%} interval) | p | others | |"
        lines += [head, "|---|---|---|---|---|---|---|---|---|"]
        order = {"slower": 0, "faster": 1, "machine": 2}
        told.sort(key=lambda change: (change.role != "ours", order[change.verdict(threshold)], -change.ratio))
        lines += [_row(change, change.verdict(threshold)) for change in told]
        lines.append("")
    worse = regressions(changes, threshold)
    able = [change for change in changes if change.comparable]
    lines.append(
        f"{len(changes)} contestants were timed in both, {len(changes) - len(able)} of them in too few rounds to "
        f"compare; {len(told)} moved by more than {threshold:.0%}, of ours {len(worse)} became slower."
    )
    if able and not told:
        lines.append("No change that can be told from noise.")
    lines += _too_few(changes)
    both = {_label(change) for change in changes}
    for which, run in (("before", first), ("after", second)):
        only = [name for name in _all_timed(run) if name not in both]
        if only:
            lines.append(f"{len(only)} contestants were timed only in the run {which}: {_names(only)}.")
    return "\n".join(lines) + "\n"


def _too_few(changes: Sequence[Change]) -> Iterator[str]:
    """Say whose rounds are too few, and where they are enough only for a change that others share."""
    groups: dict[tuple[int, float], list[Change]] = {}
    for change in changes:
        if not change.comparable:
            groups.setdefault((change.rounds, change.least), []).append(change)
    for (rounds, least), found in sorted(groups.items()):
        yield (
            f"{rounds} rounds cannot tell anything below p = {least:.2g}, and {LEVEL:g} is asked for: "
            f"{_names([_label(change) for change in found])}."
        )
    able = [change for change in changes if change.comparable]
    alone = sum(change.least * len(able) > LEVEL for change in able)
    if alone:
        yield (
            f"Of {alone} a change that no other contestant shares could not be told: their rounds are too few for a "
            f"p-value that is adjusted for {len(able)} comparisons."
        )


def _label(change: Change) -> str:
    return f"{change.task}, {change.problem}, {change.contestant}"


def _all_timed(run: dict[str, Any]) -> list[str]:
    return [f"{task}, {problem['label']}, {name}" for task, problem in _problems(run) for name in _timed(problem)]


def _names(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return "; ".join(names[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def _where(run: dict[str, Any]) -> str:
    machine = run["machine"]
    load = machine["load_average"]
    return (
        f"revision {machine['revision'] or 'unknown'}, {machine['cpu']}, {machine['isa']}, "
        f"load {load['start']} to {load.get('end', '?')}, {run['settings']['rounds']} rounds"
        + (", a quick run" if run["settings"]["quick"] else "")
    )


def _row(change: Change, verdict: str) -> str:
    others = "" if change.others is None else digits(change.others)
    word = f"**{verdict}**" if change.role == "ours" and verdict == "slower" else verdict
    return (
        f"| {change.task} | {change.problem} | {change.contestant} | {seconds_words(change.before)} | "
        f"{seconds_words(change.after)} | {digits(change.ratio)} ({digits(change.lower)} to {digits(change.upper)}) | "
        f"{change.p:.1g} | {others} | {word} |"
    )
