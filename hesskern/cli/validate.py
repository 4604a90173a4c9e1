"""The command ``hesskern validate``: everything against autograd, on the user's network or on the built-in ones."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from typing import Any

from hesskern import backends
from hesskern.cli.common import DONE, INTERRUPTED, NOT_WELL, RefusedError, one_line, say, to_json
from hesskern.cli.matrix_files import read_matrix
from hesskern.cli.network_files import read_network
from hesskern.losses.squared import KINDS, SquaredLoss


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "validate",
        help="compare everything with PyTorch's autograd",
        description="Compare loss, gradient, Hessians, products, spectra, condition numbers and training of every "
        "backend with PyTorch's autograd in float64 and with a third witness. Without --net it uses a built-in set of "
        "networks. Exit code 1 if anything disagrees. After Ctrl-C the results so far are shown.",
    )
    parser.add_argument("--net", metavar="FILE", help="network, as LinearNetwork.save writes it (.npz)")
    parser.add_argument("--X", metavar="FILE", help="with --net: inputs, (samples, inputs)")
    parser.add_argument("--Y", metavar="FILE", help="with --net: targets, (samples, outputs)")
    parser.add_argument("--kind", choices=KINDS, help="with --net: kind of squared loss (default: half_sum)")
    parser.add_argument("--weight-decay", type=float, metavar="NUMBER", help="with --net (default: 0)")
    parser.add_argument(
        "--problem",
        action="append",
        metavar="NAME",
        help='only this built-in network, for instance "the case"; may be repeated',
    )
    parser.add_argument(
        "--backend",
        action="append",
        metavar="NAME",
        help=f"one of {', '.join(backends.host_names())}; may be repeated (default: all that are installed)",
    )
    parser.add_argument(
        "--directions",
        type=int,
        default=3,
        metavar="N",
        help="random vectors for large matrices (default: %(default)s)",
    )
    parser.add_argument(
        "--dense-size",
        type=int,
        default=1000,
        metavar="P",
        help="largest number of parameters for comparing whole matrices (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the random vectors (default: %(default)s)"
    )
    parser.add_argument(
        "--rows", action="store_true", help="print one line for each quantity, also for several networks"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar (default: on a terminal, if tqdm is installed)",
    )
    parser.set_defaults(command=validate, parser=parser)


def validate(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    try:
        net, loss = _network_and_loss(arguments)
        say("loading PyTorch, which takes seconds")
        from hesskern import validation  # noqa: PLC0415 - not needed by the other commands

        report = validation.validate(
            net,
            loss,
            backends=arguments.backend,
            problems=arguments.problem,
            directions=arguments.directions,
            dense_size=arguments.dense_size,
            seed=arguments.seed,
            progress=_progress(arguments.progress),
        )
    except (TypeError, ValueError, ImportError) as error:
        raise RefusedError(f"{_as_option(one_line(error))}.") from error
    print(to_json(report.as_dict()) if arguments.json else report.text(every=arguments.rows or None), flush=True)
    if report.interrupted:
        print("hesskern: interrupted", file=sys.stderr)
        return INTERRUPTED
    for row in report.failures[:1]:
        print(f"hesskern validate: {len(report.failures)} disagree, the first: {row.quantity}.", file=sys.stderr)
    return DONE if report.ok else NOT_WELL


def _network_and_loss(arguments: argparse.Namespace) -> tuple[Any, SquaredLoss | None]:
    """Return the user's network and loss, or neither."""
    if arguments.net is None:
        for option in ("X", "Y", "kind", "weight_decay"):
            if getattr(arguments, option) is not None:
                raise RefusedError(f"--{option.replace('_', '-')} needs --net; without it built-in networks are used.")
        return None, None
    for option in ("X", "Y"):
        if getattr(arguments, option) is None:
            raise RefusedError(f"--net is given, but --{option} is not; expected --net, --X and --Y together.")
    net = read_network(arguments.net)
    X, Y = (read_matrix(getattr(arguments, name), name, net.dtype) for name in ("X", "Y"))
    return net, SquaredLoss(X, Y, arguments.kind or "half_sum", arguments.weight_decay or 0.0)


def _progress(choice: bool | None) -> bool:
    if choice is None:
        return sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None
    return choice


#: Option of the command line for each argument of the library.
_OPTIONS = {
    "backend": "--backend",
    "problems": "--problem",
    "directions": "--directions",
    "dense_size": "--dense-size",
    "seed": "--seed",
    "weight_decay": "--weight-decay",
    "X": "--X",
    "Y": "--Y",
}


def _as_option(message: str) -> str:
    """Return the library's message, with the option instead of the argument at its beginning."""
    name, blank, following = message.partition(" ")
    return f"{_OPTIONS.get(name, name)}{blank}{following}"
