"""Malformed calls: every public function with one argument replaced by a bad value.

Allowed is one clear TypeError, ValueError, MemoryError or LinAlgError that names the argument; wrong are crashes,
hangs, messages from the inside, and bad values that are taken without a word.

``python -m attack.malformed SECONDS [SEED]`` runs new ones; ``cases(seed)`` yields them for another program.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np

import hesskern as hk

from .malformed_table import KINDS, PLAIN, SPOILED, TABLE, namespace
from .malformed_torch_table import TENSORS, TORCH_TABLE, torch_namespace

Case = tuple[str, Callable[[], str]]

#: What is said by Python, NumPy or SciPy and means nothing to whoever made the call.
INTERNAL = re.compile(
    r"has no attribute|has no len|unhashable|unsupported operand|ufunc|broadcast|not supported between|cannot convert|"
    r"must be str, bytes|NoneType' object|not iterable|not subscriptable|must be real number|positional argument|"
    r"could not convert|setting an array|inhomogeneous|incompatible function|too large|too many digits|invalid literal|"
    r"only integer|only length-1|truth value|Cannot cast|matmul:|operands|interpreted as an integer|dimension mismatch|"
    r"unexpected keyword|not callable|expected str, bytes|embedded null|not a valid|Exceeds the limit|"
    r"must be an integer|cannot be interpreted|cannot unpack|array split|unpack|zero-size|out of bounds for|"
    r"indices must be|byte-like|buffer|axis \d"
)
ALLOWED = (TypeError, ValueError, MemoryError, ImportError, OSError)
#: Kinds of argument that are given the spoiled arrays too.
_ARRAY_KINDS = frozenset(
    ("array", "samples array", "targets", "vector", "right side", "out", "candidate", "values", "multiplicities")
)
#: What messages call an argument that has another name for its reader.
ALSO = {
    "backends": "backends?",
    "weights": "weights|biases|names",
    "net": "nets?|network",
    "loss": "loss|hesskern.SquaredLoss",
    "v": "v|vector",
    "module": "model|module",
    "model": "model|module",
    "model_func": "model|module|model_func|loss_func",
    "loss_func": "loss_func|loss_fn|func",
    "criterion": "criterion|loss_fn",
    "inputs": "inputs|func",
    "x": "x|weights",
    "index": "index|networks",
    "multiplicities": "multiplicities",
    "name": "backend",
}


def judge(run: Callable[[], object], argument: str, *, good: bool) -> str:  # noqa: PLR0911 - one for each end
    """Return what is wrong with how a call ends; empty if nothing is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()
    except IndexError as error:
        return "" if argument == "index" else f"IndexError: {error}"
    except ALLOWED as error:
        text = str(error)
        if good or "arrays don't yet support 3D" in text:  # SciPy cannot make the bad value itself
            return ""  # good for its kind, and refused because of the other arguments
        if isinstance(error, MemoryError | OSError):
            return "" if text else f"{type(error).__name__} without a word"
        if INTERNAL.search(text):
            return f"internal message: {type(error).__name__}: {text[:200]}"
        if not re.search(rf"(?<![a-zA-Z])({ALSO.get(argument, argument)})(?![a-z])", text):
            return f"does not name {argument!r}: {type(error).__name__}: {text[:200]}"
        return ""
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "" if good else "taken without a word"


def every() -> list[tuple[str, str, bool]]:
    """Return every case of the table as (line, argument, whether the value may be good)."""
    found = []
    for target, arguments in TABLE + TORCH_TABLE:
        for name, (kind, good) in arguments.items():
            optional, kind = kind.endswith("?"), kind.removesuffix("?")
            values = {bad: bad for bad in PLAIN}
            if kind in _ARRAY_KINDS:
                values |= {bad: bad.format(*[f"({good})"] * 2) for bad in SPOILED}
            if kind in ("arrays", "biases"):
                values |= {f"first {bad}": f"first({good}, lambda a: {bad.format('a', 'a')})" for bad in SPOILED}
            if kind in ("tensor", "tensor vector", "samples"):
                values |= {bad: bad.format(good) for bad in TENSORS}
            for label, bad in values.items():
                fits = label in KINDS[kind] or (label == "None" and optional) or (
                    label.startswith("first ") and label.removeprefix("first ") in KINDS["array"]
                )  # fmt: skip
                given = {key: value for key, (_, value) in arguments.items()} | {name: bad}
                if "{}" in target:
                    line = target.replace("{}", bad)
                else:
                    line = f"{target}({', '.join(f'{key}={value}' for key, value in given.items())})"
                    line = line.replace("__matmul__(v=", "__matmul__(").replace("loss(net=", "loss(")
                found.append((line, name, fits))
    return found


def cases(seed: int) -> Iterator[Case]:
    """Yield (line, callable) without end; the callable returns what is wrong, or an empty text."""
    order, rng = every(), random.Random(seed)
    while True:
        rng.shuffle(order)
        for line, argument, fits in order:
            yield line, _runner(line, argument, good=fits)


@functools.cache
def _names() -> dict[str, object]:
    """Return the objects of all cases of a process: made once, in the parent of those that run them."""
    return namespace() | torch_namespace()


def _runner(line: str, argument: str, *, good: bool) -> Callable[[], str]:
    def run() -> str:
        try:
            return judge(lambda: eval(line, _names()), argument, good=good)
        finally:
            hk.use_backend(None)

    return run


def in_children(
    some: Iterator[Case], *, seconds: int = 300, batch: int = 200, stop: float = float("inf")
) -> Iterator[tuple[str, str]]:
    """Run cases in forked children, a batch in each, and yield (line, what is wrong); a crash or a hang is told too."""
    left: list[Case] = []
    _names()
    while time.monotonic() < stop:
        left = left or list(itertools.islice(some, batch))
        if not left:
            return
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _in_child(left, writer, seconds)
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as told:
            results = [line.rstrip("\n") for line in told]
        _, status = os.waitpid(child, 0)
        for (line, _), wrong in zip(left, results, strict=False):
            yield line, wrong
        if len(results) < len(left):
            name = (
                signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
            )
            yield left[len(results)][0], "hangs" if name == "SIGALRM" else f"the process ends: {name}"
            left = left[len(results) + 1 :]
        else:
            left = []


def _in_child(some: list[Case], writer: int, seconds: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.chdir(_names()["FOLDER"])  # type: ignore[arg-type]
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    with os.fdopen(writer, "w", encoding="utf-8") as tell:
        for _, run in some:
            signal.alarm(seconds)
            tell.write(run().replace("\n", " ") + "\n")
            tell.flush()
    os._exit(0)


def main(arguments: list[str]) -> int:
    """Run for a while and print what is wrong."""
    seconds, seed = float(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 0
    count, bad = 0, {}
    for line, wrong in in_children(cases(seed), stop=time.monotonic() + seconds):
        count += 1
        if wrong:
            bad.setdefault(line, wrong)
    for line, wrong in sorted(bad.items()):
        print(f"{line}\n    {wrong}")
    print(f"{count} malformed calls, {len(bad)} wrong")
    return bool(bad)


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main(sys.argv[1:]))
