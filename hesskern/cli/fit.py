"""The command ``hesskern fit``: train a network from files, and write it and its history to files."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import os
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hesskern import backends
from hesskern._base import atomic_write, checks
from hesskern.cli.common import (
    DONE,
    INTERRUPTED,
    NOT_WELL,
    REFUSED,
    RefusedError,
    check_output,
    one_line,
    to_json,
    write_output,
)
from hesskern.cli.matrix_files import read_matrix
from hesskern.cli.network_files import read_network
from hesskern.losses.squared import KINDS, SquaredLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.training.checkpoint import CheckpointWarning

if TYPE_CHECKING:
    from hesskern.training.fit import Run

_CODES = {"converged": DONE, "max_steps": DONE, "diverged": NOT_WELL, "interrupted": INTERRUPTED}

#: Options that name files to write, and pairs that may be one file: the result replaces the file it started from.
_WRITTEN = ("out", "history", "checkpoint")
_MAY_BE_ONE = {("net", "out"), ("resume", "checkpoint")}


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "fit",
        help="train a linear network by gradient descent",
        description="Train a linear network by (stochastic) gradient descent, with the update of torch.optim.SGD. "
        "Data are read from .npy, .npz (one array, or one with the name X or Y), .csv or .txt files, samples in rows. "
        "Ctrl-C ends the run, and the result so far is written. Exit code 1 if the run diverged.",
    )
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--net", metavar="FILE", help="network to start from, as LinearNetwork.save writes it (.npz)")
    start.add_argument("--widths", metavar="M0,M1,...", help="or a random network: inputs, hidden widths, outputs")
    parser.add_argument("--bias", action="store_true", help="with --widths: a bias in every layer")
    parser.add_argument(
        "--dtype", choices=["float64", "float32"], help="with --widths: precision of everything (default: float64)"
    )
    parser.add_argument("--X", metavar="FILE", required=True, help="inputs, (samples, inputs)")
    parser.add_argument("--Y", metavar="FILE", required=True, help="targets, (samples, outputs)")
    parser.add_argument("--kind", choices=KINDS, default="half_sum", help="kind of squared loss (default: %(default)s)")
    parser.add_argument(
        "--weight-decay",
        type=float,
        default=0.0,
        metavar="NUMBER",
        help="coefficient d of the penalty d/2 ‖θ‖², as in torch.optim.SGD (default: %(default)s)",
    )

    parser.add_argument("--lr", type=float, required=True, metavar="NUMBER", help="learning rate")
    parser.add_argument(
        "--max-steps", type=int, default=10_000, metavar="N", help="steps at most (default: %(default)s)"
    )
    parser.add_argument(
        "--rtol",
        type=float,
        metavar="NUMBER",
        help="converged when the loss is at most this number times the first loss",
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="samples in a step (default: all)")
    parser.add_argument("--no-shuffle", action="store_true", help="take the samples in their given order")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of random weights and of batches (default: %(default)s)"
    )
    parser.add_argument(
        "--momentum", type=float, default=0.0, metavar="NUMBER", help="as in torch.optim.SGD (default: %(default)s)"
    )
    parser.add_argument("--nesterov", action="store_true", help="Nesterov's momentum, as in torch.optim.SGD")
    parser.add_argument(
        "--record",
        default="loss",
        metavar="NAME,...",
        help='quantities in the history: loss, sharpness, "condition[1.weight]", ... (default: %(default)s)',
    )
    parser.add_argument(
        "--record-every", type=int, default=1, metavar="N", help="steps between records (default: %(default)s)"
    )
    parser.add_argument(
        "--reduce",
        choices=["auto", "none"],
        default="auto",
        help="train a smaller network with the same result where there is one, or never (default: %(default)s)",
    )
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help=f"one of {', '.join(backends.host_names())} (default: the variable HESSKERN_BACKEND, else cpp)",
    )
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar (default: on a terminal, if tqdm is installed)",
    )
    parser.add_argument("--checkpoint", metavar="FILE", help="write the state of the run here from time to time")
    parser.add_argument(
        "--checkpoint-every", type=int, metavar="N", help="steps between checkpoints (default: about a minute)"
    )
    parser.add_argument("--resume", metavar="FILE", help="continue from this checkpoint of the same run")

    parser.add_argument("--out", metavar="FILE", help="write the network to this .npz file")
    parser.add_argument("--history", metavar="FILE", help="write the recorded quantities to this .npz or .csv file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(command=fit_command, parser=parser)


def fit_command(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    _check_outputs(arguments)
    try:
        net = _network(arguments)
        X, Y = (read_matrix(getattr(arguments, name), name, net.dtype) for name in ("X", "Y"))
        loss = SquaredLoss(X, Y, arguments.kind, arguments.weight_decay)
        run, saved = _trained(arguments, net, loss)
    except (TypeError, ValueError, ImportError, FileNotFoundError) as error:
        raise RefusedError(f"{_as_option(one_line(error), arguments)}.") from error
    except OSError as error:
        raise RefusedError(f"{_as_option(one_line(error), arguments)}.") from error

    try:
        if arguments.out is not None:
            write_output(arguments.out, "--out", run.network.save)
        if arguments.history is not None:
            as_table = Path(arguments.history).suffix.lower() == ".csv"
            write_output(arguments.history, "--history", lambda path: _write_history(path, run.history, as_table))
    finally:  # what was reached is shown, also where the disk was full
        summary = _summary(run, net, loss)
        print(to_json(summary) if arguments.json else _text(summary), flush=True)
    if run.status == "diverged":
        print(f"hesskern fit: diverged after {run.steps} steps; try a smaller --lr.", file=sys.stderr)
    elif run.status == "interrupted":
        print("hesskern: interrupted", file=sys.stderr)
    return _CODES[run.status] if saved else REFUSED


def _as_option(message: str, arguments: argparse.Namespace) -> str:
    """Return the library's message, with the option instead of the argument at its beginning."""
    name, blank, following = message.partition(" ")
    following = following.replace("but X has", "but --X has")
    return f"--{name.replace('_', '-')}{blank}{following}" if name in vars(arguments) else message


