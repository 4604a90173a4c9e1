"""docs/validate.md: the rows that it shows are those of `validate`, with these tolerances and verdicts."""

import functools
import re

import numpy as np
import pytest
from fenced import NUMBER, blocks, printed_by

import hesskern as hk
from hesskern.backends import numpy_backend

pytest.importorskip("torch")

BLOCKS = blocks("docs/validate.md")
ROW = re.compile(r"^  (\S.*?) {2,}(\S.*?) {2,}(agrees.*)$", re.MULTILINE)
HOW = re.compile(r" \((?:\d+ (?:directions?|entries|steps?)|Lanczos)\)$")


def starting(beginning):
    """Blocks of output that begin so."""
    return [text for language, text in BLOCKS if language == "" and text.startswith(beginning)]


def check_rows(text, report, backends):
    """Compare the tolerances, which have two digits, and the verdicts; errors are rounding."""
    rows = [(what, numbers.split(), verdict) for what, numbers, verdict in ROW.findall(text)]
    assert len(rows) >= 3
    known = {row.quantity: row for row in report.rows}
    for what, numbers, verdict in rows:
        row = known[HOW.sub("", what)]
        assert len(numbers) == backends + 2  # an error for each, the tolerance, the third witness
        assert float(numbers[backends]) == pytest.approx(row.tolerance, rel=0.06)
        assert row.verdict == verdict == "agrees"
        assert all(float(number) <= row.tolerance for number in numbers[:backends])


def test_the_example(monkeypatch):
    monkeypatch.setattr(hk, "validate", functools.partial(hk.validate, backends=["cpp", "numpy"]))
    names = {}
    printed = printed_by(BLOCKS[0][1], names)
    text = starting("hesskern 0.1.0")[0]
    check_rows(text, names["report"], 2)
    lines = [" ".join(line.split()[:2]) for line in text.splitlines()[3:] if line.strip() != "..."]
    there = iter(" ".join(line.split()[:2]) for line in printed.splitlines())
    assert all(line in there for line in lines), "a line of the page is not printed, or not in this order"
    count = re.compile(r"Verdict: everything agrees \(\d+ comparisons")
    assert count.findall(printed) == count.findall(text)


@pytest.mark.long
def test_rows_of_the_case():
    (text,) = [text for text in starting("      ") if "numba" in text]
    check_rows(text, hk.validate(problems=["the case"], backends=["cpp"]), 3)


def test_a_wrong_sign_is_reported_as_shown(monkeypatch):
    assemble = numpy_backend.ReferenceBackend.assemble

    def wrong(self, rows, columns, blocks, out):
        turned = [block if block.W is None else block._replace(W=-block.W) for block in blocks]
        assemble(self, rows, columns, turned, out)

    monkeypatch.setattr(numpy_backend.ReferenceBackend, "assemble", wrong)
    rng = np.random.default_rng(0)
    loss = hk.SquaredLoss(rng.standard_normal((7, 3)), rng.standard_normal((7, 2)))
    printed = str(hk.validate(hk.LinearNetwork.random([3, 5, 2], seed=0), loss, backends=["numpy"]))
    (text,) = starting("HESSKERN IS WRONG")
    lines = printed[printed.index(text.splitlines()[0]) :].splitlines(keepends=True)
    # Another network than that of the page: the same sentences with other numbers.
    assert NUMBER.sub("#", "".join(lines[:5])) == NUMBER.sub("#", text)
    assert "30 of 150 entries" in lines[4] and "30 of 150 entries" in text


@pytest.mark.long
def test_the_built_in_set():
    (text,) = [text for text in starting("hesskern 0.1.0") if "Each line shows one row" in text]
    printed = str(hk.validate(backends=["cpp", "numpy"]))
    networks = re.compile(r"^\w.*, N = \d+, .*$", re.MULTILINE)
    assert networks.findall(printed) == networks.findall(text)
    rows = re.compile(r"^  \S.*? \(\d+\) ", re.MULTILINE)
    assert rows.findall(printed) == rows.findall(text)
    count = re.compile(r"Verdict: everything agrees \((\d+) comparisons in \S+ s, (\d+) undecided\)")
    assert count.findall(printed) == count.findall(text) != []
