"""Edge of stability: full-batch gradient descent drives the sharpness up to 2/lr, and there it stays.

    python edge_of_stability.py [edge_of_stability.png]

The data have features of very different size, and the small ones carry much of the target. Large features are learned
first; learning the small ones takes larger weights, and those sharpen the loss in the direction of the large features
all along (progressive sharpening). Where the sharpness passes 2/lr, that direction oscillates until it is flat enough.
The loss falls all the same, though not at every step.
"""

import sys

import numpy as np
from matplotlib.figure import Figure

import hesskern as hk
from hesskern.plot import BLUE, GREEN, GREY, VERMILION

FEATURES, OUTPUTS, SAMPLES = 20, 3, 200
STEPS = 1500
RATES = {0.7: VERMILION, 0.45: BLUE, 0.3: GREEN, 0.15: GREY}


def problem() -> tuple[hk.LinearNetwork, hk.SquaredLoss]:
    """Return a network of depth 3 and its loss."""
    rng = np.random.default_rng(0)
    sizes = np.geomspace(1.0, 0.03, FEATURES)
    X = sizes * rng.standard_normal((SAMPLES, FEATURES))
    teacher = rng.standard_normal((FEATURES, OUTPUTS)) / np.sqrt(FEATURES) / sizes[:, None] ** 0.8
    net = hk.LinearNetwork.random([FEATURES, 20, 20, OUTPUTS], seed=0)
    return net, hk.SquaredLoss(X, X @ teacher, kind="mean")


def main(path: str) -> None:
    """Train with each learning rate and draw sharpness and loss."""
    net, loss = problem()
    runs = hk.fit_ensemble([net] * len(RATES), loss, lr=list(RATES), max_steps=STEPS, record=("loss", "sharpness"))
    steps, sharpness = runs.history["step"], runs.history["sharpness"]
    ratio = sharpness / runs.history["2/lr"]

    figure = Figure(figsize=(11, 4.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for k, (rate, color) in enumerate(RATES.items()):
        low, high = ratio[k, STEPS // 2 :].min(), ratio[k, STEPS // 2 :].max()
        print(f"lr = {rate}: sharpness from {low:.3f} to {high:.3f} times 2/lr in the second half")
        left.plot(steps, sharpness[k], color=color, linewidth=1.6)
        left.axhline(2 / rate, color="black", linewidth=0.8, linestyle=(0, (6, 4)))
        left.text(1.01 * STEPS, 2 / rate, f"2/{rate:g}", color=color, va="center")
        right.semilogy(steps, runs.history["loss"][k], color=color, linewidth=1.4, label=f"lr = {rate:g}")
    left.set(xlabel="step", ylabel="largest eigenvalue of the Hessian", xlim=(0, STEPS), ylim=(0, None))
    right.set(xlabel="step", ylabel="loss", xlim=(0, STEPS))
    left.set_title("Sharpness, and 2/lr (dashed)", loc="left", fontweight="bold")
    right.set_title("Loss", loc="left", fontweight="bold")
    right.legend(frameon=False)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "edge_of_stability.png")
