"""docs/migration.md: its example runs and prints what it says, and its numbers are those of the committed run."""

from __future__ import annotations

import pytest
from checkout import ROOT

PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
RUN = ROOT / "bench" / "results" / "amd-epyc-2c-avx512" / "sixth-migration.md"
BLOCKS = [text.partition("\n")[2] for text in PAGE.split("```")[1::2]]


def test_the_example_prints_what_the_page_says(capsys):
    pytest.importorskip("torch")
    exec(compile(BLOCKS[0], "docs/migration.md", "exec"), {})
    assert capsys.readouterr().out == BLOCKS[1]


@pytest.mark.skipif(not RUN.exists(), reason="a source distribution has no results")
def test_the_numbers_are_those_of_the_run():
    lines = RUN.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| N = ")]
    assert len(rows) == 16
    for row in rows:
        time, ratio = row[3].partition(" (")[0], row[4].partition(" (")[0]
        assert time in PAGE
        assert not ratio or f"({ratio} x)" in PAGE
