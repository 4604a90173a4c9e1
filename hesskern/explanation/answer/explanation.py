"""The answer of `hesskern.explain`."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base.cached import cached_property

Status = Literal["match", "explained", "unexplained", "invalid"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause, with its evidence.

    Attributes
    ----------
    cause : str
        Its name for programs, for instance "X-transposed".
    words, fix : str
        What happened, and the line of code that fixes it, written with the user's arrays.
    also : tuple of str
        What else gives the same matrix.
    before, after : float or None
        Relative error without and with this cause, with all other causes; None if nothing could be compared.
    yours, expected : float or None
        The entry that differs most, in the candidate and in the Hessian.
    """

    cause: str
    words: str
    fix: str
    also: tuple[str, ...] = ()
    before: float | None = None
    after: float | None = None
    yours: float | None = None
    expected: float | None = None


class Alternative(NamedTuple):
    """Other causes, by name and in words, that together give the same matrix or number."""

    causes: tuple[str, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Remainder:
    """The error that remains unexplained, and where it is.

    Attributes
    ----------
    error : float
        Relative, in the Frobenius norm.
    block : (str, str)
        The block with the largest difference, as names of parameters.
    share : float
        Its share of the squared difference.
    rows : tuple of int
        The rows with the largest differences, the largest first.
    entry : (int, int)
        The entry with the largest difference.
    yours, expected : float
        This entry in both matrices.
    """

    error: float
    block: tuple[str, str]
    share: float
    rows: tuple[int, ...]
    entry: tuple[int, int]
    yours: float
    expected: float

    def __str__(self) -> str:
        rows = ", ".join(map(str, self.rows))
        return (
            f"relative difference {self.error:.2g}; {100 * self.share:.0f} % of it (squared) in the block of "
            f"{self.block[0]} and {self.block[1]}; rows with the largest differences: {rows}; entry {self.entry}: "
            f"yours {self.yours:.10g}, expected {self.expected:.10g}"
        )


def itself(value: Any) -> Any:
    """Return the value; unlike a lambda, ``partial(itself, value)`` can be pickled."""
    return value


@dataclass(frozen=True)
class Matrices:
    """The candidate, the Hessian asked for and the model of the candidate; the last two are made on first use."""

    candidate: NDArray[np.float64]
    truth: Callable[[], NDArray[np.float64]] | None
    model: Callable[[], NDArray[np.float64]] | None
    names: tuple[str, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Explanation:
    """Why a matrix, a spectrum or a number is not that of the Hessian; ``print(why)`` says it in words.

    Attributes
    ----------
    status : {"match", "explained", "unexplained", "invalid"}
        Invalid: the candidate cannot be compared, because its size fits no parameters or because it contains NaN.
    verdict : str
        One sentence.
    findings : tuple of Finding
        The causes; they apply together.
    confidence : str
        The evidence for the findings.
    alternatives : tuple of (causes, words)
        Other explanations that give the same matrix or number.
    before, after : float or None
        Relative error of the candidate, and the error that remains after the findings.
    unexplained : Remainder or None
        Where the remaining error is.
    notes : tuple of str
        Other observations.
    """

    status: Status
    verdict: str
    findings: tuple[Finding, ...] = ()
    confidence: str = ""
    alternatives: tuple[Alternative, ...] = ()
    before: float | None = None
    after: float | None = None
    unexplained: Remainder | None = None
    notes: tuple[str, ...] = ()
    matrices: Matrices | None = field(default=None, repr=False, compare=False)
    _corrected: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def corrected(self) -> Any:
        """What the candidate should have been: the Hessian (P, P), its eigenvalues (P,) or the number.

        Computed on first use; None if it is not known.
        """
        return None if self._corrected is None else self._corrected()

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the matrices as plain dicts, lists and numbers."""
        remainder = self.unexplained
        return {
            "status": self.status,
            "verdict": self.verdict,
            "findings": [
                {name: _plain(getattr(finding, name)) for name in Finding.__slots__} for finding in self.findings
            ],
            "confidence": self.confidence,
            "alternatives": [{"causes": list(causes), "words": words} for causes, words in self.alternatives],
            "before": self.before,
            "after": self.after,
            "unexplained": None
            if remainder is None
            else {name: _plain(getattr(remainder, name)) for name in Remainder.__slots__},
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        causes = f" ({', '.join(finding.cause for finding in self.findings)})" if self.findings else ""
        return f"<Explanation: {self.status}{causes}: {self.verdict}>"

    def __str__(self) -> str:
        lines = _wrapped(f"{_HEADINGS[self.status]}: {self.verdict}")
        for finding in self.findings:
            lines += ["", *_wrapped(f"{finding.words[:1].upper()}{finding.words[1:]}.", "  ")]
            lines += _wrapped(f"fix: {finding.fix}", "    ")
            if finding.before is not None and finding.after is not None:
                both = f"relative error without it {finding.before:.2g}, with it {finding.after:.2g}"
                lines.append(
                    f"    {both if finding.after < finding.before else f'relative error {finding.before:.2g}'}"
                )
            if finding.yours is not None and finding.expected is not None:
                lines.append(f"    yours {finding.yours:.10g}, the Hessian's {finding.expected:.10g}")
            for other in finding.also:
                lines += _wrapped(f"the same: {other}", "    ")
        if self.alternatives:
            lines += ["", "Other explanations that give the same result:"]
            for alternative in self.alternatives:
                lines += _wrapped(alternative.words, "  ")
        if self.confidence:
            lines += ["", *_wrapped(f"Confidence: {self.confidence}.")]
        if self.unexplained is not None:
            lines += ["", *_wrapped(f"Remaining: {self.unexplained}.")]
        if self.notes:
            lines.append("")
        for note in self.notes:
            lines += _wrapped(f"Note: {note}.")
        return "\n".join(lines)


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, 116, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


_HEADINGS = {
    "match": "Match",
    "explained": "Explained",
    "unexplained": "Unexplained",
    "invalid": "Cannot be compared",
}
