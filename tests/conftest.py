"""Fixtures: every test that asks for `backend` runs over every backend, with the tolerances that backend states."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

# For `import oracle`: importlib mode leaves sys.path alone.
sys.path.insert(0, str(Path(__file__).parent / "helpers"))

import shared_folder
from children import child_environment

import hesskern as hk
from hesskern import backends
from hesskern.backends.protocol import Backend

if importlib.util.find_spec("torch"):
    from device_place import place  # noqa: F401


#: No tests in them, though they are Python: not all of them can be imported without PyTorch.
collect_ignore = ["attack", "helpers"]


def pytest_configure(config: pytest.Config) -> None:
    # A shell may have told its background jobs to ignore Ctrl-C: take Python's own handler.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = shared_folder.begin()
    if folder is not None:
        config.add_cleanup(lambda: shared_folder.end(folder))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `long` what other backends than C++ do of tests that say so, and examples that are compiled."""
    for item in items:
        if item.get_closest_marker("quick_in_cpp"):
            chosen = {each for each in item.callspec.params.values() if isinstance(each, str)}  # type: ignore[attr-defined]
            if chosen & {"numba", "numpy"}:
                item.add_marker(pytest.mark.long)
        elif isinstance(item, pytest.DoctestItem) and "hesskern.numba" in item.name:
            item.add_marker(pytest.mark.long)


@pytest.fixture(params=backends.host_names())
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each backend in turn, chosen for the whole process while the test runs."""
    if request.param == "numba":
        pytest.importorskip("numba")
    with hk.use_backend(request.param):
        yield backends.get(request.param)


@pytest.fixture(params=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> str:
    """Each type of number in turn."""
    return str(request.param)


@pytest.fixture
def close(backend: Backend) -> Callable[..., None]:
    """Compare arrays to the backend's tolerance, relative to the largest entry: sums round relative to their terms."""

    def compare(actual: object, expected: object, dtype: str = "float64", factor: float = 1.0) -> None:
        found, wanted = np.asarray(actual), np.asarray(expected)
        assert found.shape == wanted.shape
        scale = max(1.0, float(np.max(np.abs(wanted), initial=0.0)))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=factor * backend.tolerance[dtype] * scale)

    return compare


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script in a fresh interpreter that sees the same hesskern, with variables set or (None) unset."""

    def run(script: str, *arguments: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
        environment = child_environment(**variables)
        return subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run
