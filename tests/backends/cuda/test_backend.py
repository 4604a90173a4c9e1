"""The CUDA backend where there is no GPU: what it says, and that nobody loads it unasked."""

from __future__ import annotations

import pytest
from looped import few_quick

import hesskern as hk
from hesskern import backends

torch = pytest.importorskip("torch")

ASKED = """
import sys
{before}
import hesskern as hk
try:
    hk.use_backend("cuda")
except ImportError as error:
    print(error)
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(monkeypatch):
    pytest.importorskip("cuda.core", reason="cuda-core is not installed", exc_type=ImportError)
    with pytest.raises(ImportError, match=r"needs an NVIDIA GPU, and PyTorch .* sees none; .*hesskern\[cuda\]"):
        hk.use_backend("cuda")
    assert backends.resolve() == "cpp"
    monkeypatch.setenv("HESSKERN_BACKEND", "cuda")
    with pytest.raises(ImportError, match="needs an NVIDIA GPU"):
        backends.get()


@pytest.mark.parametrize("missing", few_quick(["torch", "cuda.core"], 1))
def test_without_a_package(python, missing):
    done = python(ASKED.format(before=f"sys.modules[{missing!r}] = None"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "the backend 'cuda' needs PyTorch and cuda-core, which cannot be imported" in done.stdout
    assert 'pip install "hesskern[cuda]"' in done.stdout


def test_the_host_backends_are_those_without_a_device():
    assert set(backends.names()) - set(backends.host_names()) == {"cuda"}
