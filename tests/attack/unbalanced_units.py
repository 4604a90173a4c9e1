"""The group "unbalanced": wide layers whose units differ by orders of magnitude; residuals by `attack.unbalanced`."""

from __future__ import annotations

import numpy as np

from attack.judge import Judge

BACKENDS = ("cpp", "cpp", "numba", "numpy")


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Judge eigenvalues, eigenvectors and solutions of one part of one Hessian; `everything`: of all three."""
    from attack import unbalanced

    rng = np.random.default_rng([12, seed])
    judge, problem = Judge(), unbalanced.draw(seed)
    drawn = BACKENDS[int(rng.integers(0, len(BACKENDS)))]
    backend = backend or drawn
    modes = ("full", "gauss_newton", "functional")
    for mode in modes if everything else (modes[rng.integers(0, 3)],):
        with judge.check(f"unbalanced {mode}/{backend}"):
            try:
                residuals = unbalanced.residuals(problem, mode, backend)
            except np.linalg.LinAlgError as error:
                judge.true(len(str(error)) > 20, "LinAlgError without a sentence")
                continue
            for name, value in residuals.items():
                judge.ratio(value, 1.0, name)
    widths = "-".join(map(str, [problem.X.shape[1], *map(len, problem.weights)]))
    judge.wrong = [
        f"{sentence} [{widths}, 10^{problem.exponents}, params {problem.selected}]" for sentence in judge.wrong
    ]
    return judge
