"""Networks with wide hidden layers whose units differ by orders of magnitude, drawn from a seed, and their Hessians.

Rows of W_l and the bias are multiplied by d, columns of W_{l+1} divided by it, one d for each hidden unit: the
predictions stay as they are, and so does the Hessian's accuracy if nothing mixes the units. The oracle is the
definition of each block in long double, written out with loops over layers and nothing from the package.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

import hesskern as hk

EPS = float(np.finfo(float).eps)
KINDS = ("half_sum", "sum", "mean")
#: d is drawn from 10^±e.
EXPONENTS = (0, 1, 2, 4, 6, 8, 10, 12, 16, 30, 60, 100, 150)
#: Widths with at least one hidden layer that is reduced; the second number is the most exponents that are not zero.
WIDTHS = (
    (2, 9, 2), (3, 20, 3), (3, 14, 2), (1, 8, 1), (4, 24, 1), (2, 12, 3, 2), (2, 3, 14, 2), (3, 18, 3, 3),
    (2, 9, 2, 8, 2), (3, 3, 16, 2), (2, 3, 11, 4, 2), (2, 12, 8, 2), (2, 3, 2, 10, 2, 2), (2, 8, 2, 8, 2, 7, 1),
    (3, 20, 3, 3, 3),
)  # fmt: skip


@dataclass
class UnbalancedProblem:
    """One problem; `seed` draws it again."""

    seed: int
    weights: list[np.ndarray]
    biases: list[np.ndarray | None]
    X: np.ndarray
    Y: np.ndarray
    kind: str
    decay: float
    selected: list[int]
    exponents: list[int]
    notes: list[str] = field(default_factory=list)

    def network(self) -> hk.LinearNetwork:
        return hk.LinearNetwork(self.weights, self.biases)

    def loss(self, backend: str | None = None) -> hk.SquaredLoss:
        return hk.SquaredLoss(self.X, self.Y, self.kind, weight_decay=self.decay, backend=backend)

    def hessian(self, mode: str = "full", backend: str | None = None) -> hk.Hessian:
        H = self.loss(backend).hessian(self.network(), self.selected)
        return H if mode == "full" else getattr(H, mode)()


def draw(seed: int, most: int = 150) -> UnbalancedProblem:
    """Return the problem of this seed, with exponents up to `most`."""
    rng = np.random.default_rng([seed, 18])
    widths = WIDTHS[rng.integers(len(WIDTHS))]
    depth = len(widths) - 1
    weights = [rng.standard_normal((widths[k + 1], widths[k])) for k in range(depth)]
    notes = []
    if rng.random() < 0.25:  # a rank-deficient weight
        k = int(rng.integers(depth))
        weights[k][:, 0] = 0.0 if rng.random() < 0.5 else weights[k][:, -1]
        notes.append(f"column 0 of weight {k} is zero or a copy")
    some_biases = rng.random() < 0.5
    biases = [rng.standard_normal(len(w)) if some_biases and rng.random() < 0.8 else None for w in weights]
    exponents = []
    for layer in range(depth - 1):
        e = int(rng.choice([x for x in EXPONENTS if x <= most])) if rng.random() < 0.8 else 0
        shape = rng.integers(3)
        if shape == 0:
            d = 10.0 ** rng.uniform(-e, e, widths[layer + 1])
        elif shape == 1:  # two sizes
            d = 10.0 ** (e * rng.choice([-1, 1], widths[layer + 1]))
        else:  # one unit stands out
            d = np.ones(widths[layer + 1])
            d[rng.integers(len(d))] = 10.0 ** (e * rng.choice([-1, 1]))
        weights[layer] *= d[:, None]
        weights[layer + 1] /= d
        if biases[layer] is not None:
            biases[layer] *= d
        exponents.append(e)
    samples = int(rng.integers(1, 12))
    X, Y = rng.standard_normal((samples, widths[0])), rng.standard_normal((samples, widths[-1]))
    if rng.random() < 0.2:  # features of different sizes
        X *= 10.0 ** rng.uniform(-3, 3, widths[0])
        notes.append("graded features")
    selected = sorted(rng.choice(depth, int(rng.integers(1, depth + 1)), replace=False).tolist())
    if rng.random() < 0.3:
        selected = list(range(depth))
    decay = 0.1 if rng.random() < 0.2 else 0.0
    return UnbalancedProblem(seed, weights, biases, X, Y, str(rng.choice(KINDS)), decay, selected, exponents, notes)


# The oracle ---------------------------------------------------------------------------------------------------------


def dense(problem: UnbalancedProblem, mode: str = "full") -> np.ndarray:
    """Return the Hessian's definition (P, P) in long double."""
    W = [w.astype(np.longdouble) for w in problem.weights]
    depth, samples = len(W), len(problem.X)
    ones = np.ones(samples, np.longdouble)
    z = [problem.X.astype(np.longdouble)]
    for w, b in zip(W, problem.biases, strict=True):
        z.append(_times(z[-1], w.T) + (0 if b is None else np.outer(ones, b.astype(np.longdouble))))
    error = z[-1] - problem.Y
    above = [np.eye(len(W[-1]), dtype=np.longdouble)]
    for w in W[:0:-1]:
        above.insert(0, _times(above[0], w))
    scale = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[problem.kind]
    inputs = [np.column_stack([z[k], ones]) if problem.biases[k] is not None else z[k] for k in range(depth)]
    rows = []
    for m in problem.selected:
        row = []
        for l in problem.selected:  # noqa: E741
            U, V = _times(above[m].T, above[l]), _times(inputs[m].T, inputs[l])
            block = np.einsum("rp,sq->rspq", U, V) if mode != "functional" else 0.0
            if l != m and mode != "gauss_newton":
                low, high = min(l, m), max(l, m)
                M = np.eye(len(W[low]), dtype=np.longdouble)
                for w in W[low + 1 : high]:
                    M = _times(w, M)
                if problem.biases[high] is not None:
                    M = np.vstack([M, np.zeros_like(M[:1])])
                G = _times(_times(error, above[high]).T, inputs[low])  # (outputs of high, inputs of low)
                functional = np.einsum("sp,rq->rspq", M, G)
                block = block + (functional if m == high else functional.transpose(2, 3, 0, 1))
            shape = (len(W[m]), inputs[m].shape[1], len(W[l]), inputs[l].shape[1])
            row.append(_ordered(np.broadcast_to(block, shape), problem, m, l))
        rows.append(np.concatenate(row, axis=1))
    H = scale * np.concatenate(rows)
    if mode == "full" and problem.decay:
        H = H + problem.decay * np.eye(len(H), dtype=np.longdouble)
    return H


