"""What the tests of the pages share: their fenced blocks, and whether an example prints what its page shows."""

import contextlib
import io
import re

import pytest
from checkout import ROOT

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def text_of(name):
    """A page by its path from the root."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name):
    """Fenced blocks of a page in order, as (language, text)."""
    fences = text_of(name).split("```")[1::2]
    return [(fence.partition("\n")[0], fence.partition("\n")[2]) for fence in fences]


def examples(name):
    """Examples that print something, as (script, what the page says it prints), in order."""
    found = blocks(name)
    pairs = zip(found, found[1:], strict=False)
    return [(script, said) for (language, script), (other, said) in pairs if (language, other) == ("python", "")]


def printed_by(script, names):
    """Run a script with these names, which keep what it defines, and return what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(script, "example", "exec"), names)
    return out.getvalue()


def check_printed(printed, said, rel, small=0.0):
    """Compare text exactly and numbers to a relative error; those below `small` only to a factor of two."""
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", said)
    for ours, shown in zip(NUMBER.findall(printed), NUMBER.findall(said), strict=True):
        assert float(ours) == pytest.approx(float(shown), rel=0.5 if abs(float(shown)) < small else rel, abs=1e-12)
