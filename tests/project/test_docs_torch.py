"""The pages about PyTorch and K-FAC: their examples run and print what they say."""

from __future__ import annotations

import pytest
from checkout import ROOT

pytest.importorskip("torch")

DOCS = ROOT / "docs"
PAGES = ("torch.md", "last_layer.md", "kfac.md")
BLOCKS = {
    page: [text.partition("\n")[2] for text in (DOCS / page).read_text(encoding="utf-8").split("```")[1::2]]
    for page in PAGES
}


@pytest.mark.parametrize(
    ("page", "script"), [(page, text) for page in PAGES for text in BLOCKS[page] if "import" in text]
)
def test_an_example_prints_what_the_page_says(capsys, page, script):
    exec(compile(script, page, "exec"), {})
    assert capsys.readouterr().out in BLOCKS[page]
