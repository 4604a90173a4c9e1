"""docs/torch.md: its examples run and print what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

PAGE = (Path(__file__).parents[1] / "docs" / "torch.md").read_text(encoding="utf-8")
BLOCKS = [text.partition("\n")[2] for text in PAGE.split("```")[1::2]]


@pytest.mark.parametrize("script", [text for text in BLOCKS if "import" in text], ids=["models", "calls"])
def test_an_example_prints_what_the_page_says(capsys, script):
    exec(compile(script, "docs/torch.md", "exec"), {})
    assert capsys.readouterr().out in BLOCKS
