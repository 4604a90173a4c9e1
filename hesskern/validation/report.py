"""The result of `validate`: rows with a verdict each, as a table, as plain data, as one word."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

AGREES = "agrees"
UNDECIDED = "undecided"
ABSENT = "absent"
UNCHECKED = "not checked"
OVERFLOWED = "overflowed"
HESSKERN_WRONG = "HESSKERN IS WRONG"
AUTOGRAD_WRONG = "AUTOGRAD IS WRONG"
DIFFERS = "DIFFERS"
THIRD_DIFFERS = "THE THIRD WITNESS DIFFERS"
RAISED = "RAISED AN ERROR"

_FAILURES = (HESSKERN_WRONG, AUTOGRAD_WRONG, DIFFERS, THIRD_DIFFERS, RAISED)

#: From this size on a tolerance decides nothing.
USELESS = 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity of one backend on one problem.

    Errors are norms of differences, relative to the norm of the quantity; if its terms cancel, relative to the norm of
    the terms, and the note says so. NaN means that nothing was compared.

    Attributes
    ----------
    problem, backend, group, quantity : str
    method : str
        "whole", or the samples that were compared: "3 directions".
    error, tolerance : float
        The difference of hesskern and autograd, and the largest difference of two right answers by rounding.
    third : str
        The third witness: "differences", "exact", or empty if there was none.
    third_error, third_tolerance : float
        hesskern against the third witness.
    witnesses, witnesses_tolerance : float
        autograd against the third witness.
    verdict, note : str
    """

    problem: str
    backend: str
    group: str
    quantity: str
    method: str = "whole"
    error: float = math.nan
    tolerance: float = math.nan
    third: str = ""
    third_error: float = math.nan
    third_tolerance: float = math.nan
    witnesses: float = math.nan
    witnesses_tolerance: float = math.nan
    verdict: str = AGREES
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether this row is not a failure; undecided, overflowed and absent rows are not failures."""
        return self.verdict not in _FAILURES

    @property
    def compared(self) -> bool:
        """Whether two numbers were compared."""
        return not math.isnan(self.tolerance)

    @property
    def used(self) -> float:
        """Error over tolerance: above 1 something disagrees."""
        if not self.compared:
            return 0.0
        if math.isnan(self.error):
            return math.inf
        return self.error / self.tolerance if self.tolerance else math.inf * (self.error > 0)


def decide(
    error: float,
    tolerance: float,
    third: tuple[float, float] | None = None,
    witnesses: tuple[float, float] | None = None,
) -> str:
    """Return the verdict on three witnesses' differences, each with its tolerance; NaN is a difference.

    Examples
    --------
    >>> decide(1e-15, 1e-13)
    'agrees'
    >>> decide(1e-3, 1e-13, third=(1e-3, 1e-13), witnesses=(1e-16, 1e-13))
    'HESSKERN IS WRONG'
    >>> decide(1e-3, 1e-13, third=(1e-16, 1e-13), witnesses=(1e-3, 1e-13))
    'AUTOGRAD IS WRONG'
    """

    def near(pair: tuple[float, float] | None) -> bool:
        return pair is not None and pair[0] <= pair[1]

    def decisive(pair: tuple[float, float] | None) -> bool:
        return pair is not None and pair[1] < USELESS

    autograd_pair = error, tolerance
    if not decisive(third):  # the third witness's rounding decides nothing either
        third = None
    if not decisive(autograd_pair):  # autograd's own rounding decides nothing here
        return (AGREES if near(third) else HESSKERN_WRONG) if decisive(third) else UNDECIDED
    if near(autograd_pair):
        return AGREES if third is None or near(third) else THIRD_DIFFERS
    if third is None or near(third) == near(witnesses):
        return DIFFERS
    return AUTOGRAD_WRONG if near(third) else HESSKERN_WRONG


class ValidationReport:
    """Result of `hesskern.validate`; ``print(report)`` shows it.

    Attributes
    ----------
    rows : tuple of Row
        One for each quantity, backend and problem.
    problems : dict
        The shape of each problem in words, by its name.
    torch : str
        Version of PyTorch.
    seconds : float
    interrupted : bool
        Whether Ctrl-C ended it; `rows` then holds the checks made so far.

    Examples
    --------
    >>> import hesskern as hk
    >>> case = hk.datasets.two_layer_case()
    >>> report = hk.validate(case.network, hk.SquaredLoss(case.X, case.Y))  # doctest: +SKIP
    >>> report.ok  # doctest: +SKIP
    True
    """

    def __init__(
        self,
        rows: Sequence[Row],
        problems: dict[str, str],
        *,
        version: str,
        torch: str,
        seconds: float,
        interrupted: bool,
    ) -> None:
        self.rows, self.problems, self.torch = tuple(rows), dict(problems), torch
        self.seconds, self.interrupted, self._version = seconds, interrupted, version

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows that disagree."""
        return tuple(row for row in self.rows if not row.ok)

    @property
    def ok(self) -> bool:
        """Whether everything was checked and nothing disagrees."""
        return not self.interrupted and not self.failures and any(row.compared for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain dicts, lists and numbers; None where a number is infinite or NaN."""
        rows = []
        for row in self.rows:
            plain = {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in asdict(row).items()
            }
            rows.append(plain | {"ok": row.ok})
        return {
            "ok": self.ok,
            "interrupted": self.interrupted,
            "hesskern": self._version,
            "torch": self.torch,
            "seconds": self.seconds,
            "problems": self.problems,
            "rows": rows,
        }

    def __str__(self) -> str:
        return self.text()

    def text(self, *, every: bool | None = None) -> str:
        """Return the report as a table, ASCII only.

        Parameters
        ----------
        every : bool, optional
            True: one line for each quantity of each problem. False: one line for each kind of quantity, its worst row.
            Default: True for one problem, False for several. Failures are always listed row by row.
        """
        one_by_one = len(self.problems) < 2 if every is None else every
        return "\n".join(_text(self, self._version, every=one_by_one))

    def __repr__(self) -> str:
        bad = len(self.failures)
        state = "interrupted, " if self.interrupted else ""
        return f"<ValidationReport: {state}{len(self.rows)} rows, {bad} {'disagrees' if bad == 1 else 'disagree'}>"


# The table ------------------------------------------------------------------------------------------------------------


def _text(report: ValidationReport, version: str, *, every: bool) -> Iterator[str]:
    backends = list(dict.fromkeys(row.backend for row in report.rows if row.verdict != ABSENT))
    yield f"hesskern {version} ({', '.join(backends)}) against autograd of PyTorch {report.torch} in float64"
    for row in report.rows:
        if row.verdict == ABSENT:
            yield f"The backend {row.backend} is absent: {row.note}"
    yield "Errors are relative to the norm of each quantity; tolerance: what rounding allows; third: how far"
    yield "autograd is from the third witness."
    shown = [row for row in report.rows if row.verdict != ABSENT]
    if every:
        for problem, description in report.problems.items():
            rows_of_problem = [row for row in shown if row.problem == problem]
            if rows_of_problem:
                yield from ("", f"{problem}: {description}" if problem else description)
                yield from _table(_by_quantity(rows_of_problem), backends)
    elif shown:
        yield "Each line shows one row, the nearest to its tolerance; the number of rows is in brackets."
        yield ""
        for problem, description in report.problems.items():
            yield f"{problem}: {description}"
        yield ""
        yield from _table(_by_group(shown), backends)
    yield ""
    for note in dict.fromkeys(row.note for row in shown if row.verdict == OVERFLOWED):
        yield f"{note[:1].upper()}{note[1:]}"
    for row in report.failures:
        yield from _failure(row)
    yield _verdict(report)


def _by_quantity(rows: Sequence[Row]) -> dict[str, list[Row]]:
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        name = row.quantity if row.method == "whole" else f"{row.quantity} ({row.method})"
        by_name.setdefault(name, []).append(row)
    return by_name


def _by_group(rows: Sequence[Row]) -> dict[str, list[Row]]:
    by_group: dict[str, list[Row]] = {}
    for row in rows:
        by_group.setdefault(row.group, []).append(row)
    return {f"{group} ({len(own)})": own for group, own in by_group.items()}


def _table(lines: dict[str, list[Row]], backends: Sequence[str]) -> Iterator[str]:
    width = max(len(name) for name in lines)
    columns = "".join(f"{name:>9}" for name in backends)
    several = len({row.problem for rows in lines.values() for row in rows}) > 1
    yield f"  {'':<{width}}{columns}{'tolerance':>11}{'third':>9}  verdict"
    for name, rows in lines.items():
        worst = max(rows, key=lambda row: (not row.ok, row.used))
        worst_by_backend = {
            row.backend: row for row in rows if (row.problem, row.quantity) == (worst.problem, worst.quantity)
        }
        errors = ""
        for backend in backends:
            shown = backend in worst_by_backend and worst_by_backend[backend].compared
            errors += f"{_number(worst_by_backend[backend].error) if shown else '-':>9}"
        tolerance = _number(worst.tolerance) if worst.compared else "-"
        third = (
            "-" if math.isnan(worst.witnesses) and math.isnan(worst.witnesses_tolerance) else _number(worst.witnesses)
        )
        verdict = _verdicts(rows) + (f" (shown: {worst.problem})" if several else "")
        yield f"  {name:<{width}}{errors}{tolerance:>11}{third:>9}  {verdict}"


def _verdicts(rows: Sequence[Row]) -> str:
    counts: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: (row.ok, row.verdict == AGREES)):
        counts[row.verdict] = counts.get(row.verdict, 0) + 1
    if len(counts) > 1:
        return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    alike = len({(row.problem, row.quantity) for row in rows}) == 1
    notes = {row.note for row in rows if row.note and row.ok and alike and row.verdict != OVERFLOWED}
    return "; ".join([*counts, *sorted(notes)[:1]])


def _failure(row: Row) -> Iterator[str]:
    where = f"{row.problem}, " if row.problem else ""
    yield f"{row.verdict}: {row.quantity} ({where}backend {row.backend}, {row.method})"
    if row.compared:
        yield f"  hesskern and autograd differ by {_number(row.error)}; rounding allows {_number(row.tolerance)}."
    if row.third:
        for who, error, allowed in (
            ("hesskern", row.third_error, row.third_tolerance),
            ("autograd", row.witnesses, row.witnesses_tolerance),
        ):
            yield f"  {who} and {row.third} differ by {_number(error)}; rounding allows {_number(allowed)}."
    if row.note:
        yield f"  {row.note}"


def _verdict(report: ValidationReport) -> str:
    compared = sum(row.compared for row in report.rows)
    undecided = sum(row.verdict == UNDECIDED for row in report.rows)
    unchecked = sum(row.verdict == UNCHECKED for row in report.rows)
    overflowed = sum(row.verdict == OVERFLOWED for row in report.rows)
    counts = (undecided, UNDECIDED), (unchecked, UNCHECKED), (overflowed, OVERFLOWED)
    exceptions = "".join(f", {count} {word}" for count, word in counts if count)
    said = f"{compared} comparisons in {report.seconds:.1f} s{exceptions}"
    if report.interrupted:
        return f"Interrupted: {said}; {len(report.failures)} disagree so far."
    if report.failures:
        return f"Verdict: {len(report.failures)} of {said}, DISAGREE."
    subject = "everything that did not overflow" if overflowed else "everything"
    return f"Verdict: {subject} agrees ({said})." if compared else "Verdict: nothing was compared."


def _number(value: float) -> str:
    return "nan" if math.isnan(value) else "0" if value == 0 else f"{value:.1e}"
