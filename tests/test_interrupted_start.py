"""Ctrl-C while the command is still importing."""

import subprocess
import sys

import pytest
from children import child_environment

#: Python's main module is what the command would be; the import that is interrupted is one of hesskern's own.
SCRIPT = """
import sys
sys.argv[0] = {name!r}
from hesskern import _interrupted_start
def interrupted():
    raise KeyboardInterrupt
def wrapped():
    try:
        interrupted()
    except KeyboardInterrupt as error:
        raise ImportError("compiled modules make another error of it") from error
{call}()
"""


def run(name, call):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(name=name, call=call)],
        env=child_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("call", ["interrupted", "wrapped"])
def test_the_command_ends_in_one_line(call):
    done = run("/usr/bin/hesskern", call)
    assert (done.returncode, done.stderr) == (130, "hesskern: interrupted\n")


def test_other_programs_keep_their_traceback():
    done = run("script.py", "wrapped")
    assert done.returncode == 1 and "Traceback" in done.stderr and done.stderr.endswith("make another error of it\n")


def test_other_errors_keep_their_traceback():
    done = run("hesskern", "missing")
    assert done.returncode == 1 and done.stderr.endswith("NameError: name 'missing' is not defined\n")
