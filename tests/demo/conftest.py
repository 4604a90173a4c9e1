"""One run of the demo for all of its tests."""

import sys

import pytest

from hesskern.demo import case as demo


@pytest.fixture(scope="session")
def bare():
    """One run without PyTorch, whether it is installed or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        return demo.run(repeats=1)