def _check_outputs(arguments: argparse.Namespace) -> None:
    for option, suffixes in (("out", (".npz",)), ("history", (".npz", ".csv"))):
        path = getattr(arguments, option)
        if path is not None:
            check_output(path, f"--{option}", suffixes)
    path = arguments.checkpoint
    if path is not None and os.path.lexists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        # A device or a pipe would be replaced by the checkpoint; the library refuses folders.
        raise RefusedError(f"--checkpoint is {path!r}, which exists and is not an ordinary file.")
    first_options: dict[str, str] = {}
    for option in ("X", "Y", "net", "resume", *_WRITTEN):
        path = getattr(arguments, option)
        if path is None:
            continue
        first = first_options.setdefault(os.path.realpath(path), option)
        if option in _WRITTEN and first != option and (first, option) not in _MAY_BE_ONE:
            raise RefusedError(f"--{option} and --{first} are both {path!r}; expected different files.")


def _network(arguments: argparse.Namespace) -> LinearNetwork:
    if arguments.widths is not None:
        if not re.fullmatch(r"\d+(,\d+)+", arguments.widths):
            raise RefusedError(f"--widths is {arguments.widths!r}; expected numbers like 5,100,5.")
        widths = [int(width) for width in arguments.widths.split(",")]
        seed = checks.integer(arguments.seed, "seed", 0)
        dtype = np.float32 if arguments.dtype == "float32" else np.float64
        try:
            return LinearNetwork.random(widths, seed=seed, bias=arguments.bias, dtype=dtype)
        except ValueError as error:
            raise RefusedError(f"--widths is {arguments.widths!r}: {one_line(error)}.") from error
    for option in ("bias", "dtype"):
        if getattr(arguments, option):
            raise RefusedError(f"--{option} needs --widths; the network of --net has its own.")
    return read_network(arguments.net)


