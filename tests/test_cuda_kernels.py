"""The GPU's kernels through NVRTC, which needs no GPU, and their machine code on disk."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import cuda_host
import pytest

pytest.importorskip("cuda.core", reason="cuda-core is not installed", exc_type=ImportError)

from cuda.bindings import nvrtc

from hesskern.backends.cuda import kernels

NAMES = ["assemble_float32", "assemble_float64", "assemble_functional_float32", "assemble_functional_float64"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hesskern"


@pytest.fixture
def compiled(monkeypatch):
    """How often the compiler was called."""
    calls = []
    original = kernels._compile
    monkeypatch.setattr(kernels, "_compile", lambda *what: calls.append(what) or original(*what))
    return calls


def entries(folder):
    return [path for path in (folder / "entries").rglob("*") if path.is_file()]


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_compiles(architecture, folder):
    code = kernels.machine_code(architecture)
    assert code.startswith(b"\x7fELF")
    for name in NAMES:
        assert f".text.{name}\0".encode() in code


def test_the_source_is_the_one_under_test():
    assert kernels.source() == (cuda_host.SOURCES / "assembly.cuh").read_text()


def test_contraction_is_switched_off_in_words():
    assert b"--fmad=false" in kernels.options("sm_90").as_bytes("nvrtc", "cubin")


@pytest.fixture(scope="module")
def instructions():
    """PTX of each kernel."""
    status, program = nvrtc.nvrtcCreateProgram(kernels.source().encode(), b"assembly.cuh", 0, [], [])
    assert status == 0
    flags = [b"--gpu-architecture=compute_90", b"--fmad=false", b"--std=c++17"]
    assert nvrtc.nvrtcCompileProgram(program, len(flags), flags)[0] == 0
    text = b" " * nvrtc.nvrtcGetPTXSize(program)[1]
    nvrtc.nvrtcGetPTX(program, text)
    parts = re.split(r"\.entry (\w+)\(", text.decode())
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_stores_are_of_16_bytes_and_nothing_is_spilled(instructions, name):
    wide = "st.global.v4.f32" if name.endswith("32") else "st.global.v2.f64"
    assert wide in instructions[name]
    assert ".local" not in instructions[name]
    assert ("fma.rn.f" in instructions[name]) == ("functional" in name)


def test_compiled_once(folder, compiled):
    first = kernels.machine_code("sm_90")
    assert kernels.machine_code("sm_90") == first
    assert len(compiled) == 1
    assert kernels.machine_code("sm_80") != first
    assert len(compiled) == len(entries(folder)) == 2


def test_another_source_is_compiled(folder, compiled, monkeypatch):
    kernels.machine_code("sm_90")
    text = kernels.source()
    monkeypatch.setattr(kernels, "source", lambda: text + "\n// another\n")
    kernels.machine_code("sm_90")
    assert len(compiled) == 2


@pytest.mark.parametrize("damage", [lambda code: code[:-100], lambda code: b"", lambda code: code[:-1] + b"?"])
def test_a_damaged_file_is_compiled_anew_and_mended(folder, compiled, damage):
    first = kernels.machine_code("sm_90")
    (entry,) = entries(folder)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert kernels.machine_code("sm_90") == first
    assert len(compiled) == 2
    assert entry.read_bytes() == whole


def test_without_a_folder_it_is_compiled_each_time(tmp_path, compiled, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kernels.machine_code("sm_90") == kernels.machine_code("sm_90")
    assert len(compiled) == 2


def test_several_at_the_same_time(folder):
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(kernels.machine_code, ["sm_90"] * 4))
    assert len(set(codes)) == 1
    assert len(entries(folder)) == 1
