"""Many cases of one behaviour in one test: a thousand tests of a millisecond cost more to hand out than to run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest

Test = Callable[..., None]


def each(names: str | tuple[str, ...], cases: Iterable[Any], quick: int | None = None) -> Callable[[Test], Test]:
    """As ``pytest.mark.parametrize``, in a loop; a failure says with which case. Fixtures are made once for all.

    With `quick`, about so many of the cases, spread out, run in `make test`, and the others in `make test-all`.
    """
    several = names if isinstance(names, tuple) else (names,)
    listed = [_values(case, len(several)) for case in cases]
    assert listed, "no cases"
    if quick is not None:
        return _in_two_parts(names, listed if len(several) > 1 else [value for (value,) in listed], quick)

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            ran = 0
            for values in listed:
                given = dict(zip(several, values, strict=True))
                try:
                    test(**fixtures, **given)
                    ran += 1
                except pytest.skip.Exception:
                    continue
                except BaseException as error:
                    error.add_note(f"with {', '.join(f'{name}={value!r}' for name, value in given.items())}")
                    raise
            if not ran:
                pytest.skip("every case was skipped")

        signature = inspect.signature(test)
        left = [parameter for name, parameter in signature.parameters.items() if name not in several]
        assert len(left) == len(signature.parameters) - len(several), f"{test.__name__} does not take {names}"
        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return run

    return decorate


def few_quick(cases: Iterable[Any], kept: int) -> list[Any]:
    """Return cases for ``pytest.mark.parametrize``, spread out, of which about `kept` run in `make test`, and all in
    `make test-all`.
    """
    listed = [case if isinstance(case, type(pytest.param())) else pytest.param(case) for case in cases]
    quick = _spread(len(listed), kept)
    return [
        case if at in quick else pytest.param(*case.values, id=case.id, marks=[*case.marks, pytest.mark.long])
        for at, case in enumerate(listed)
    ]


def _spread(count: int, kept: int) -> set[int]:
    return {round(k * (count - 1) / max(kept - 1, 1)) for k in range(kept)}


def _in_two_parts(names: str | tuple[str, ...], listed: list[Any], quick: int) -> Callable[[Test], Test]:
    """Return what makes two tests of one: the quick cases, and the others, which are marked `long`."""
    kept = _spread(len(listed), quick)
    parts = ([case for at, case in enumerate(listed) if (at in kept) == few] for few in (True, False))
    some, others = parts
    assert others, f"quick={quick} of {len(listed)} cases leaves none"

    def decorate(test: Test) -> Test:
        runs = {"some": each(names, some)(test), "others": each(names, others)(test)}

        @functools.wraps(runs["some"])
        def run(cases: str, **fixtures: Any) -> None:
            runs[cases](**fixtures)

        signature = inspect.signature(runs["some"])
        added = inspect.Parameter("cases", inspect.Parameter.KEYWORD_ONLY)
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*signature.parameters.values(), added]
        )
        marked = pytest.param("others", marks=pytest.mark.long)
        return pytest.mark.parametrize("cases", ["some", marked])(run)

    return decorate


def _values(case: Any, count: int) -> tuple[Any, ...]:
    if isinstance(case, type(pytest.param())):
        return case.values
    return tuple(case) if count > 1 else (case,)
