"""Steps of training in one kernel: which launch a network gets, and that threads change no bit."""

from __future__ import annotations

import json
import subprocess

import cuda_host
import numpy as np
import pytest

import hesskern as hk

pytest.importorskip("torch")
import torch
from device_runs import ensemble, there

from hesskern.backends.cuda import shared_memory_kernel

pytestmark = pytest.mark.usefixtures("place")

#: Prints the size of the kernel's struct, and the kind, offset and size of each field, as JSON.
LAYOUT = """
#include <cstddef>
#include <cstdio>
#include <type_traits>
#include "training.cuh"

template <class Field>
constexpr char kind() {
    return std::is_pointer_v<Field> ? 'u' : std::is_floating_point_v<Field> ? 'f' : 'i';
}
template <class T>
void print() {
    using Struct = hesskern::Training<T>;
    std::printf("[%zu", sizeof(Struct));
#define FIELD(name)                                                                             \\
    std::printf(", [\\"%s\\", \\"%c\\", %zu, %zu]", #name, kind<decltype(Struct::name)>(), \\
                offsetof(Struct, name), sizeof(Struct::name));
    FIELDS
    std::printf("]");
}
int main() {
    std::printf("[");
    print<float>();
    std::printf(", ");
    print<double>();
    std::printf("]");
}
"""


def test_the_struct_is_the_kernels(tmp_path):
    """As the compiler lays it out. A field that only one side has is an error, or makes another size."""
    struct = shared_memory_kernel.TRAINING
    source, program = tmp_path / "layout.cpp", tmp_path / "layout"
    source.write_text(LAYOUT.replace("FIELDS", " ".join(f"FIELD({name})" for name in struct.names)))
    options = ["-std=c++20", f"-I{cuda_host.SOURCES}"]
    subprocess.run([cuda_host.compiler(), *options, str(source), "-o", str(program)], check=True)
    fields = [[name, field.kind, offset, field.itemsize] for name, (field, offset) in struct.fields.items()]
    for layout in json.loads(subprocess.check_output([program])):
        assert layout == [struct.itemsize, *fields]


def test_a_field_takes_its_own_kind_only():
    struct = shared_memory_kernel.TRAINING
    value = {"i": 3, "f": 2, "u": None}
    fields = {name: value[field.kind] for name, (field, _) in struct.fields.items()}
    there = torch.ones(2, dtype=torch.float64)
    packed = shared_memory_kernel.packed({**fields, "x": there, "nesterov": True}, there)
    (record,) = packed.cpu().numpy().view(struct)
    assert record["x"] == there.data_ptr()
    assert (record["scale"], record["networks"], record["nesterov"], record["velocity"]) == (2.0, 3, 1, 0)
    for name, wrong in (("x", 3), ("networks", there), ("networks", 2.5), ("rtol", None)):
        with pytest.raises(AssertionError, match=name):
            shared_memory_kernel.packed({**fields, name: wrong}, there)


@pytest.mark.parametrize("kernel", ["train_warp_float64", "train_block_float64"])
def test_threads_change_no_bit(kernel, monkeypatch, place):
    """The barriers are real ones here, between the system's threads."""
    if place != "cpu":
        pytest.skip("for the host's twin of the kernel")
    nets, loss = ensemble(2, widths=(5, 9, 6))
    monkeypatch.setattr(
        "hesskern.backends.cuda.descents.plan", lambda *_: shared_memory_kernel.Plan(kernel, 2, 32, 1 << 20)
    )
    options = dict(lr=0.002, max_steps=20, momentum=0.5, batch_size=4, record=("loss", "gradient_norm"))
    runs = []
    for threads in (1, 3, 8):

        def launch(*arguments, count=threads, **options):
            cuda_host.launch(*arguments, **options, only=count)

        monkeypatch.setattr("hesskern.backends.cuda.operations.Descents", _with(launch))
        runs.append(hk.fit_ensemble(*there(nets, loss), **options))
    for run in runs[1:]:
        np.testing.assert_array_equal(run.history["gradient_norm"], runs[0].history["gradient_norm"])
        assert all((a == b).all() for a, b in zip(run.weights, runs[0].weights, strict=True))


def _with(launch):
    from hesskern.backends.cuda.descents import Descents

    return lambda _, *rest: Descents(launch, *rest)


def test_plans():
    limits = cuda_host.limits(None)
    need = shared_memory_kernel.network_bytes
    small = need((5, 10, 5), 5, 0, velocity=False, itemsize=8)
    many = shared_memory_kernel.plan(16384, (5, 10, 5), 5, small, 8, limits)
    assert many.kernel == "train_warp_float64"
    assert many.blocks * many.threads // 32 >= 16384
    assert many.shared <= limits.block_bytes
    one = shared_memory_kernel.plan(1, (5, 10, 5), 5, small, 8, limits)
    assert (one.kernel, one.blocks, one.threads) == ("train_block_float64", 1, 64)
    large = need((50, 60, 10), 50, 0, velocity=False, itemsize=8)
    assert shared_memory_kernel.plan(1, (50, 60, 10), 50, large, 8, limits).threads == 512
    assert (
        shared_memory_kernel.plan(
            1, (500, 60, 10), 500, need((500, 60, 10), 500, 0, velocity=True, itemsize=8), 8, limits
        )
        is None
    )
    assert shared_memory_kernel.plan(3, (5, 10, 5), 5, limits.block_bytes, 8, limits).threads > 32
