"""The demo's results in words, ASCII only, so that they print on any terminal."""

from __future__ import annotations

from hesskern._core import version
from hesskern.demo.results import Demo

_NAME, _NUMBER = 40, 12


def describe(demo: Demo) -> str:
    """Return the report of one run of the demo."""
    parts = [_title(demo), _training(demo), _conditions(demo), _why(demo), _rank(demo), _times(demo), _verdict(demo)]
    return "\n\n".join(parts)


def _title(demo: Demo) -> str:
    kernels = f"{demo.backend} backend" + (f", {demo.isa}" if demo.backend == "cpp" else "")
    return (
        f"hesskern {version} ({kernels})\n"
        "The condition number of the Hessian of a 5-100-5 linear network with respect to W_2, at the minimum:\n"
        "autograd said 174, the formula 5345. Everything below was computed just now."
    )


def _training(demo: Demo) -> str:
    relative = demo.losses / demo.losses[0]
    peak = int(relative.argmax())
    lines = [f"Training: {demo.steps} epochs, {demo.status}; the last loss is {relative[-1]:.3g} of the first."]
    if demo.lr > demo.stable_lr:
        lines += [
            f"The loss first climbs to {relative[peak]:.1f} times its start, in epoch {peak + 1} (a catapult):",
            f"the learning rate {demo.lr:.3g} is beyond 2/lambda_max = {demo.stable_lr:.3g} of the full Hessian there.",
        ]
    return "\n".join(lines)


def _conditions(demo: Demo) -> str:
    size = demo.condition.size
    lines = [f"{'Condition number, and rank of ' + str(size):<{_NAME}}{'value':>{_NUMBER}}{'rank':>7}"]

    def row(name: str, value: float, rank: int, note: str = "") -> None:
        lines.append(f"  {name:<{_NAME - 2}}{value:>{_NUMBER}.4f}{rank:>7}{'   ' + note if note else ''}")

    row("hesskern, from the factors", demo.condition.value, demo.condition.rank)
    if demo.autograd is not None:
        row("PyTorch autograd, row by row", demo.autograd.dense.cond, demo.autograd.dense.rank)
    else:
        lines.append(f"  {'PyTorch autograd, row by row':<{_NAME - 2}}{'-':>{_NUMBER}}{'-':>7}")
        lines.append(f"    {demo.autograd_missing}")
    row("the formula as posted, w1.dot(x)", demo.as_posted.cond, demo.as_posted.rank, "<- another matrix")
    row("the formula fixed, w1.dot(x.T)", demo.fixed.cond, demo.fixed.rank)
    if demo.autograd is not None:
        lines.append(
            "  At the same weights the dense Hessians of hesskern and autograd differ by "
            f"{demo.autograd.difference:.0e} of the largest entry."
        )
    return "\n".join(lines)


def _why(demo: Demo) -> str:
    return (
        "Why: autograd was right. The formula, (W_1 X X^T W_1^T) kron I_5, has samples in columns; the code has them\n"
        "in rows, as nn.Linear takes them. There X is x.T, so `w1.dot(x)` should be `w1.dot(x.T)`. The posted formula\n"
        "gives the Hessian for transposed data. x is square, 5 by 5, so both products exist, without an error."
    )


def _rank(demo: Demo) -> str:
    condition = demo.condition
    eigenvalues = ", ".join(f"{value:.4g}" for value in demo.values)
    repeated = "/".join(str(count) for count in sorted(set(demo.multiplicities.tolist())))
    return (
        f"Rank: {condition.rank} of {condition.size}. The nonzero eigenvalues are {eigenvalues}, "
        f"each {repeated} times; the other {condition.size - condition.rank}\n"
        "are exactly zero. numpy.linalg.cond of the dense matrix divides by one of their rounding errors and says "
        f"{demo.numpy_cond:.0e}."
    )


def _times(demo: Demo) -> str:
    them = demo.autograd
    threads = f", {them.threads} thread{'s' if them.threads != 1 else ''}" if them else ""
    heading = f"Time in ms, the best of {demo.repeats} runs"
    columns = f"{'hesskern':>{_NUMBER}}" + (f"{'PyTorch':>{_NUMBER}}{'ratio':>8}" if them else "")
    lines = [f"{heading:<{_NAME}}{columns}"]

    def row(name: str, own_seconds: float, autograd_seconds: float | None) -> None:
        text = f"  {name:<{_NAME - 2}}{1e3 * own_seconds:>{_NUMBER}.3f}"
        if autograd_seconds is not None:
            text += f"{1e3 * autograd_seconds:>{_NUMBER}.1f}{autograd_seconds / own_seconds:>8.0f}"
        lines.append(text)

    row(f"training, {demo.steps} epochs", demo.train_seconds, them and them.train_seconds)
    row("the dense Hessian", demo.hessian_seconds, them and them.hessian_seconds)
    row("its condition number", demo.cond_seconds, them and them.dense.seconds)
    if them:
        lines += [
            f"  PyTorch {them.version}{threads}: the training loop of the post, its Hessian row by row, NumPy's SVD",
            "  of that matrix. hesskern takes the condition number from the factors.",
        ]
    return "\n".join(lines)


def _verdict(demo: Demo) -> str:
    if demo.ok:
        who = "hesskern, autograd and the fixed formula" if demo.autograd else "hesskern and the fixed formula"
        return f"Verdict: {who} agree."
    return "Verdict: CHECKS FAILED.\n" + "\n".join(f"  {failure}" for failure in demo.failures)
