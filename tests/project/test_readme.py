"""The README: its example prints what it says, its links lead somewhere, its demo output is that of the demo."""

import re
import subprocess
import sys

import pytest
from checkout import ROOT

from hesskern.demo.results import AGREE

README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def blocks(language):
    """Fenced blocks of the README in this language."""
    fences = README.split("```")[1::2]
    return [text.partition("\n")[2] for text in fences if text.partition("\n")[0] == language]


def test_the_example_prints_what_the_readme_says(tmp_path):
    script = tmp_path / "example.py"
    script.write_text(blocks("python")[0], encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = next(block for block in blocks("") if block.startswith("Run("))
    assert NUMBER.sub("#", done.stdout) == NUMBER.sub("#", said)
    for ours, theirs in zip(NUMBER.findall(done.stdout), NUMBER.findall(said), strict=True):
        # Uncertainties and last losses depend on rounding, so on the processor; the rest to its printed digits.
        assert float(ours) == pytest.approx(float(theirs), rel=0.5 if abs(float(theirs)) < 1e-8 else AGREE)


@pytest.mark.long
def test_the_other_examples_run_after_the_first(tmp_path):
    script = tmp_path / "examples.py"
    script.write_text("\n".join(blocks("python")) + 'print(run, runs.history["sharpness"].shape)', encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("Run(max_steps after 20000 steps")
    assert done.stdout.endswith("(64, 500)\n")


def test_local_links_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "bench" / "README.md"]
    expected = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "versioning.md", "half-sum.md"}
    assert expected <= {page.name for page in pages}
    for page in pages:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_demo_output_is_the_one_beside_the_picture():
    shown = (ROOT / "docs" / "pictures" / "demo.txt").read_text(encoding="utf-8")
    assert shown in blocks("")


def test_what_explain_says_of_the_case(tmp_path):
    script = tmp_path / "explain.py"
    script.write_text(next(block for block in blocks("python") if "hk.explain" in block), encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = next(block for block in blocks("") if block.startswith("Explained"))
    assert NUMBER.sub("#", done.stdout) == NUMBER.sub("#", said)
    for ours, theirs in zip(NUMBER.findall(done.stdout), NUMBER.findall(said), strict=True):
        # What is left after the findings is rounding, another on each processor; errors have two digits.
        assert float(ours) == pytest.approx(float(theirs), rel=0.05, abs=1e-12)
