"""Memory that is free in a container, and estimates against what is really taken."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from children import child_environment

from hesskern._base import memory

GIB = 1 << 30


@pytest.fixture(autouse=True)
def a_large_machine(monkeypatch):
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GIB))


def write(root, files):
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{text}\n")


def test_no_control_groups(tmp_path):
    assert memory.available(tmp_path) == 64 * GIB


@pytest.mark.parametrize("inner", ["max", str(8 * GIB)])
def test_version_2_with_nested_limits(tmp_path, inner):
    write(tmp_path, {
        "proc/self/cgroup": "0::/outer/inner",
        "sys/fs/cgroup/outer/memory.max": 3 * GIB,
        "sys/fs/cgroup/outer/memory.current": 2 * GIB,
        "sys/fs/cgroup/outer/memory.stat": f"anon 5\ninactive_file {GIB // 2}\nactive_file 7",
        "sys/fs/cgroup/outer/inner/memory.max": inner,
        "sys/fs/cgroup/outer/inner/memory.current": GIB,
    })  # fmt: skip
    assert memory.available(tmp_path) == 3 * GIB // 2


def test_version_2_in_a_container_that_sees_its_group_as_the_root(tmp_path):
    write(tmp_path, {
        "proc/self/cgroup": "0::/",
        "sys/fs/cgroup/memory.max": 2 * GIB,
        "sys/fs/cgroup/memory.current": GIB,
    })  # fmt: skip
    assert memory.available(tmp_path) == GIB


@pytest.mark.parametrize("path", ["/docker/abc", "/"])
def test_version_1(tmp_path, path):
    """In the container the path is the host's, and is not there; its own group is the root of the tree."""
    write(tmp_path, {
        "proc/self/cgroup": f"5:cpu,cpuacct:{path}\n4:memory:{path}\n0::/",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 4 * GIB,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 3 * GIB,
        "sys/fs/cgroup/memory/memory.stat": f"inactive_file 3\ntotal_inactive_file {GIB}",
    })  # fmt: skip
    assert memory.available(tmp_path) == 2 * GIB


def test_version_1_without_a_limit(tmp_path):
    write(tmp_path, {
        "proc/self/cgroup": "4:memory:/",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 3 * GIB,
    })  # fmt: skip
    assert memory.available(tmp_path) == 64 * GIB


def test_a_group_that_is_full(tmp_path):
    write(tmp_path, {
        "proc/self/cgroup": "0::/",
        "sys/fs/cgroup/memory.max": GIB,
        "sys/fs/cgroup/memory.current": GIB + 4096,
    })  # fmt: skip
    assert memory.available(tmp_path) == 0


PEAK = """
import json, sys, threading, numpy as np, psutil, hesskern as hk
from hesskern._base import memory
call, widths = sys.argv[1], json.loads(sys.argv[2])
asked, real = [], memory.require
process = psutil.Process()
def require(needed, *words):
    asked.append(needed + process.memory_info().rss)
    real(needed, *words)
memory.require = require
rng = np.random.default_rng(0)
def hessian(widths):
    loss = hk.SquaredLoss(rng.standard_normal((50, widths[0])), rng.standard_normal((50, widths[-1])))
    return loss.hessian(hk.LinearNetwork.random(widths, seed=0))
H = hessian([3, 4, 4, 2])
eval(call)  # all libraries are loaded
H = hessian(widths)
asked.clear()
peak, done = [0], threading.Event()
def watch():
    while not done.wait(0.001):
        peak[0] = max(peak[0], process.memory_info().rss)
watcher = threading.Thread(target=watch)
watcher.start()
eval(call)
done.set()
watcher.join()
print(json.dumps([peak[0], max(asked)]))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is counted differently")
@pytest.mark.parametrize(
    ("call", "widths"),
    [
        ("H.eigvalsh()", [10, 24, 24, 10]),
        ("H.eigh()", [10, 24, 24, 10]),
        ("H.eigh(5)", [16, 1500, 16]),
        ("H.eigh()", [6, 150, 6]),
        ("H.solve(np.ones((H.shape[0], 300)), damping=1e5)", [10, 24, 24, 10]),
        ("H.gauss_newton().eigvalsh()", [20, 22, 22, 20]),
        ("H.gauss_newton().eigh()", [20, 22, 22, 20]),
    ],
)
def test_estimates_are_not_below_what_is_taken(call, widths):
    script = [sys.executable, "-c", PEAK, call, json.dumps(widths)]
    done = subprocess.run(script, capture_output=True, text=True, env=child_environment(), timeout=600, check=True)
    peak, asked = json.loads(done.stdout)
    assert peak <= asked + (8 << 20)
