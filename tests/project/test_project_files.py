"""Files about the project: they parse, and what they say of the package is so."""

import re
import tomllib

import pytest
from checkout import ROOT
from looped import each

from hesskern.cli import common
from hesskern.network import network_file
from hesskern.training import checkpoint

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEMPLATES = ROOT / ".github" / "ISSUE_TEMPLATE"
FORMS = sorted(path for path in TEMPLATES.glob("*.yml") if path.name != "config.yml")
YAML = [ROOT / "CITATION.cff", ROOT / ".pre-commit-config.yaml", *sorted((ROOT / ".github").rglob("*.yml"))]

HIDDEN = {".venv", ".git", "build", "dist"}


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@each("path", YAML)
def test_yaml_parses(path):
    yaml = pytest.importorskip("yaml")
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


@each("path", YAML)
def test_yaml_is_indented_by_blanks_in_pairs(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        assert "\t" not in line
        assert (len(line) - len(line.lstrip(" "))) % 2 == 0, line
        assert line == line.rstrip()


@each("path", FORMS)
def test_issue_forms_have_what_github_asks_for(path):
    text = path.read_text(encoding="utf-8")
    for key in ("name", "description", "body"):
        assert re.search(rf"^{key}:", text, flags=re.MULTILINE), key
    types = re.findall(r"^  - type: (.*)$", text, flags=re.MULTILINE)
    assert set(types) <= {"markdown", "textarea", "input", "dropdown", "checkboxes"}
    ids = re.findall(r"^    id: (.*)$", text, flags=re.MULTILINE)
    assert len(set(ids)) == len(ids) == len(types) - types.count("markdown")
    assert text.count("      label: ") == len(ids)


def test_there_is_a_form_for_each_kind_of_issue():
    assert {path.stem for path in FORMS} == {"wrong-number", "bug", "feature"}


def test_the_citation_is_of_this_version():
    citation = dict(re.findall(r"^([\w-]+): *(.*)$", read("CITATION.cff"), flags=re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"].strip('"') == PROJECT["urls"]["Homepage"]
    authors = [author["name"] for author in PROJECT["authors"]]
    assert re.findall(r'^  - name: "(.*)"$', read("CITATION.cff"), flags=re.MULTILINE) == authors


def test_the_changelog_has_this_version():
    text = read("CHANGELOG.md")
    versions = re.findall(r"^## \[(.*?)\]( - \d{4}-\d\d-\d\d)?$", text, flags=re.MULTILINE)
    assert versions[0] == ("Unreleased", "")
    assert PROJECT["version"] in [version for version, date in versions if date]
    for version, _ in versions:
        assert re.search(rf"^\[{re.escape(version)}\]: https://", text, flags=re.MULTILINE), version


def test_formats_of_files_are_those_of_the_policy():
    text = read("docs/versioning.md")
    written = {network_file.FORMAT, checkpoint._FORMAT}
    assert set(re.findall(r"`(hesskern (?:network|training checkpoint) \d+)`", text)) == written


def test_exit_codes_are_those_of_the_policy():
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", read("docs/versioning.md"), flags=re.MULTILINE)}
    explain_only = {3}
    shared = {common.DONE, common.NOT_WELL, common.REFUSED, common.INTERRUPTED, common.UNREAD}
    assert codes == shared | explain_only


def test_environment_variables_are_those_of_the_policy():
    sources = [*(ROOT / "hesskern").rglob("*.py"), *(ROOT / "csrc").rglob("*.cpp")]
    looked_up = re.compile(r"""(?:environ(?:\.get\(|\[)|getenv\()"(\w+)""")
    used = {name for path in sources for name in looked_up.findall(path.read_text(encoding="utf-8"))}
    named = set(re.findall(r"`([A-Z]\w*_[A-Z_]+)`", read("docs/versioning.md")))
    assert used <= named
    assert {name for name in named if name.startswith("HESSKERN_")} <= used


def test_every_package_has_a_line_in_the_table():
    packages = {path.parent.name for path in (ROOT / "hesskern").glob("*/__init__.py")}
    rows = re.findall(r"^\| `hesskern/(\w+)` \|", read("docs/development.md"), flags=re.MULTILINE)
    assert sorted(rows) == sorted(packages)


def test_files_that_pages_name_exist():
    files = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.*")
        if not HIDDEN & set(path.relative_to(ROOT).parts)
    }
    unknown = []
    for page in [ROOT / "CONTRIBUTING.md", ROOT / "bench" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for name in re.findall(r"`([\w/.-]+\.(?:py|hpp|cpp|cuh|toml))`", page.read_text(encoding="utf-8")):
            if not any(file == name or file.endswith(f"/{name}") for file in files):
                unknown.append(f"{page.relative_to(ROOT)}: {name}")
    assert unknown == []


def test_every_decision_has_its_four_parts():
    folder = ROOT / "docs" / "decisions"
    pages = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    assert len(pages) >= 5
    for path in pages:
        headings = re.findall(r"^## (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "What would change our mind"], path.name
        for index in ("docs/decisions/README.md", "docs/development.md"):
            assert path.name in read(index), f"{index} does not link to {path.name}"
