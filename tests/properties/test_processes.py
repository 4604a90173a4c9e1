"""Threads, forked processes, subinterpreters and too little memory: nobody waits for ever, and nothing is mixed up."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from forks import in_child, needs_fork
from looped import few_quick

import hesskern as hk
from hesskern import backends


@pytest.fixture(autouse=True)
def _default_backend(monkeypatch):
    monkeypatch.delenv("HESSKERN_BACKEND", raising=False)
    yield
    hk.use_backend(None)


# Backends -------------------------------------------------------------------------------------------------------------


def test_a_block_is_its_threads_own():
    a_in, b_in, a_out, seen = threading.Event(), threading.Event(), threading.Event(), {}

    def a():
        with hk.use_backend("numpy"):
            a_in.set()
            assert b_in.wait(60)
            seen["a"] = backends.resolve()
        a_out.set()

    def b():
        assert a_in.wait(60)
        seen["b before"] = backends.resolve()
        with hk.use_backend("numba"):
            b_in.set()
            assert a_out.wait(60)
            seen["b"] = backends.resolve()

    run(a, b)
    assert seen == {"a": "numpy", "b before": "cpp", "b": "numba"}
    assert backends.resolve() == "cpp"


def test_no_thread_sees_anothers_block_for_a_moment():
    """Between the call and the block, too: threads switch as often as they can."""
    wrong, done, interval = [], threading.Event(), sys.getswitchinterval()

    def inside():
        for _ in range(3000):
            with hk.use_backend("numpy"):
                if backends.resolve() != "numpy":
                    wrong.append("inside")

    def outside():
        while not done.is_set():
            if backends.resolve() != "cpp":
                wrong.append("outside")

    watcher = threading.Thread(target=outside)
    sys.setswitchinterval(1e-6)
    try:
        watcher.start()
        run(inside, inside)
    finally:
        done.set()
        watcher.join(60)
        sys.setswitchinterval(interval)
    assert wrong == []


def test_a_call_is_the_choice_of_the_process():
    hk.use_backend("numpy")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(backends.resolve).result() == "numpy"
    kept = hk.use_backend("numba")  # by a name that keeps it, until the backend is asked for
    assert backends.resolve() == "numba"
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(backends.resolve).result() == "numba"
    with ThreadPoolExecutor(1, initializer=hk.use_backend, initargs=("numpy",)) as pool:
        assert pool.submit(backends.resolve).result() == "numpy"
    del kept
    assert backends.resolve() == "numpy"


def test_a_call_inside_a_block_holds_for_its_rest_and_for_the_process():
    with hk.use_backend("numba"):
        hk.use_backend("numpy")
        assert backends.resolve() == "numpy"
    assert backends.resolve() == "numpy"


def test_a_block_that_is_kept_can_be_entered_again_and_inside_itself():
    block = hk.use_backend("numpy")
    for _ in range(2):
        with block, block:
            assert backends.resolve() == "numpy"
        assert backends.resolve() == "cpp"


def test_threads_and_tasks_begun_inside_a_block():
    async def task():
        with hk.use_backend("numpy"):
            await asyncio.sleep(0)
            inner = await asyncio.gather(asyncio.to_thread(backends.resolve), named())
        return inner, backends.resolve()

    async def named():
        return backends.resolve()

    async def both():
        return await asyncio.gather(task(), named(), task())

    assert asyncio.run(both()) == [(["numpy", "numpy"], "cpp"), "cpp", (["numpy", "numpy"], "cpp")]
    if not getattr(sys.flags, "thread_inherit_context", False):
        with hk.use_backend("numpy"), ThreadPoolExecutor(1) as pool:
            assert pool.submit(backends.resolve).result() == "cpp"
            assert pool.submit(contextvars.copy_context().run, backends.resolve).result() == "numpy"


def run(*functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


# Forks ----------------------------------------------------------------------------------------------------------------


def problem(widths=(40, 60, 40), samples=200):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((samples, widths[0])), rng.standard_normal((samples, widths[-1]))
    return hk.LinearNetwork.random(widths, seed=0), hk.SquaredLoss(X, Y)


@needs_fork
@pytest.mark.parametrize("backend", ["cpp", "numba"])
def test_a_child_multiplies_while_a_thread_of_its_parent_does(backend):
    net, loss = problem()
    with hk.use_backend(backend):
        H = loss.hessian(net)
    v, V = np.ones(H.shape[0]), np.ones((H.shape[0], 200))
    expected, go_on, started = H @ v, threading.Event(), threading.Event()

    def multiply():
        while not go_on.is_set():
            started.set()
            H @ V

    thread = threading.Thread(target=multiply)
    thread.start()
    try:
        assert started.wait(60)
        codes = [in_child(lambda: np.testing.assert_array_equal(H @ v, expected)) for _ in range(5)]
    finally:
        go_on.set()
        thread.join(60)
    assert codes == [0] * 5
    np.testing.assert_array_equal(H @ v, expected)


@needs_fork
@pytest.mark.parametrize("what", few_quick(["fit", "fit_ensemble", "condition", "softmax", "toarray"], 3))
def test_a_child_computes_while_a_thread_of_its_parent_does(what):
    net, loss = problem()
    softmax = hk.SoftmaxHessian(loss.X, loss.Y[:, :5].copy())
    work = {
        "fit": lambda: hk.fit(net, loss, lr=1e-6, max_steps=200),
        "fit_ensemble": lambda: hk.fit_ensemble([net] * 4, loss, lr=1e-6, max_steps=20, threads=2),
        "condition": lambda: loss.hessian(net, [1]).condition(),
        "softmax": lambda: softmax @ np.ones((softmax.shape[0], 8)),
        "toarray": lambda: loss.hessian(net, [0]).toarray(),
    }[what]
    work()
    go_on, started = threading.Event(), threading.Event()

    def repeat():
        while not go_on.is_set():
            started.set()
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        assert started.wait(60)
        codes = [in_child(work) for _ in range(5)]
    finally:
        go_on.set()
        thread.join(60)
    assert codes == [0] * 5


# Subinterpreters ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="CPython's module")
@pytest.mark.parametrize("first", ["", "import hesskern; "])
@pytest.mark.parametrize("module", ["hesskern", "hesskern._core"])
def test_a_subinterpreter_is_refused_at_once(module, first):
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    code = textwrap.dedent(f"""
        {first}
        import {name} as interpreters
        found = interpreters.run_string(interpreters.create(), '''
        try:
            import {module}
        except ImportError as error:
            print(error, flush=True)
        ''')
    """).replace("\n        ", "\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert "hesskern cannot be imported in a subinterpreter" in done.stdout, (done.stdout, done.stderr)


# Memory ---------------------------------------------------------------------------------------------------------------

NEAR_THE_LIMIT = """
import collections, os, resource, signal, sys
import numpy as np, psutil, hesskern as hk
from hesskern import _core
rng = np.random.default_rng(0)
small = hk.LinearNetwork.random([6, 8, 6], seed=0)
loss = hk.SquaredLoss(rng.standard_normal((50, 6)), rng.standard_normal((50, 6)))
wide = hk.LinearNetwork.random([40, 60, 40], seed=0)
many = hk.SquaredLoss(rng.standard_normal((200, 40)), rng.standard_normal((200, 40)))
block, features, logits = many.hessian(wide, [0]), rng.standard_normal((200, 20)), rng.standard_normal((200, 8))
work = {
    "fit": lambda: hk.fit(wide, many, lr=1e-6, max_steps=2),
    "fit_ensemble": lambda: hk.fit_ensemble([small] * 64, loss, lr=1e-4, max_steps=2, threads=8),
    "wide ensemble": lambda: hk.fit_ensemble([wide] * 8, many, lr=1e-6, max_steps=2, threads=4),
    "products": lambda: many.hessian(wide) @ np.ones((wide.num_parameters, 20)),
    "toarray": lambda: _core.assemble([(60, 40, False)], [(60, 40, False)], [(F, G, None, None)], out, 4),
    "softmax": lambda: hk.SoftmaxHessian(features, logits).toarray(),
    "triangular_factor": lambda: _core.triangular_factor((many.X, many.Y)),
    "condition": lambda: many.hessian(wide, [1]).condition(),
}[sys.argv[1]]
F, G, out = rng.standard_normal((60, 60)), rng.standard_normal((40, 40)), np.empty((2400, 2400))
work()
size, ends = psutil.Process().memory_info().vms, collections.Counter()
for kib in (-100_000, 0, 64, 128, 256, 512, 1024, 2048, 4096, 9000, 17000, 34000, 68000, 136000, 272000, 1_000_000):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        resource.setrlimit(resource.RLIMIT_AS, (size + 1024 * kib,) * 2)
        try:
            work()
            os._exit(0)
        except MemoryError:
            os._exit(10)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(11)
    ends[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])] += 1
print(dict(ends))
"""


@needs_fork
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits on memory as Linux has them")
@pytest.mark.parametrize(
    "what",
    [
        "fit_ensemble",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("fit", "wide ensemble", "products", "toarray", "softmax", "triangular_factor", "condition")
        ),
    ],
)
def test_too_little_memory_is_a_memory_error(what):
    """The C library takes every larger block from the system, so that the limit is felt everywhere."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "4096", "MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", NEAR_THE_LIMIT, what],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends = collections.Counter(eval(done.stdout))
    assert set(ends) <= {0, 10}, (ends, done.stderr)
    assert ends[0], ends
    if what not in ("fit_ensemble", "wide ensemble", "toarray"):  # these find room in what was freed before
        assert ends[10], ends
