"""`validate`: every check for every backend and problem, with a progress bar; Ctrl-C keeps the rows so far."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from hesskern import backends
from hesskern._base import checks
from hesskern._base.interrupt import Interruption
from hesskern._base.progress import progress_bar
from hesskern._core import version
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.validation import catalogue
from hesskern.validation.autograd import torch
from hesskern.validation.case import ValidationCase
from hesskern.validation.checks import checks_of
from hesskern.validation.comparison import row_of
from hesskern.validation.evidence import Evidence, Subject
from hesskern.validation.report import ABSENT, Row, ValidationReport


def validate(
    net: LinearNetwork | None = None,
    loss: SquaredLoss | None = None,
    *,
    backends: Sequence[str] | None = None,
    problems: Sequence[str] | None = None,
    directions: int = 3,
    dense_size: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> ValidationReport:
    r"""Compare everything that hesskern computes with PyTorch's autograd in float64, and with a third witness.

    Parameters
    ----------
    net : LinearNetwork, optional
        Default: a built-in set of networks, which includes `hesskern.datasets.two_layer_case`.
    loss : SquaredLoss, optional
        The loss of `net`. All quantities are compared for its kind; only loss, gradient and products for the other
        kinds.
    backends : sequence of str, optional
        Default: all backends; a backend without its package is reported as absent.
    problems : sequence of str, optional
        Names of built-in networks, if only some of them are to be validated.
    directions : int, >= 1
        Random vectors for each matrix that is too large to form.
    dense_size : int, >= 1
        Largest number of parameters for which whole matrices are compared, 8·P² bytes each. Above, and if autograd
        would take more than seconds, products with random vectors are compared instead, and `Row.method` says so.
    seed : int, >= 0
        Seed of the random vectors.
    progress : bool
        Show a progress bar (needs tqdm).

    Returns
    -------
    ValidationReport
        ``report.ok``, ``report.rows``, ``print(report)``, ``report.as_dict()``. Ctrl-C does not raise: the report then
        holds the checks made so far, and ``report.interrupted`` is True.

    Raises
    ------
    ImportError
        If PyTorch, the package of a backend in `backends`, or the package for `progress` is not installed.
    TypeError, ValueError
        If an argument is wrong.

    Notes
    -----
    The third witness computes exact differences of the definition of the loss, in extended precision if the processor
    has it; for condition numbers of small blocks it uses exact arithmetic. If hesskern and autograd disagree, the row
    says which of them the third witness contradicts. Tolerances are bounds on rounding, from the sizes and norms of the
    problem. A float32 network is compared with the same numbers in float64, within the rounding of float32.

    Autograd takes O(P) backward passes for each dense matrix, O(1) for each random vector.

    Examples
    --------
    >>> import hesskern as hk
    >>> report = hk.validate(problems=["two layers"], backends=["cpp"])  # doctest: +SKIP
    >>> report.ok  # doctest: +SKIP
    True
    """
    chosen = _problems(net, loss, problems)
    directions = checks.integer(directions, "directions", 1)
    dense_size = checks.integer(dense_size, "dense_size", 1)
    seed = checks.seed(seed)
    checks.boolean(progress, "progress")
    present, rows = _backends(backends)
    version_of_torch = str(torch().__version__)
    began = time.perf_counter()
    plan = _Plan(chosen, present, lambda problem: Evidence(problem, directions, dense_size, seed))
    interrupted = plan.run(rows, progress=progress)
    return ValidationReport(
        rows,
        {problem.name: str(problem) for problem in chosen},
        version=version,
        torch=version_of_torch,
        seconds=time.perf_counter() - began,
        interrupted=interrupted,
    )


class _Plan:
    """All problems with all backends, one check at a time."""

    def __init__(self, problems: Sequence[ValidationCase], backends: Sequence[str], weigh: Any) -> None:
        self._problems, self._backends, self._weigh = problems, backends, weigh

    def _rows(self, interruption: Interruption) -> Iterator[tuple[int, Row]]:
        """Yield each row with the number of rows of its problem."""
        for problem in self._problems:
            evidence = self._weigh(problem)
            comparisons = checks_of(evidence)
            for backend in self._backends:
                subject = Subject(problem, backend)
                for check in comparisons:
                    if interruption.requested:
                        return
                    yield len(comparisons) * len(self._backends), row_of(problem.name, check, subject, evidence)

    def run(self, rows: list[Row], *, progress: bool) -> bool:
        """Append the rows; return whether Ctrl-C ended it."""
        bar = progress_bar(len(self._problems)) if progress else None
        with Interruption() as interruption:
            try:
                for of, row in self._rows(interruption):
                    rows.append(row)
                    if bar is not None:
                        bar.update(min(1 / of, len(self._problems) - bar.n))  # a sum of fractions is not exact
            except KeyboardInterrupt:  # of a handler that is the user's own
                if interruption.forced:
                    raise
                return True
            finally:
                if bar is not None:
                    bar.close()
            return interruption.requested


def _problems(net: object, loss: object, names: Sequence[str] | None) -> list[ValidationCase]:
    if net is None and loss is None:
        available = catalogue.names()
        if names is None:
            return [catalogue.problem(name) for name in available]
        if isinstance(names, str | bytes) or not isinstance(names, Sequence) or len(names) == 0 or None in names:
            raise TypeError(
                f"problems is {checks.shown(names)}; expected a list of names: {', '.join(map(repr, available))}."
            )
        return [catalogue.problem(checks.one_of(name, "problems", available)) for name in names]
    if names is not None:
        raise ValueError("problems names built-in networks; expected it without net and loss.")
    if not isinstance(net, LinearNetwork):
        raise TypeError(f"net is a {type(net).__name__}; expected a hesskern.LinearNetwork.")
    if type(loss) is not SquaredLoss:  # a derived class may change what is squared
        raise TypeError(f"loss is a {type(loss).__name__}; expected a hesskern.SquaredLoss.")
    loss.check_network(net, on_cpu="validate")
    return [ValidationCase("", net, loss)]


def _backends(names: Sequence[str] | None) -> tuple[list[str], list[Row]]:
    """Return the backends that load, and a row for each other one; an error if it was requested by name."""
    if names is not None:
        if isinstance(names, str | bytes) or not isinstance(names, Sequence) or len(names) == 0 or None in names:
            raise TypeError(
                f"backends is {checks.shown(names)}; expected a list of names: "
                f"{', '.join(map(repr, backends.host_names()))}."
            )
        for name in names:
            backends.get(name)
        return list(dict.fromkeys(names)), []
    present, absent = [], []
    for name in backends.host_names():
        try:
            backends.get(name)
        except (ImportError, OSError, RuntimeError) as error:  # not installed; no driver; no device
            absent.append(Row("", name, "backend", name, verdict=ABSENT, note=" ".join(str(error).split())))
        else:
            present.append(name)
    return present, absent