def _times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,jk->ik", a, b)


def _ordered(block: np.ndarray, problem: UnbalancedProblem, m: int, l: int) -> np.ndarray:  # noqa: E741
    """Weights row after row, the bias behind them."""
    n, k = problem.weights[m].shape[1], problem.weights[l].shape[1]
    left = np.concatenate([block[:, :n].reshape(-1, *block.shape[2:]), block[:, n:].reshape(-1, *block.shape[2:])])
    parts = [left[:, :, :k].reshape(len(left), -1), left[:, :, k:].reshape(len(left), -1)]
    return np.concatenate(parts, axis=1)


# Residuals ----------------------------------------------------------------------------------------------------------


def residuals(problem: UnbalancedProblem, mode: str = "full", backend: str | None = None) -> dict[str, float]:
    """Return the normalised residual of each method, against the oracle; none where the Hessian is out of range."""
    exact = dense(problem, mode)
    largest = np.abs(exact).max()
    if not np.abs(dense(problem)).max() < 1e300 or 0 < largest < 1e-280:
        return {}
    exponent = int(np.frexp(largest)[1])
    D = np.ldexp(exact, -exponent).astype(float) if largest else exact.astype(float)
    n = len(D)
    reference = np.linalg.eigvalsh(D)
    unit = n * EPS * max(np.abs(reference).max(), np.finfo(float).tiny)
    H = problem.hessian(mode, backend)
    found: dict[str, float] = {}
    values = np.ldexp(H.eigvalsh(), -exponent)
    found["eigvalsh"] = float(np.abs(values - reference).max() / unit)
    found["spectrum"] = float(np.abs(np.ldexp(H.spectrum().expand(), -exponent) - reference).max() / unit)
    values, V = H.eigh()
    values = np.ldexp(values, -exponent)
    found["eigh"] = float(np.linalg.norm(D @ V - V * values, 2) / unit)
    found["orthogonality"] = float(np.linalg.norm(V.T @ V - np.eye(n), 2) / (n * EPS))
    rng = np.random.default_rng(problem.seed)
    b = rng.standard_normal(n)
    for size in (1.0, 1e-6):
        damping = float(np.ldexp(size * np.abs(reference).max(), exponent))
        try:
            x = np.ldexp(H.solve(b, damping=damping), exponent)
        except np.linalg.LinAlgError:
            continue  # said to be singular
        shifted = D + size * np.abs(reference).max() * np.eye(n)
        norm = np.abs(reference).max() * (1 + size)
        found[f"solve, damping {size:g}"] = float(
            np.linalg.norm(shifted @ x - b) / (n * EPS * (norm * np.linalg.norm(x) + np.linalg.norm(b)))
        )
    return found
