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
    "as it should be": (r"(?i)\bnot as it should be\b", "CHECKS FAILED"),
}

#: What is still to be fixed outside the pages, by file. An entry that is not needed any more has to go.
REMAINING: dict[str, set[str]] = {
    "hesskern/_base/array_files.py": {"stands"},
    "hesskern/_base/atomic_write.py": {"is none"},
    "hesskern/_base/checks.py": {"mend", "stands"},
    "hesskern/_base/interrupt.py": {"wish"},
    "hesskern/_base/numpy_protocol.py": {"stands"},
    "hesskern/backends/cuda/batched_curvature.py": {"is none"},
    "hesskern/backends/cuda/descents.py": {"stands"},
    "hesskern/backends/numba_backend.py": {"stands"},
    "hesskern/backends/numba_kernels/assembly.py": {"stands"},
    "hesskern/backends/numba_kernels/compile.py": {"anew"},
    "hesskern/backends/numba_kernels/descent.py": {"stands", "takes turns"},
    "hesskern/backends/numba_kernels/layout.py": {"stands"},
    "hesskern/backends/numba_kernels/memory.py": {"stands"},
    "hesskern/backends/numba_kernels/passes.py": {"stands"},
    "hesskern/backends/numba_kernels/products.py": {"stands"},
    "hesskern/backends/numba_kernels/vectors.py": {"stands"},
    "hesskern/backends/numpy_backend.py": {"stands"},
    "hesskern/backends/protocol.py": {"stands"},
    "hesskern/compat/__init__.py": {"stands"},
    "hesskern/compat/live_parameters.py": {"anew", "stands"},
    "hesskern/curvature/rounding.py": {"anyway"},
    "hesskern/demo/case.py": {"mend"},  # a key of `hesskern demo --json`
    "hesskern/explanation/answer.py": {"for they"},
    "hesskern/explanation/candidate.py": {"stands"},
    "hesskern/explanation/candidate_model.py": {"stands"},
    "hesskern/explanation/differences.py": {"stands"},
    "hesskern/explanation/invalid.py": {"stands"},
    "hesskern/explanation/orders.py": {"stands"},
    "hesskern/explanation/step_grid.py": {"as many"},
    "hesskern/linalg/condition.py": {"of taste", "stands"},
    "hesskern/linalg/eigenbasis.py": {"stands"},
    "hesskern/linalg/spectrum.py": {"stands"},
    "hesskern/losses/squared.py": {"door"},
    "hesskern/network/linear_network.py": {"one's own"},
    "hesskern/network/parameters.py": {"stands"},
    "hesskern/numba/_parameters.py": {"stands"},
    "hesskern/torch/function_tracing.py": {"stands", "stood"},
    "hesskern/torch/model_problem.py": {"stands"},
    "hesskern/torch/reparametrised.py": {"as many"},
    "hesskern/torch/vector_slices.py": {"stands"},
    "hesskern/torch_modules/export.py": {"stands"},
    "hesskern/torch_modules/linear_stack.py": {"stands"},
    "hesskern/torch_modules/origin.py": {"anew"},
    "hesskern/torch_modules/tracing.py": {"stands"},
    "hesskern/training/checkpoint.py": {"anew"},
    "hesskern/training/cpu.py": {"crew"},
    "hesskern/training/fit.py": {"stands"},
    "hesskern/training/gpu.py": {"crew"},
    "hesskern/training/loop.py": {"crew", "wish"},
    "hesskern/training/options.py": {"crew"},
    "hesskern/training/reduced_network.py": {"anew", "stands"},
    "hesskern/validation/case.py": {"stands"},
    "hesskern/validation/checks.py": {"stands"},
    "hesskern/validation/comparison.py": {"stands"},
}

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "bench" / "README.md")
    if path.exists()
)
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "hesskern").rglob("*.py"))


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


def test_docstrings_and_messages():
    found = {name: banned_in("\n".join(literals(text_of(name)))) for name in MODULES}
    new = {
        name: {word: around for word, around in words.items() if word not in REMAINING.get(name, ())}
        for name, words in found.items()
    }
    assert {name: words for name, words in new.items() if words} == {}


def test_what_remains_is_needed():
    found = {name: set(banned_in("\n".join(literals(text_of(name))))) for name in MODULES}
    fixed = {name: words - found.get(name, set()) for name, words in REMAINING.items()}
    assert {name: words for name, words in fixed.items() if words} == {}, "fixed: take it off the list"
