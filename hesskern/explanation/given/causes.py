"""A cause: what can have happened to a Hessian, in words, with the line of code that fixes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """One way to get a matrix other than the Hessian asked for.

    Attributes
    ----------
    key : str
        A name for programs, for instance "X-transposed".
    words : str
        What happened, as the middle of a sentence: "the data are transposed".
    fix : str
        What to write instead, with the user's arrays.
    also : tuple of str
        Other things that give the same matrix, in words.
    cost : int
        How unlikely it is; explanations of the least total cost are reported.
    """

    key: str
    words: str
    fix: str
    also: tuple[str, ...] = ()
    cost: int = 1


def total(causes: tuple[Cause, ...]) -> int:
    """Return the total cost of several causes."""
    return sum(cause.cost for cause in causes)


def listed(words: list[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def keys(causes: Sequence[Cause]) -> tuple[str, ...]:
    """Return the names of causes."""
    return tuple(cause.key for cause in causes)


def sentence(causes: Sequence[Cause]) -> str:
    """Return several causes in words."""
    return "; ".join(cause.words for cause in causes)
