"""Ctrl-C leaves long calls of compiled code, which otherwise give what they give."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from children import child

from hesskern._base.interrupt import interruptibly


def test_long_calls_give_what_they_give_and_raise_what_they_raise():
    assert interruptibly(divmod, 7, 2, seconds=1e3) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        interruptibly(divmod, 7, 0, seconds=1e3)


LONG = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np, hesskern as hk
from hesskern._base import decompositions
what = sys.argv[1]
rng = np.random.default_rng(0)
if what == "eigh":
    A = rng.standard_normal((4000, 4000))
    call = lambda: decompositions.eigh(A)
elif what == "eigsh":
    net = hk.LinearNetwork.random([300, 300, 300], seed=0)
    H = hk.SquaredLoss(rng.standard_normal((300, 300)), rng.standard_normal((300, 300))).hessian(net)
    call = lambda: [H.eigsh(k, certify=False) for k in range(10, 40)]
else:
    f = np.float32
    net = hk.LinearNetwork.random([600, 600, 600], seed=0)
    H = hk.SquaredLoss(rng.standard_normal((600, 600)), rng.standard_normal((600, 600))).hessian(net)
    V = rng.standard_normal((H.shape[0], 60))
    H @ V[:, :1]
    call = lambda: [H @ V for _ in range(1000)]
print("running", flush=True)
try:
    call()
    print("ended", flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT")
@pytest.mark.parametrize("what", ["eigh", "products", "eigsh"])
def test_ctrl_c_leaves_compiled_code(what):
    """The calls take minutes; whoever waits for their end does not answer within the time given, whatever the load."""
    with child(LONG, what) as process:
        assert process.stdout.readline() == "running\n", process.stderr.read()
        time.sleep(1.0)
        began = time.perf_counter()
        os.kill(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "stopped\n", process.stderr.read()
        assert time.perf_counter() - began < 20.0
        assert process.wait(60) == 0


SHUT_DOWN = """
import threading, time
import numpy as np, hesskern as hk
rng = np.random.default_rng(0)
net = hk.LinearNetwork.random([100, 100, 100], seed=0)
H = hk.SquaredLoss(rng.standard_normal((100, 100)), rng.standard_normal((100, 100))).hessian(net)
V = rng.standard_normal((H.shape[0], 4))
def work():
    while True:
        H @ V
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
sys.exit(7)
"""


def test_a_kernel_that_ends_while_python_shuts_down():
    """Taking the GIL ends the thread then: that must not end the process by SIGABRT."""
    for _ in range(3):
        with child(SHUT_DOWN) as process:
            assert process.wait(60) == 7, process.stderr.read()
