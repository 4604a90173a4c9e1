"""Long runs survive kill -9: resumed, they end where the run that nobody killed ends, to the bit."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import numpy as np
import pytest
from children import BY, child, train
from looped import few_quick
from trainings import same

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

KILLED = """
import json, os
from children import train
name, path, options = map(json.loads, sys.argv[1:])
train(name, checkpoint=path, resume=path if os.path.exists(path) else None, **options)
print("done", flush=True)
"""


def wait_for_a_write(path, process, before):
    """Wait until a checkpoint that is not the one from before is there."""
    end = time.monotonic() + 120  # Numba may have to compile first
    while not (path.exists() and path.stat().st_mtime_ns != before):
        assert time.monotonic() < end
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)


@pytest.mark.parametrize(("name", "backend_name"), few_quick([pytest.param(*by) for by in BY], 6))
@pytest.mark.quick_in_cpp
def test_killed_at_random_moments(tmp_path, name, backend_name):
    """A checkpoint at every step or two: most moments are moments of writing."""
    random.seed(name + backend_name)
    path = tmp_path / "state.npz"
    options = {"backend": backend_name, "record_every": 500, "checkpoint_every": random.choice([1, 2, 3])}
    for _ in range(2):  # killed, gone on with, killed again
        before = path.stat().st_mtime_ns if path.exists() else None
        with child(KILLED, name, str(path), options | {"max_steps": 10**9}) as process:
            wait_for_a_write(path, process, before)
            time.sleep(random.uniform(0.0, 0.05))
            assert process.poll() is None, process.stderr.read()
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    del options["checkpoint_every"]
    reached = train(name, resume=path, max_steps=1, **options)  # what the checkpoint holds
    steps = int(np.max(reached.steps)) + 700
    found = train(name, resume=path, max_steps=steps, **options)
    same(found, train(name, max_steps=steps, **options))


AT_AN_EVENT = """
import json, os, signal
from children import train
name, path, options, event, count = map(json.loads, sys.argv[1:])
seen = 0


def hook(what, arguments):
    # Before every opening and renaming of a file in the checkpoint's folder.
    global seen
    if what == event and isinstance(arguments[0], str) and os.path.dirname(path) in arguments[0]:
        seen += 1
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(hook)
train(name, checkpoint=path, **options)
"""


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("event", ["open", "os.rename"])
@pytest.mark.parametrize("name", few_quick(["momentum, sharpness", "ensemble, minibatches"], 1))
def test_killed_between_the_steps_of_writing(tmp_path, name, event, count):
    path = tmp_path / "state.npz"
    options = {"max_steps": 60, "record_every": 7}
    with child(AT_AN_EVENT, name, str(path), options | {"checkpoint_every": 4}, event, count) as process:
        assert process.wait(60) == -signal.SIGKILL, process.stderr.read()
    assert path.exists() == (event == "os.rename" and count > 1) or event == "open"
    if event == "os.rename" and count == 1:  # nothing but a file under another name
        with pytest.raises(FileNotFoundError):
            train(name, resume=path, **options)
        return
    if not path.exists():
        return
    same(train(name, resume=path, checkpoint=path, checkpoint_every=4, **options), train(name, **options))
    assert os.listdir(tmp_path) == ["state.npz"]  # what the killed one left behind is gone


LIMITED = """
import json, resource, signal
from children import train
name, path, options, limit, deadly = map(json.loads, sys.argv[1:])
if deadly:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # writing beyond the limit kills, in the middle of the file
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print(train(name, checkpoint=path, **options).steps)
"""


@pytest.mark.parametrize("deadly", [True, False])
@pytest.mark.parametrize("name", few_quick(["momentum, sharpness", "minibatches"], 1))
def test_no_room_for_the_next_checkpoint(tmp_path, name, deadly):
    """The history grows until a file does not fit: cut off in the middle, or an error as of a full disk.

    The error is a warning: the run goes on to its end.
    """
    path = tmp_path / "state.npz"
    train(name, max_steps=20, checkpoint=path, checkpoint_every=20)
    limit = path.stat().st_size + 2000
    path.unlink()
    options = {"max_steps": 800, "checkpoint_every": 20}
    with child(LIMITED, name, str(path), options, limit, deadly) as process:
        output, errors = process.communicate(timeout=60)
    if deadly:
        assert process.returncode == -signal.SIGXFSZ, errors
    else:
        assert process.returncode == 0, errors
        assert output == "800\n"
        assert "CheckpointWarning" in errors and "File too large" in errors and str(path) in errors
        assert os.listdir(tmp_path) == ["state.npz"]
    assert 0 < path.stat().st_size <= limit
    same(train(name, resume=path, max_steps=200), train(name, max_steps=200))
