"""What was installed: files, metadata, and an extension that names nothing of the machine that built it."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT
from packaging.requirements import Requirement

import hesskern as hk
from hesskern import _core

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def distribution():
    try:
        return metadata.distribution("hesskern")
    except metadata.PackageNotFoundError:
        pytest.skip("hesskern is imported from its source, not installed")


@pytest.fixture(scope="module")
def files(distribution):
    return {str(path) for path in distribution.files if path.suffix != ".pyc"}


def test_the_installed_package_is_the_one_under_test(distribution):
    assert Path(hk.__file__).samefile(distribution.locate_file("hesskern/__init__.py"))
    assert Path(_core.__file__).parent.samefile(Path(hk.__file__).parent)


def test_one_extension_is_shipped(files):
    assert len([name for name in files if re.fullmatch(r"hesskern/_core\.[\w.-]+\.so", name)]) == 1


def test_every_file_of_the_package_is_shipped(files):
    suffixes = {".py", ".pyi", ".npz", ".typed"}
    source = [path for path in (ROOT / "hesskern").rglob("*") if path.suffix in suffixes or path.name == "py.typed"]
    wanted = {str(path.relative_to(ROOT)) for path in source}
    wanted |= {f"hesskern/backends/cuda/{path.name}" for path in (ROOT / "csrc" / "cuda").iterdir()}
    assert {"hesskern/py.typed", "hesskern/_core.pyi", "hesskern/data/two_layer_case.npz"} <= wanted
    assert wanted <= files


def test_nothing_else_is_shipped(files):
    package = re.compile(r"hesskern/([\w/]+\.pyi?|backends/cuda/\w+\.cuh|data/\w+\.npz|py\.typed|_core\.[\w.-]+\.so)")
    beside = re.compile(r"hesskern-[\d.]+\.dist-info/.*|(\.\./)*bin/hesskern")
    assert [name for name in files if not package.fullmatch(name) and not beside.fullmatch(name)] == []


def test_extension_names_no_path_of_the_machine_that_built_it():
    extension = Path(_core.__file__).read_bytes()
    if b"__asan_init" in extension:
        pytest.skip("a sanitized build carries debug information")
    found = re.findall(rb"/(?:home|root|tmp|work|Users|private|project|opt)/[\w./+-]+", extension)
    assert found == []


def test_versions_are_equal(distribution):
    assert hk.__version__ == _core.version == distribution.version == PROJECT["project"]["version"]


def test_metadata(distribution):
    about = distribution.metadata
    assert about["Requires-Python"] == ">=3.11"
    assert about["License-Expression"] == "MIT"
    assert about["Description-Content-Type"] == "text/markdown"
    assert set(about.get_all("Provides-Extra")) == set(PROJECT["project"]["optional-dependencies"])


def test_only_the_documented_dependencies_are_required(distribution):
    requirements = map(Requirement, distribution.requires)
    required = {item.name for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})}
    assert required == {"numpy", "scipy", "psutil", "threadpoolctl"}


def test_command_is_installed(distribution):
    (script,) = [entry for entry in distribution.entry_points if entry.group == "console_scripts"]
    assert script.name == "hesskern"
    assert callable(script.load())


def test_data_are_read_from_the_package():
    case = hk.datasets.two_layer_case()
    assert case.network.widths == (5, 100, 5)
    assert np.isfinite(case.X).all()


def pins():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_constraints_are_names_and_versions_only():
    assert [line for line in pins() if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9.]+(post\d+|rc\d+)?", line)] == []


def test_constraints_fit_what_the_package_asks_for():
    pinned = {re.sub(r"[._-]+", "-", name).lower(): version for name, version in (pin.split("==") for pin in pins())}
    assert pinned["torch"] == "2.13.0"
    asked = PROJECT["build-system"]["requires"] + PROJECT["project"]["dependencies"]
    extras = PROJECT["project"]["optional-dependencies"]
    asked += [line for name, extra in extras.items() if name != "peers" for line in extra]  # see tools/lock.py
    for item in map(Requirement, asked):
        assert item.specifier.contains(pinned[re.sub(r"[._-]+", "-", item.name).lower()]), item
