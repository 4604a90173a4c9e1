"""The command ``hesskern``.

Exit codes: 0 done; 1 something does not agree (demo, validate), or training diverged; 2 refused, with one sentence on
stderr that says why (`explain` has other codes, see `hesskern.cli.explain`); 130 stopped by Ctrl-C; 141 the reader of
the output has closed it. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hesskern import backends
from hesskern._core import version
from hesskern.cli import explain, fit, validate
from hesskern.cli.common import (
    DONE,
    INTERRUPTED,
    NOT_WELL,
    REFUSED,
    UNREAD,
    CommandParser,
    RefusedError,
    reason,
    say,
    to_json,
)

if TYPE_CHECKING:
    from hesskern.demo.results import Demo


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; default: the arguments of this process.

    Examples
    --------
    >>> from hesskern.cli.main import main
    >>> main(["--version"])  # doctest: +ELLIPSIS
    hesskern ...
    0
    """
    _open_streams()
    refused = REFUSED
    try:
        try:
            parser = _parser()
            arguments, unknown = parser.parse_known_args(argv)
            refused = arguments.parser.refused
            if unknown:  # refused by the command's own parser, with its exit code
                arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
            code: int = arguments.command(arguments)
        except SystemExit as stop:  # argparse: --help, --version, or a usage error it has printed
            code = stop.code if isinstance(stop.code, int) else REFUSED
        sys.stdout.flush()
    except RefusedError as error:
        return _refuse(str(error), refused)
    except KeyboardInterrupt:
        print("hesskern: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return UNREAD
    except OSError as error:  # the output's disk is full, say; paths are checked where they are used
        _discard_output()
        return _refuse(f"cannot write the output: {error.strerror or error}", refused)
    except MemoryError as error:
        return _refuse(str(error) or "out of memory", refused)
    return code


def _open_streams() -> None:
    """Discard output if the caller has closed stdout or stderr, as daemons do for the programs they start."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="hesskern", description="Exact curvature of linear networks: Hessians, condition numbers, ranks, training."
    )
    parser.add_argument("--version", action="version", version=f"hesskern {version}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="174 or 5345? The case this package started with",
        description="Train a 5-100-5 linear network, compute the condition number of its Hessian with respect to W_2 "
        "by each of the discussed methods, and say which one is right and why. Exit code 1 if something does not "
        "agree.",
    )
    demo.add_argument(
        "--plot", metavar="FILE", help="also write a picture; the suffix chooses the format: .png, .svg, .pdf"
    )
    demo.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    demo.add_argument(
        "--backend", metavar="NAME", help=f"compute with this backend: {', '.join(backends.host_names())}"
    )
    demo.set_defaults(command=_demo, parser=demo)

    fit.add_parser(commands)
    explain.add_parser(commands)
    validate.add_parser(commands)

    info = commands.add_parser(
        "info",
        help="versions, instruction set, BLAS, threads, GPU",
        description="Print versions, backend, instruction set, BLAS with its threads, GPU.",
    )
    info.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    info.set_defaults(command=_info, parser=info)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    _check_backend(arguments.backend)
    if arguments.plot is not None:
        _picture(arguments.plot, None)
    from hesskern.demo import case, text  # noqa: PLC0415 - not needed by the other commands

    result = case.run(arguments.backend, say=say)
    try:
        if arguments.plot is not None:
            say("drawing")
            _picture(arguments.plot, result)
    finally:  # what was computed is shown, also where the disk was full or Ctrl-C came
        print(to_json(result.as_dict()) if arguments.json else text.describe(result), flush=True)
    for failure in result.failures:
        print(f"hesskern demo: {failure}.", file=sys.stderr)
    return DONE if result.ok else NOT_WELL


def _info(arguments: argparse.Namespace) -> int:
    _check_backend(None)
    from hesskern.backends.info import info  # noqa: PLC0415 - not needed by the other commands

    details = info()
    print(to_json(details) if arguments.json else _table(details), flush=True)
    return DONE


def _check_backend(name: str | None) -> None:
    if name is not None and name not in backends.host_names():
        raise RefusedError(f"--backend is {name!r}; expected one of {', '.join(map(repr, backends.host_names()))}.")
    try:
        backends.get(name)
    except (ValueError, ImportError) as error:  # HESSKERN_BACKEND is wrong, or the backend cannot be loaded
        raise RefusedError(str(error)) from error


def _picture(path: str, result: Demo | None) -> None:
    """Write the picture; if there is nothing to draw yet, only check that it can be written."""
    from hesskern import plot  # noqa: PLC0415 - not needed by the other commands

    try:
        if result is None:
            plot.check_path(path)
        else:
            plot.save_demo(result, path)
    except (ImportError, ValueError) as error:
        raise RefusedError(f"--plot: {error}") from error
    except OSError as error:
        raise RefusedError(f"--plot: cannot write {path!r}: {reason(error)}.") from error


def _table(details: dict[str, Any]) -> str:
    rows: list[tuple[str, str]] = []
    for name, value in details.items():
        label = name.replace("_", " ")
        if isinstance(value, dict):
            rows += [(key, "not installed" if item is None else str(item)) for key, item in value.items()]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            rows += [(label, ", ".join(f"{key} {part}" for key, part in item.items())) for item in value]
        elif isinstance(value, list):
            rows.append((label, ", ".join(map(str, value))))
        else:
            rows.append((label, "none" if value is None else str(value)))
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {text}".rstrip() for label, text in rows)


def _refuse(why: str, code: int) -> int:
    print(f"hesskern: {why}", file=sys.stderr)
    return code


def _discard_output() -> None:
    """Discard the buffered output of stdout; otherwise the interpreter fails on it again when it ends."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: stdout is no real file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
