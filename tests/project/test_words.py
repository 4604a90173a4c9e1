"""Plain English: phrases that a reader stumbles over stay out of pages, docstrings and messages."""

import ast
import re

import pytest
from checkout import ROOT
from fenced import text_of

#: Each phrase with what to write instead.
BANNED = {
    "stands": (r"\bstands?\b(?! for\b)", "is, are, is written"),
    "stood": (r"\bstood\b", "was, were"),
    "is none": (r"(?<!there )\b(?:is|are) none\b(?! of\b)", "is not a ..., name what it is"),
    "takes turns": (r"\b(?:take|takes|taking|took) turns\b", "is interleaved with"),
    "wish": (r"\bwish\w*", "asked for, requested, interrupted"),
    "as many": (r"(?<!twice )\bas many\b(?!(?: \w+){0,4} as\b)", "the same number of"),
    "crew": (r"\bcrews?\b", "group"),
    "mend": (r"\bmend(?:s|ed|ing)?\b", "fix"),
    "anew": (r"\banew\b", "again, at each call"),
    "anyway": (r"\banyway\b", "in any case"),
    "one's own": (r"\bone's own\b", "your own, its own"),
    "door": (r"\bdoors?\b", "entry point, access"),
    "of taste": (r"\bof taste\b", "not well determined"),
    "for they": (r"\bfor they\b", "because they"),
    "in the way": (r"\bin the way\b(?! (?:that|of)\b)", "unsupported, the reason for the refusal"),
    "in the place of": (r"\bin the place of\b", "instead of"),
    "whatever": (r"(?i)\bwh(?:at|o|om)ever\b", "for any, every ... that, name the thing"),
    "go on": (r"(?i)\b(?:go|goes|going|went) on\b", "continue"),
    "hence": (r"(?i)\bhence\b", "so, therefore"),
    "weighs": (r"\bweighs?\b", "has the weight, weights"),
    "at hand": (r"\bat hand\b", "this, the current"),
    "without a word": (r"\bwithout a word\b", "silently, without a warning"),
    "what was asked for": (r"\bwhat (?:is|was) asked for\b", "the requested ..."),
    "the other way round": (r"\bthe other way round\b", "in the opposite order, the opposite"),
    "is no checkpoint": (r"\bis no (?:checkpoint|failure|network)\b", "is not a ..."),
    "as it should be": (r"(?i)\bnot as it should be\b", "CHECKS FAILED"),
}

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "bench" / "README.md")
    if path.exists()
)
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("hesskern", "bench", "examples", "tools")
    for path in (ROOT / folder).rglob("*.py")
)
BINDINGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc" / "bindings").glob("*.cpp"))


def banned_in(text):
    """Names of the banned phrases in a text, each with the words around it."""
    flat = " ".join(text.split())
    found = {}
    for name, (pattern, _) in BANNED.items():
        match = re.search(pattern, flat)
        if match:
            found[name] = flat[max(0, match.start() - 40) : match.end() + 40]
    return found


def prose(page):
    """A page without code, tables made from runs, and comments."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!-- bench .*?<!-- end -->", "", text, flags=re.DOTALL)
    return re.sub(r"`[^`]*`", "", text)


def literals(source):
    """Docstrings and string literals of a module."""
    return [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_the_search_finds_what_is_banned():
    code, table = "```\ncrew\n```", "<!-- bench times a/b -->\nmended\n<!-- end -->"
    page = f"Shapes stand in\nconventions, of as many rows as columns.\n{code}\n{table}\n`anew` stands for it."
    assert set(banned_in(prose(page))) == {"stands"}
    docstring, message = '"""It is made anew, where there is none."""', 'f"{crew} are none"'
    source = f"def f():\n    {docstring}\n    crew = 1  # mended\n    return {message}\n"
    assert set(banned_in("\n".join(literals(source)))) == {"anew", "is none"}


@pytest.mark.parametrize("page", PAGES)
def test_pages(page):
    assert banned_in(prose(text_of(page))) == {}


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_and_messages(module):
    assert banned_in("\n".join(literals(text_of(module)))) == {}


@pytest.mark.parametrize("source", BINDINGS)
def test_docstrings_and_messages_of_the_extension(source):
    words = re.findall(r'"((?:[^"\\]|\\.)*)"', text_of(source))
    assert words
    assert banned_in("\n".join(words)) == {}