def _trained(arguments: argparse.Namespace, net: LinearNetwork, loss: SquaredLoss) -> tuple[Run, bool]:
    """Return the run, and whether its last checkpoint was written."""
    from hesskern.training.fit import fit  # noqa: PLC0415 - not needed by the other commands

    progress = arguments.progress
    if progress is None:
        progress = sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        run = fit(
            net,
            loss,
            lr=arguments.lr,
            max_steps=arguments.max_steps,
            rtol=arguments.rtol,
            batch_size=arguments.batch_size,
            shuffle=not arguments.no_shuffle,
            seed=arguments.seed,
            momentum=arguments.momentum,
            nesterov=arguments.nesterov,
            record=[name.strip() for name in re.split(r",(?![^\[]*\])", arguments.record)],
            record_every=arguments.record_every,
            reduce=arguments.reduce,
            backend=arguments.backend,
            progress=progress,
            checkpoint=arguments.checkpoint,
            checkpoint_every=arguments.checkpoint_every,
            resume=arguments.resume,
        )
    saved = True
    for warning in caught:
        if issubclass(warning.category, UserWarning | CheckpointWarning):  # an overflow is told as divergence
            print(f"hesskern: {warning.message}", file=sys.stderr)
        if isinstance(warning.message, CheckpointWarning):
            saved = saved and not warning.message.last
    return run, saved


def _summary(run: Run, net: LinearNetwork, loss: SquaredLoss) -> dict[str, Any]:
    """Return the result as it is printed in JSON."""
    reduction = run.reduction
    return {
        "status": run.status,
        "steps": run.steps,
        "network": repr(run.network),
        "samples": len(loss.X),
        "first_loss": float(loss(net)),
        "loss": float(loss(run.network)),
        "reduction": {
            "samples": reduction.samples,
            "widths": reduction.widths,
            "leak": reduction.leak,
            "unbalanced": reduction.unbalanced,
            "text": str(reduction),
        },
        "records": len(run.history["step"]),
        "last_record": {
            name: column[-1].item() for name, column in run.history.items() if column.ndim == 1 and len(column)
        },
    }


def _text(summary: dict[str, Any]) -> str:
    endings = {
        "converged": "converged after {} steps",
        "max_steps": "stopped after {} steps, the most allowed",
        "diverged": "diverged; the last network with a finite loss is the one after {} steps",
        "interrupted": "interrupted after {} steps",
    }
    samples = summary["samples"]
    lines = [
        f"{summary['network']}, {samples} sample{'s' if samples != 1 else ''}",
        f"{endings[summary['status']].format(summary['steps'])}",
        f"loss {summary['first_loss']:.6g} -> {summary['loss']:.6g}",
    ]
    if summary["reduction"]["text"]:
        leak = summary["reduction"]["leak"]
        lines.append(f"trained as {summary['reduction']['text']}" + (f" (leak {leak:.1e})" if leak else ""))
    last = {name: value for name, value in summary["last_record"].items() if name not in ("step", "loss")}
    if last:
        values = ", ".join(f"{name} {value:.6g}" for name, value in last.items())
        lines.append(f"at step {summary['last_record']['step']}: {values}")
    return "\n".join(lines)


def _write_history(path: str, history: dict[str, NDArray[Any]], as_table: bool) -> None:
    if as_table:
        atomic_write.write(path, "--history", lambda file: _write_table(file, history))
    else:
        atomic_write.write(path, "--history", lambda file: np.savez(file, allow_pickle=False, **history))


def _write_table(file: BinaryIO, history: dict[str, NDArray[Any]]) -> None:
    columns: dict[str, NDArray[Any]] = {}
    for name, values in history.items():
        if values.ndim == 1:
            columns[name] = values
        else:
            columns |= {f"{name}.{k}": values[:, k] for k in range(values.shape[1])}
    text = io.TextIOWrapper(file, newline="", encoding="utf-8")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    text.detach()  # flushed, and left open
