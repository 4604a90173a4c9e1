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


PRECISION = """
import torch
from hesskern.backends.cuda.precision import full_precision

settings = torch.backends.cuda.matmul
settings.{name} = {mine!r}
with full_precision():
    inside = settings.{name}
    torch._C._get_cublas_allow_tf32()  # what a product on a GPU asks; it raises where two ways to set it were mixed
print(inside, settings.{name} == {mine!r})
"""


@pytest.mark.parametrize(
    ("name", "mine", "inside"),
    few_quick(
        [
            pytest.param(*case)
            for case in [
                ("allow_tf32", True, "False"),
                ("allow_tf32", False, "False"),
                ("fp32_precision", "tf32", "ieee"),
                ("fp32_precision", "ieee", "ieee"),
            ]
        ],
        0,
    ),
)
def test_float32_is_not_tf32(python, name, mine, inside):
    """However the user has set it, and the setting is as before afterwards. In a process of its own: it is global."""
    if not hasattr(torch.backends.cuda.matmul, name):
        pytest.skip(f"this PyTorch has no {name}")
    done = python(PRECISION.format(name=name, mine=mine))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [inside, "True"]


def test_the_host_backends_are_those_without_a_device():
    assert set(backends.names()) - set(backends.host_names()) == {"cuda"}
