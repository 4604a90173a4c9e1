"""The README: short, its example prints what it says, and the links of all pages lead somewhere."""

import re

import pytest
from checkout import ROOT
from fenced import blocks, check_printed, examples, printed_by, text_of

from hesskern.demo.results import AGREE

README = text_of("README.md")
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "bench" / "README.md")
    if path.exists()
)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def test_ten_lines_are_ten():
    (script,) = [text for language, text in blocks("README.md") if language == "python"]
    assert len([line for line in script.splitlines() if line]) == 10


def test_the_example_prints_what_the_readme_says():
    ((script, said),) = examples("README.md")
    # Uncertainties and last losses depend on rounding, so on the processor; the rest to its printed digits.
    check_printed(printed_by(script, {}), said, AGREE, small=1e-6)


def test_ten_numbers_are_ten():
    table = README.split("<!-- bench headlines")[1].split("<!-- end -->")[0]
    assert len([line for line in table.splitlines() if line.startswith("| ")]) == 1 + 10


def anchors(page):
    """Fragments that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_local_links_lead_somewhere(page):
    for target, fragment in LINK.findall(text_of(page)):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page} links to {target}"
        if fragment:
            name = path.resolve().relative_to(ROOT).as_posix()
            assert fragment in anchors(name), f"{page} links to {target}#{fragment}"


def test_every_page_is_linked_from_the_readme():
    linked = {target for target, _ in LINK.findall(README)}
    decisions = {page for page in PAGES if page.startswith("docs/decisions/")}  # linked from docs/development.md
    assert linked >= {page for page in PAGES if page != "README.md"} - decisions
