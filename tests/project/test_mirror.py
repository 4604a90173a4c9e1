"""The tests mirror the modules: what fails in tests/<package>/test_<module>*.py is wrong in that module."""

from __future__ import annotations

import ast

from checkout import ROOT

PACKAGE, TESTS = ROOT / "hesskern", ROOT / "tests"
#: Folders that mirror no package: suites across packages, those of the checkout, and what tests share.
OTHERS = {"attack", "bench", "helpers", "project", "properties"}


def does_nothing(path):
    """Whether a module only imports, declares types and protocols, or names what others define."""

    def empty(node):
        if isinstance(node, ast.FunctionDef):
            return all(isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) for line in node.body)
        if isinstance(node, ast.ClassDef):
            return all(map(empty, node.body))
        return True

    return all(map(empty, ast.parse(path.read_text(encoding="utf-8")).body))


def to_be_tested():
    """Modules that have something to test."""
    modules = (path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__main__.py")
    return [path for path in modules if not does_nothing(path)]


def subject(path):
    """Folder and name of a module's tests; those of a package's own code are called as the package is."""
    name = path.parent.name if path.name == "__init__.py" else path.stem.strip("_")
    return TESTS / path.parent.relative_to(PACKAGE), name


def belongs(test, name):
    return test.stem == f"test_{name}" or test.stem.startswith(f"test_{name}_")


def test_every_module_has_its_tests():
    missing = []
    for path in to_be_tested():
        folder, name = subject(path)
        if not any(belongs(test, name) for test in folder.glob("test_*.py")):
            missing.append(f"{path.relative_to(ROOT)}: {(folder / f'test_{name}.py').relative_to(ROOT)}")
    assert missing == []


def test_every_test_of_a_package_names_its_module():
    names = {}
    for path in PACKAGE.rglob("*.py"):
        folder, name = subject(path)
        names.setdefault(folder, []).append(name)
    strangers = [
        str(test.relative_to(ROOT))
        for test in sorted(TESTS.rglob("test_*.py"))
        if not OTHERS & set(test.relative_to(TESTS).parts)
        and not any(belongs(test, name) for name in names.get(test.parent, []))
    ]
    assert strangers == []


def test_every_folder_of_tests_is_a_package():
    for folder in sorted({test.parent for test in TESTS.rglob("test_*.py")}):
        place = folder.relative_to(TESTS)
        if not OTHERS & set(place.parts):
            assert (PACKAGE / place / "__init__.py").exists(), folder
