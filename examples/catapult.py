"""Catapult: beyond 2/λ_max the loss first climbs, and descent ends at a minimum that is flat enough for its step.

    python catapult.py [catapult.png]

The 5-100-5 network of `hesskern.datasets.two_layer_case`, trained with multiples of 1/λ_max, λ_max being the sharpness
at the start. Below 2/λ_max the loss falls at every step and the sharpness hardly changes. Beyond it the loss climbs,
the sharpness comes down, and once it stays below 2/lr the loss falls at every step. In theory (Lewkowycz et al. 2020,
one sample and a wide network) that works up to 4/λ_max; here a little further, and the case's own rate is close to the
limit.
"""

import sys

import numpy as np
from matplotlib.figure import Figure

import hesskern as hk
from hesskern.plot import BLUE, GREEN, GREY, VERMILION

ORANGE = "#E69F00"
END = 2000


def main(path: str) -> None:
    """Train with each learning rate and draw loss and sharpness."""
    case = hk.datasets.two_layer_case()
    loss = hk.SquaredLoss(case.X, case.Y)
    sharpest = loss.hessian(case.network).spectrum().max
    multiples = np.array([1.5, 3.0, 3.8, case.lr * sharpest, 5.0])
    runs = hk.fit_ensemble(
        [case.network] * len(multiples),
        loss,
        lr=multiples / sharpest,
        max_steps=END,
        rtol=case.rtol,
        record=("loss", "sharpness"),
    )

    figure = Figure(figsize=(11, 4.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = 1 + runs.history["step"]
    for k, color in enumerate((GREY, GREEN, BLUE, ORANGE, VERMILION)):
        losses, sharpness = runs.history["loss"][k], runs.history["sharpness"][k]
        times = f"{multiples[k]:.3g}"
        name = f"{times}/λ_max{' (the case)' if k == 3 else ''}"
        print(f"lr = {times}/lambda_max: {runs.status[k]} after {runs.steps[k]} steps")
        left.loglog(epochs, losses / losses[0], color=color, linewidth=1.6, label=name)
        right.semilogx(epochs, sharpness / sharpest, color=color, linewidth=1.6)
        if runs.status[k] == "converged":
            right.axhline(2 / multiples[k], color=color, linewidth=1, linestyle="--")
            right.text(1.05 * END, 2 / multiples[k], f"2/{times}", color=color, va="center")
    left.set(xlabel="step, counted from 1", ylabel="loss / first loss", xlim=(1, END), ylim=(1e-9, 1e4))
    right.set(xlabel="step, counted from 1", ylabel="sharpness / λ_max", xlim=(1, END), ylim=(0, 1.5))
    left.set_title("Loss", loc="left", fontweight="bold")
    right.set_title("Sharpness, and 2/lr (dashed)", loc="left", fontweight="bold")
    left.legend(frameon=False, title="lr", alignment="left")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "catapult.png")
