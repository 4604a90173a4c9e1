"""The group "softmax": `SoftmaxHessian` against its definition in extended precision, confident samples included.

The magnitude of an entry is ``Σ_n s_n p (1 - p) |f| |f|``-like: with `c` the complement of a probability, summed from
the others, ``diag(p c) - p p.T`` has no cancellation, so entries, products and diagonals are judged relative to that.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

import hesskern as hk
from attack.judge import Judge
from attack.oracle import LONG

BACKENDS = ("cpp", "cpp", "numba", "numpy")


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Judge all methods of one Hessian of softmax cross-entropy."""
    rng = np.random.default_rng([6, seed])
    judge = Judge()
    samples, features, classes = (int(each) for each in rng.integers((1, 1, 2), (12, 6, 7)))
    dtype = np.float32 if rng.random() < 0.3 else np.float64
    F = rng.standard_normal((samples, features))
    logits = rng.standard_normal((samples, classes)) * 10.0 ** rng.uniform(-2, 2)
    if rng.random() < 0.3:  # confident samples
        logits[np.arange(samples), rng.integers(0, classes, samples)] += rng.uniform(5, 80)
    if rng.random() < 0.2:
        F *= 10.0 ** rng.uniform(-6, 6, features)
    if rng.random() < 0.15:
        F[:, 0] = F[:, -1]
    F, logits = F.astype(dtype), logits.astype(dtype)
    weights = rng.uniform(0, 2, samples).astype(dtype) if rng.random() < 0.3 else None
    if weights is not None and rng.random() < 0.3:
        weights[0] = 0
    bias = bool(rng.random() < 0.5)
    drawn = BACKENDS[int(rng.integers(0, len(BACKENDS)))]
    backend = backend or drawn
    eps = float(np.finfo(dtype).eps)
    dense, size, factor = _truth(F, logits, weights, bias)
    count = len(dense)
    unit = eps * (samples + classes + 4)
    v = rng.standard_normal(count).astype(dtype)
    hessian = hk.SoftmaxHessian(F, logits, bias=bias, sample_weights=weights, backend=backend)

    def check(name: str) -> AbstractContextManager[None]:
        return judge.check(f"softmax {name}/{backend}")

    with check("toarray"):
        judge.close(hessian.toarray(), dense, size, unit)
    with check("product"):
        judge.close(hessian @ v, dense @ v.astype(LONG), factor(abs(v.astype(LONG))), unit)
    with check("products"):
        V = rng.standard_normal((count, 3)).astype(dtype)
        sizes = np.column_stack([factor(abs(column.astype(LONG))) for column in V.T])
        judge.close(hessian @ V, dense @ V.astype(LONG), sizes, unit)
    with check("diagonal"):
        judge.close(hessian.diagonal(), np.diagonal(dense), np.diagonal(size), unit)
    with check("trace"):
        judge.close(hessian.trace(), np.trace(dense), np.trace(size), unit * 2)
    lift = LONG(2) ** np.floor(np.log2(size.max())) if size.max() > 0 else LONG(1)
    matrix = (dense / lift).astype(np.float64)
    values = np.linalg.eigvalsh(matrix)
    doubt = eps * (count + samples) * float(np.linalg.norm(matrix)) + np.finfo(float).tiny
    with check("spectrum"):
        found = (hessian.spectrum().expand() / lift).astype(np.float64)
        judge.ratio(abs(found - values).max(), doubt)
    with check("eigh"):
        found, V = hessian.eigh()
        found = (found / lift).astype(np.float64)
        judge.ratio(np.linalg.norm(matrix @ V - V * found), doubt, "H V - V Lambda")
        judge.ratio(np.linalg.norm(V.T @ V - np.eye(count)), count * np.finfo(float).eps, "orthogonality")
    with check("condition"):
        found = hessian.condition()
        sure = int((abs(values) > 1e3 * doubt).sum())
        doubtful = found.gap < 1e3 or not found.uncertainty < 1e-3
        judge.true(found.rank >= sure or doubtful, f"rank {found.rank}, but {sure} eigenvalues are clear: {found}")
        most = (classes - 1) * min(samples, features + bias)
        judge.true(found.rank <= most or doubtful, f"rank {found.rank} of at most {most}: {found}")
    with check("solve"):
        damping = max(float(lift), 1e-20) * float(10.0 ** rng.uniform(-3, 1))
        x = hessian.solve(v, damping)
        off = np.linalg.norm(((dense + LONG(damping) * np.eye(count)) @ x.astype(LONG) - v).astype(float))
        norm = (float(np.linalg.norm(matrix)) * float(lift) + damping) * float(np.linalg.norm(x))
        judge.ratio(off, eps * (count + samples) * (norm + float(np.linalg.norm(v))))
    what = f"N = {samples}, {features} features, {classes} classes, bias {bias}, {np.dtype(dtype)}"
    judge.wrong = [f"{sentence} [{what}]" for sentence in judge.wrong]
    return judge


def _truth(F: np.ndarray, logits: np.ndarray, weights: np.ndarray | None, bias: bool) -> tuple[Any, Any, Any]:
    """Return the dense matrix, the magnitudes of its entries, and that of its products with |v|."""
    dtype = F.dtype
    F, logits = F.astype(LONG), logits.astype(LONG)
    samples, classes = logits.shape
    inner = np.column_stack([F, np.ones(samples, LONG)]) if bias else F
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    s = np.ones(samples, LONG) if weights is None else weights.astype(LONG)
    blocks = -p[:, :, None] * p[:, None, :]
    for k in range(classes):
        blocks[:, k, k] = p[:, k] * np.delete(p, k, axis=1).sum(axis=1)
    features = F.shape[1]
    order = np.arange(classes * inner.shape[1]).reshape(classes, -1)
    order = np.concatenate([order[:, :features].ravel(), order[:, features:].ravel()])

    def joined(cube: np.ndarray, sides: np.ndarray) -> np.ndarray:
        count = classes * sides.shape[1]
        full = np.einsum("n,nij,na,nb->iajb", s, cube, sides, sides).reshape(count, count)
        return full[np.ix_(order, order)]

    dense, size = joined(blocks, inner), joined(abs(blocks), abs(inner))
    # The logits are known to their last digit: exp turns it into a relative error of that size.
    reach = 1 + abs(logits - logits.max(axis=1, keepdims=True)).max()
    size = size * (1 + LONG(reach) * LONG(np.finfo(np.float64).eps))
    # Products of two probabilities may be smaller than the format's smallest normal number.
    lost = LONG(np.finfo(dtype).tiny) / LONG(np.finfo(dtype).eps)
    size = size + lost * joined(np.ones_like(blocks), abs(inner))
    return dense, size, lambda v: size @ v
