"""The command ``hesskern explain``: say why a matrix, a spectrum or a number differs from the Hessian's.

Exit codes: 0 it matches, 1 the cause was found, 2 no known cause explains the difference, 3 it cannot be compared (bad
input, a size that no choice of parameters has, NaN).
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hesskern import datasets
from hesskern._base import array_files
from hesskern._base.optional_torch import TorchUnavailableError, load_torch
from hesskern.cli.common import RefusedError, one_line, reason, to_json
from hesskern.cli.matrix_files import SUFFIXES, read_array, read_matrix
from hesskern.cli.network_files import read_network
from hesskern.losses.squared import KINDS, SquaredLoss
from hesskern.network.linear_network import LinearNetwork

if TYPE_CHECKING:
    from hesskern.explanation import Explanation

_CODES = {"match": 0, "explained": 1, "unexplained": 2, "invalid": 3}
_BAD_INPUT = 3
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "explain",
        help="why a Hessian disagrees",
        description="Say why a Hessian differs from the exact one: transposed data, another order, a factor, a missing "
        "part, fewer digits. The command also explains eigenvalues alone, or only a condition number, a rank or a "
        "largest eigenvalue. Exit code 0 if it matches, 1 if the cause was found, 2 if no known cause explains it, "
        "3 if there is no answer: bad input, not enough memory, or no space for the output.",
    )
    parser.refused = _BAD_INPUT
    parser.add_argument(
        "candidate",
        metavar="CANDIDATE",
        help=f"a matrix or eigenvalues in a file ({', '.join(SUFFIXES)}, .pt), or a number with all its digits",
    )
    parser.add_argument("--net", metavar="FILE", help="the network, as LinearNetwork.save writes it (.npz)")
    parser.add_argument("--X", metavar="FILE", help="inputs, (samples, inputs)")
    parser.add_argument("--Y", metavar="FILE", help="targets, (samples, outputs)")
    parser.add_argument(
        "--case", action="store_true", help="use the trained network and data of hesskern demo, with --params 1"
    )
    parser.add_argument("--kind", choices=KINDS, default="half_sum", help="kind of squared loss (default: %(default)s)")
    parser.add_argument("--weight-decay", type=float, default=0.0, metavar="NUMBER")
    parser.add_argument(
        "--params", metavar="NAME,...", help="layers counted from 0, or names like 1.weight (default: all)"
    )
    parser.add_argument(
        "--quantity", choices=["condition", "rank", "largest"], help="kind of the number (default: any)"
    )
    parser.add_argument(
        "--other-net",
        metavar="FILE",
        action="append",
        default=[],
        help="another network whose weights may have been used; may be repeated",
    )
    parser.add_argument("--lr", type=float, metavar="NUMBER", help="learning rate, if the weights may be one step off")
    parser.add_argument("--batch-size", type=int, metavar="N", help="size of the minibatches that were used")
    parser.add_argument("--plot", metavar="FILE", help="also draw the difference before and after: .png, .svg, .pdf")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(command=explain, parser=parser)


def explain(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if arguments.plot is not None:
        _picture(arguments.plot, None)
    candidate = _candidate(arguments.candidate)
    if arguments.plot is not None and getattr(candidate, "ndim", 0) != 2:
        raise RefusedError("--plot draws a matrix, not a number or a list of eigenvalues; leave it out.")
    net, loss, params = _problem(arguments)
    from hesskern import explanation  # noqa: PLC0415 - not needed by the other commands

    try:
        why = explanation.explain(
            candidate,
            net,
            loss,
            params,
            quantity=arguments.quantity,
            trajectory=[read_network(path, "--other-net") for path in arguments.other_net],
            lr=arguments.lr,
            batch_size=arguments.batch_size,
        )
    except (TypeError, ValueError) as error:
        raise RefusedError(f"{one_line(error)}.") from error
    try:
        if arguments.plot is not None:
            _picture(arguments.plot, why)
    finally:  # what was found is shown, also where the disk was full
        print(to_json(why.as_dict()) if arguments.json else str(why), flush=True)
    return _CODES[why.status]


def _candidate(text: str) -> object:
    if _NUMBER.fullmatch(text):
        return text
    if Path(text).suffix.lower() in (".pt", ".pth"):
        return _tensor(text)
    if not os.path.splitext(text)[1]:
        raise RefusedError(f"CANDIDATE is {text!r}; expected a number, or a file {', '.join(SUFFIXES)} or .pt.")
    array = read_array(text, "H", "CANDIDATE", (".pt",))
    return array.ravel() if array.ndim == 2 and 1 in array.shape and array.size > 1 else array


def _tensor(path: str) -> object:
    try:
        torch = load_torch()
        with array_files.ordinary(path) as file:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except TorchUnavailableError as error:
        raise RefusedError(f"CANDIDATE is {path!r}, which only PyTorch can read. {error}.") from error
    except OSError as error:
        raise RefusedError(f"CANDIDATE: cannot read {path!r}: {error.strerror or one_line(error)}.") from error
    except Exception as error:  # whatever unpickling raises
        raise RefusedError(f"CANDIDATE: {path!r} holds no tensor: {type(error).__name__}.") from error
    if not isinstance(loaded, torch.Tensor):
        raise RefusedError(
            f"CANDIDATE: {path!r} holds a {type(loaded).__name__}; expected one tensor, torch.save(H, path)."
        )
    array = loaded.detach()
    if array.dtype == torch.bfloat16:  # NumPy has no such numbers; float32 has all of them
        array = array.float()
    try:
        numbers: object = array.resolve_conj().resolve_neg().numpy()
        return numbers
    except (TypeError, RuntimeError) as error:  # sparse, quantised, on no device
        raise RefusedError(f"CANDIDATE: {path!r} holds a tensor that NumPy cannot read: {one_line(error)}.") from error


def _problem(arguments: argparse.Namespace) -> tuple[LinearNetwork, SquaredLoss, list[int | str] | None]:
    params: list[int | str] | None = None
    if arguments.params is not None:
        params = [int(name) if name.strip().isdigit() else name.strip() for name in arguments.params.split(",")]
    files = [option for option in ("net", "X", "Y") if getattr(arguments, option) is not None]
    try:
        if arguments.case:
            if files:
                raise RefusedError(f"--case has its own network and data; leave out --{files[0]}.")
            net, loss = _case()
            return net, loss, [1] if params is None else params
        if len(files) < 3:
            missing = next(option for option in ("net", "X", "Y") if option not in files)
            raise RefusedError(f"--{missing} is missing; expected --net, --X and --Y, or --case.")
        net = read_network(arguments.net)
        X, Y = (read_matrix(getattr(arguments, name), name, net.dtype) for name in ("X", "Y"))
        loss = SquaredLoss(X, Y, arguments.kind, arguments.weight_decay)
        loss.check_network(net)
    except (TypeError, ValueError) as error:
        raise RefusedError(f"{one_line(error)}.") from error
    return net, loss, params


def _case() -> tuple[LinearNetwork, SquaredLoss]:
    from hesskern.training.fit import fit  # noqa: PLC0415 - not needed by the other commands

    case = datasets.two_layer_case()
    loss = SquaredLoss(np.ascontiguousarray(case.X), np.ascontiguousarray(case.Y))
    return fit(case.network, loss, lr=case.lr, max_steps=10_000, rtol=case.rtol).network, loss


def _picture(path: str, why: Explanation | None) -> None:
    """Write the picture; if there is nothing to draw yet, only check that it can be written."""
    from hesskern import plot  # noqa: PLC0415 - not needed by the other commands

    try:
        if why is None:
            plot.check_path(path)
        else:
            plot.save_explanation(why, path)
    except (ImportError, ValueError) as error:
        raise RefusedError(f"--plot: {error}") from error
    except OSError as error:
        raise RefusedError(f"--plot: cannot write {path!r}: {reason(error)}.") from error
