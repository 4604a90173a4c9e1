"""Which Hessian is that? Three wrong ones of the same network, and what `hesskern.explain` says of them.

    python which_hessian.py [which_hessian.png]

A 5-8-4 network with biases. Somebody has its Hessian with columns stacked, the Gauss-Newton matrix of the sum of
squares from a Jacobian, and the Hessian of a minibatch in float32. Each picture is the difference from the true
Hessian, block by block, before and after what `explain` found is undone: what is left is rounding, or nothing.
"""

import sys

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

import hesskern as hk

FLOOR = 1e-17


def main(path: str) -> None:
    """Explain each matrix and draw the differences."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((40, 5)), rng.standard_normal((40, 4))
    net, loss = hk.LinearNetwork.random([5, 8, 4], seed=0, bias=True), hk.SquaredLoss(X, Y, kind="mean")
    H = loss.hessian(net)
    batch = hk.SquaredLoss(X[-8:], Y[-8:], kind="mean").hessian(net).toarray()
    outputs, hidden = np.eye(4), X @ net.weights[0].T + net.biases[0]
    pieces = [
        np.einsum("or,ns->nors", top, below).reshape(160, -1)
        for top, inner in ((net.weights[1], X), (outputs, hidden))
        for below in (inner, np.ones((40, 1)))
    ]
    jacobian = np.hstack(pieces)
    theirs = {
        "columns stacked": H.toarray(vec="column"),
        "Gauss-Newton, from a Jacobian": jacobian.T @ jacobian,
        "last batch, in float32": batch.astype(np.float32).astype(np.float64),
    }

    figure = Figure(figsize=(11, 4.4), dpi=110, layout="constrained")
    axes = figure.subplots(2, len(theirs))
    for (name, matrix), (above, below) in zip(theirs.items(), axes.T, strict=True):
        why = hk.explain(matrix, net, loss)
        print(f"{name}: {', '.join(finding.cause for finding in why.findings)}; {why.before:.1e} -> {why.after:.1e}")
        above.set_title(name, loc="left", fontweight="bold")
        for ax, expected in ((above, why.matrices.truth()), (below, why.matrices.model())):
            gap = np.abs(matrix - expected) / np.abs(matrix).max()
            image = ax.imshow(np.maximum(gap, FLOOR), norm=LogNorm(FLOOR, 1.0), cmap="viridis", interpolation="nearest")
            ends = np.array([*why.matrices.starts[1:], len(gap)])
            middles = (np.array(why.matrices.starts) + ends) / 2
            ax.set_yticks(middles - 0.5, why.matrices.names)
            ax.set_xticks([])
            ax.tick_params(length=0)
            for edge in ends[:-1]:
                ax.axhline(edge - 0.5, color="white", linewidth=0.8)
                ax.axvline(edge - 0.5, color="white", linewidth=0.8)
        below.set_xlabel(f"{why.before:.2g} before, {why.after:.1g} after")
    axes[0, 0].set_ylabel("before")
    axes[1, 0].set_ylabel("after")
    figure.colorbar(image, ax=axes, label="difference / largest entry")
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "which_hessian.png")
