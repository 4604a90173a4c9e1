"""Your own loops: what `hesskern.numba` is for. Your own step size, many seeds in parallel, a look at every step.

    python own_loops.py [own_loops.png]

Left: Polyak's step, ``lr = loss/‖g‖²``, in a jitted loop of our own, against the constant rate 1/λ_max, on the data
of `hesskern.datasets.two_layer_case`. Right: 400 networks from random starts in a parallel loop, how many steps each
needs, and the loss that it starts with. Printed: a run that is stopped by a function of ours, called before every
step. The loops of this file are compiled each time it runs, which takes most of its time.
"""

import sys

import numba
import numpy as np
from matplotlib.figure import Figure

import hesskern as hk
import hesskern.numba as nb
from hesskern.plot import BLUE, GREY, VERMILION

STEPS, WIDTH = 20_000, 20


@numba.njit
def polyak(weights, X, Y, steps):
    """Descend with the step that would reach a loss of zero if the loss were linear; return the losses."""
    losses = np.empty(steps)
    for k in range(steps):
        losses[k], g = nb.value_and_gradient(weights, X, Y)
        nb.assign(weights, nb.flatten(weights) - losses[k] / (g @ g) * g)
        if losses[k] < 1e-20 * losses[0]:
            return losses[: k + 1]
    return losses


@numba.njit(parallel=True)
def seeds(count, X, Y, lr):
    """Train from `count` random starts at once; return the steps and the first loss of each."""
    steps, first = np.empty(count, np.int64), np.empty(count)
    for seed in numba.prange(count):
        np.random.seed(seed)
        weights = (np.random.standard_normal((WIDTH, 5)), np.random.standard_normal((5, WIDTH)))
        status, losses = nb.fit(weights, X, Y, lr, STEPS, 1e-6)
        steps[seed] = len(losses) if status == nb.CONVERGED else 0
        first[seed] = losses[0]
    return steps, first


@numba.njit
def grown(step, loss, theta):
    """Stop when the second layer has grown to 2/5 of the first (squared norms)."""
    half = len(theta) // 2
    return 2.5 * np.sum(theta[half:] ** 2) > np.sum(theta[:half] ** 2)


def main(path: str) -> None:
    """Run all three and draw the first two."""
    case = hk.datasets.two_layer_case()
    net = hk.LinearNetwork.random([5, WIDTH, 5], seed=0)
    rate = 1 / hk.SquaredLoss(case.X, case.Y).hessian(net).spectrum().max

    weights = tuple(weight.copy() for weight in net.weights)
    own = polyak(weights, case.X, case.Y, STEPS)
    weights = tuple(weight.copy() for weight in net.weights)
    _, constant = nb.fit(weights, case.X, case.Y, rate, STEPS, 1e-20)
    print(f"to 1e-20 of the first loss: {len(own)} steps of Polyak's, {len(constant)} with lr = {rate:.3g}")

    weights = tuple(weight.copy() for weight in net.weights)
    status, losses = nb.fit(weights, case.X, case.Y, rate, STEPS, callback=grown)
    assert status == nb.STOPPED
    print(
        f"the second layer has grown to 2/5 of the first after {len(losses) - 1} steps, at a loss of {losses[-1]:.4g}"
    )

    steps, first = seeds(400, case.X, case.Y, 4e-5)
    done = steps > 0
    print(f"{done.sum()} of {len(steps)} seeds converged, in {steps[done].min()} to {steps[done].max()} steps")

    figure = Figure(figsize=(11, 4.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.loglog(1 + np.arange(len(constant)), constant / constant[0], color=GREY, linewidth=1.6, label="lr = 1/λ_max")
    left.loglog(1 + np.arange(len(own)), own / own[0], color=VERMILION, linewidth=1.6, label="lr = loss/‖g‖²")
    left.set(xlabel="step, counted from 1", ylabel="loss / first loss")
    left.set_title("Your own step size", loc="left", fontweight="bold")
    left.legend(frameon=False)
    right.plot(first[done], steps[done], "o", color=BLUE, markersize=4, alpha=0.6, markeredgewidth=0)
    right.set(xlabel="first loss", ylabel="steps to 1e-6 of the first loss")
    right.set_title("400 seeds in a parallel loop", loc="left", fontweight="bold")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "own_loops.png")
