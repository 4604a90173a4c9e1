"""The GPU's kernels through NVRTC, which needs no GPU, and their machine code on disk."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import cuda_host
import pytest
from looped import few_quick

pytest.importorskip("cuda.core", reason="cuda-core is not installed", exc_type=ImportError)

from cuda.bindings import nvrtc

from hesskern.backends.cuda import kernels

ASSEMBLY = ["assemble_float32", "assemble_float64", "assemble_functional_float32", "assemble_functional_float64"]
TRAINING = ["train_warp_float32", "train_warp_float64", "train_block_float32", "train_block_float64"]


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


PROGRAMS = {"assembly": ASSEMBLY, "training": TRAINING}


# That the other program compiles is seen by those who read its registers.
@pytest.mark.parametrize(
    ("program", "architecture"),
    few_quick([pytest.param(program, f"sm_{k}") for program in PROGRAMS for k in (90, 80, 100)], 1),
)
def test_compiles(program, architecture, folder):
    code = kernels.machine_code(program, architecture)
    assert code.startswith(b"\x7fELF")
    for name in PROGRAMS[program]:
        assert f".text.{name}\0".encode() in code


def test_every_kernel_has_its_program():
    for program, names in PROGRAMS.items():
        assert all(kernels.program_of(name) == program for name in names)


def test_the_source_is_the_one_under_test():
    for program in kernels.PROGRAMS.values():
        text = kernels.source(program)
        for name in ("common", program):
            lines = (cuda_host.SOURCES / f"{name}.cuh").read_text().splitlines()
            assert "\n".join(line for line in lines if not line.startswith(("#pragma once", "#include"))) in text
        assert "#include" not in text


def test_contraction_is_switched_off_in_words():
    assert b"--fmad=false" in kernels.options("sm_90").as_bytes("nvrtc", "cubin")


def compile_by_hand(program, architecture):
    """The compiled program and what ptxas has to say."""
    status, compiled = nvrtc.nvrtcCreateProgram(kernels.source(program).encode(), b"kernels.cuh", 0, [], [])
    assert status == 0
    flags = [f"--gpu-architecture={architecture}".encode(), b"--fmad=false", b"--std=c++17", b"--ptxas-options=-v"]
    assert nvrtc.nvrtcCompileProgram(compiled, len(flags), flags)[0] == 0
    log = bytes(nvrtc.nvrtcGetProgramLogSize(compiled)[1] + 1)  # of its own: there is one b" " in the whole process
    nvrtc.nvrtcGetProgramLog(compiled, log)
    return compiled, log.decode(errors="replace")


@pytest.fixture(scope="module")
def instructions():
    """PTX of each kernel of the assembly."""
    compiled, _ = compile_by_hand("assembly", "compute_90")
    text = bytes(nvrtc.nvrtcGetPTXSize(compiled)[1] + 1)
    nvrtc.nvrtcGetPTX(compiled, text)
    parts = re.split(r"\.entry (\w+)\(", text.decode())
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.long
def test_training_keeps_its_numbers_in_registers():
    """Of a block of 512 threads each has up to 128 registers; five blocks of 128 threads run at the same time."""
    _, log = compile_by_hand("training", "sm_90")
    spilled = [int(number) for number in re.findall(r"(\d+) bytes spill stores", log)]
    registers = [int(number) for number in re.findall(r"Used (\d+) registers", log)]
    assert len(spilled) == len(registers) == len(TRAINING)
    assert max(spilled) <= 64
    assert max(registers) <= 128


@pytest.mark.parametrize("name", ASSEMBLY)
def test_stores_are_of_16_bytes_and_nothing_is_spilled(instructions, name):
    wide = "st.global.v4.f32" if name.endswith("32") else "st.global.v2.f64"
    assert wide in instructions[name]
    assert ".local" not in instructions[name]
    assert ("fma.rn.f" in instructions[name]) == ("functional" in name)


def test_compiled_once(folder, compiled):
    first = kernels.machine_code("assembly", "sm_90")
    assert kernels.machine_code("assembly", "sm_90") == first
    assert len(compiled) == 1
    assert kernels.machine_code("assembly", "sm_80") != first
    assert len(compiled) == len(entries(folder)) == 2


def test_another_source_is_compiled(folder, compiled, monkeypatch):
    kernels.machine_code("assembly", "sm_90")
    text = kernels.source("assembly")
    monkeypatch.setattr(kernels, "source", lambda _: text + "\n// another\n")
    kernels.machine_code("assembly", "sm_90")
    assert len(compiled) == 2


@pytest.mark.parametrize(
    "damage", few_quick([lambda code: code[:-100], lambda code: b"", lambda code: code[:-1] + b"?"], 1)
)
def test_a_damaged_file_is_compiled_anew_and_mended(folder, compiled, damage):
    first = kernels.machine_code("assembly", "sm_90")
    (entry,) = entries(folder)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert kernels.machine_code("assembly", "sm_90") == first
    assert len(compiled) == 2
    assert entry.read_bytes() == whole


def test_without_a_folder_it_is_compiled_each_time(tmp_path, compiled, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kernels.machine_code("assembly", "sm_90") == kernels.machine_code("assembly", "sm_90")
    assert len(compiled) == 2


@pytest.mark.long
def test_several_at_the_same_time(folder):
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(kernels.machine_code, ["assembly"] * 4, ["sm_90"] * 4))
    assert len(set(codes)) == 1
    assert len(entries(folder)) == 1
