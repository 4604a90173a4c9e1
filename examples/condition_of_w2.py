"""Condition number of the Hessian with respect to W_2 after training: against the hidden width, and against κ(X).

    python condition_of_w2.py [condition_of_w2.png]

At a minimum of a two-layer network the nonzero spectrum of that block is the one of X M X.T with M = W_1.T W_1. For two
ways to start, theory says what M is, and neither answer depends on the width:

- Normal weights of variance 1, wide: W_1 hardly moves and M is nearly a multiple of I, so the condition number goes to
  κ(X)² (a narrow W_1 is itself badly conditioned, which comes on top).
- Weights near 0: the layers stay balanced, M = (P.T P)^(1/2) with P = W_2 W_1, the map that is learned.

The stars are the case of `hesskern.datasets.two_layer_case`, once with its own learning rate, beyond 2/λ_max, and once
below it. Lines are medians over networks, data and targets; the shaded bands reach from quartile to quartile.
"""

import sys

import numpy as np
from matplotlib.figure import Figure

import hesskern as hk
from hesskern.plot import BLUE, GREY, VERMILION

SIZE, SEEDS = 5, 50  # inputs and outputs; networks for each point
WIDTHS = (5, 6, 8, 10, 15, 20, 30, 50, 100, 200, 500, 1000)
KAPPAS = (1, 2, 3, 5, 7, 10, 15, 20, 30)
STARTS = {"weights of variance 1": (1.0, BLUE), "weights near 0": (1e-3, VERMILION)}


def problem(width: int, kappa: float, scale: float, seed: int) -> tuple[hk.LinearNetwork, hk.SquaredLoss, float, float]:
    """Return a network, its loss, a learning rate, and the condition number that balanced layers would have."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0] for _ in range(2))
    X = u * np.linspace(1, kappa, SIZE) @ v
    P = rng.standard_normal((SIZE, SIZE))
    loss = hk.SquaredLoss(X, X @ P.T)
    net = hk.LinearNetwork([scale * rng.standard_normal((width, SIZE)), scale * rng.standard_normal((SIZE, width))])
    _, s, right = np.linalg.svd(P)
    lr = 1 / (loss.hessian(net).spectrum().max + 2 * s[0] * kappa**2)  # about the sharpness, start and end
    return net, loss, lr, np.linalg.cond(X @ (right.T * s @ right) @ X.T)


def trained(width: int, kappa: float, scale: float) -> tuple[np.ndarray, float]:
    """Return the quartiles of the condition numbers after training, and the median of those predicted."""
    nets, losses, rates, predicted = zip(*(problem(width, kappa, scale, seed) for seed in range(SEEDS)), strict=True)
    runs = hk.fit_ensemble(nets, losses, lr=rates, max_steps=2_000_000, rtol=1e-12, record=())
    if not (runs.status == "converged").all():
        raise RuntimeError(f"width {width}, κ(X) = {kappa}: {runs}")
    found = [loss.hessian(runs.network(k), params=[1]).cond() for k, loss in enumerate(losses)]
    return np.quantile(found, [0.25, 0.5, 0.75]), float(np.median(predicted))


def case(multiple: float | None = None) -> float:
    """Return the condition number the case ends at: with its own learning rate, or this multiple of 1/λ_max."""
    given = hk.datasets.two_layer_case()
    loss = hk.SquaredLoss(given.X, given.Y)
    lr = given.lr if multiple is None else multiple / loss.hessian(given.network).spectrum().max
    run = hk.fit(given.network, loss, lr=lr, max_steps=10_000, rtol=given.rtol)
    return loss.hessian(run.network, params=[1]).cond()


def main(path: str) -> None:
    """Train for every width and every κ(X), and draw."""
    figure = Figure(figsize=(11, 4.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for ax, at, problems in (
        (left, WIDTHS, [(width, 10) for width in WIDTHS]),
        (right, KAPPAS, [(100, kappa) for kappa in KAPPAS]),
    ):
        for name, (scale, color) in STARTS.items():
            quartiles, predicted = zip(*(trained(*each, scale) for each in problems), strict=True)
            low, median, high = np.transpose(quartiles)
            for (width, kappa), seen, expected in zip(problems, median, predicted, strict=True):
                print(f"{name}, width {width}, kappa(X) = {kappa}: median {seen:.4g}, balanced {expected:.4g}")
            ax.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
            ax.loglog(at, median, "o-", color=color, linewidth=1.4, markersize=4, label=name)
            if scale < 1:
                ax.plot(at, predicted, "--", color="black", linewidth=1, label="balanced layers, theory")
        ax.plot(at, [kappa**2 for _, kappa in problems], ":", color="black", label="κ(X)², theory for wide networks")
        ax.set_ylabel("condition number of the W₂ block")
        ax.spines[["top", "right"]].set_visible(False)
    star = {"color": GREY, "markersize": 13}
    left.plot(100, case(), "*", **star, label=f"the case: {case():.0f}")
    left.plot(100, case(1), "*", **star, markerfacecolor="white", label=f"the case, lr = 1/λ_max: {case(1):.0f}")
    left.set_xlabel("hidden width")
    right.set_xlabel("κ(X)")
    left.set_title("κ(X) = 10", loc="left", fontweight="bold")
    right.set_title("width 100", loc="left", fontweight="bold")
    left.legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "condition_of_w2.png")
