"""The exact reductions by hand in NumPy: references of the task "reductions", and peers of it.

Inputs by the QR decomposition of the transposed samples; deep networks by orthogonal bases of what the data reach and
of what reaches the predictions, outside of which the Hessian is zero; a softmax last layer by the Gram matrix of its
factor. Networks have no biases here, and the loss is ``‖E‖²/2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.closed_form import ClosedForm
from bench.problems import Array

#: Eigenvalues below this fraction of the largest are zeros: those of the problems are either far above or rounding.
ZERO = 1e-11

Values = tuple[Array, NDArray[np.int64]]  # eigenvalues, multiplicities


class _Layer(NamedTuple):
    """A layer in its own orthogonal bases, of which the first directions are those that are seen."""

    above: Array  # (o, m)
    inputs: Array  # (N, n)
    rows: Array  # (m, m)
    columns: Array  # (n, n)
    kept: tuple[NDArray[np.intp], NDArray[np.intp]]  # rows and columns that are left


def few_inputs(X: Array, weights: Sequence[Array]) -> tuple[Array, list[Array]]:
    """Return samples and weights with as many inputs as samples and the same nonzero eigenvalues, for N < i."""
    Q, R = np.linalg.qr(X.T)
    return R.T, [weights[0] @ Q, *weights[1:]]


def narrow(weights: Sequence[Array]) -> tuple[list[Array], int]:
    """Return two layers with at most i + o hidden units, and how many units are left over."""
    first, second = weights
    R: Any = np.linalg.qr(np.hstack([first, second.T]), mode="r")
    inputs = first.shape[1]
    return [R[:, :inputs], R[:, inputs:].T], len(first) - len(R)


def two_layers(X: Array, Y: Array, weights: Sequence[Array]) -> Values:
    """Return the spectrum of two layers with fewer samples than inputs."""
    size = sum(weight.size for weight in weights)
    X, weights = few_inputs(X, weights)
    left_over = 0
    if len(weights[0]) > X.shape[1] + len(weights[1]):
        weights, left_over = narrow(weights)
    form = ClosedForm(X, Y, weights)
    values = np.linalg.eigvalsh(form.matrix())
    sigma = np.linalg.svd(form.deltas[-1].T @ X, compute_uv=False)
    values = np.concatenate([values, sigma, -sigma, [0.0]])
    counts = np.concatenate([np.ones(form.size), np.full(2 * len(sigma), left_over), [0]]).astype(np.int64)
    counts[-1] = size - counts.sum()
    return values[counts > 0], counts[counts > 0]


def deep(X: Array, Y: Array, weights: Sequence[Array]) -> Values:
    """Return the spectrum of a deep network: the eigenvalues of what ranks leave, and zeros."""
    layers = _layers(X, weights)
    E = layers[-1].inputs @ weights[-1].T - Y
    blocks: list[list[Array]] = [[] for _ in layers]
    for upper, (up, row) in enumerate(zip(layers, blocks, strict=True)):
        r, s = up.kept
        for lower, down in enumerate(layers[: upper + 1]):
            p, q = down.kept
            outer = up.rows.T @ (up.above.T @ down.above) @ down.rows
            inner = up.columns.T @ (up.inputs.T @ down.inputs) @ down.columns
            block: Array = outer[np.ix_(r, p)] * inner[np.ix_(s, q)]
            if lower < upper:
                between: Array = np.eye(len(weights[lower]))
                for weight in weights[lower + 1 : upper]:
                    between = weight @ between
                between = up.columns.T @ between @ down.rows
                gradient = up.rows.T @ (E @ up.above).T @ down.inputs @ down.columns
                block += between[np.ix_(s, p)] * gradient[np.ix_(r, q)]
            row.append(block)
    size = sum(len(layer.kept[0]) for layer in layers)
    dense: Array = np.zeros((size, size))
    ends = np.cumsum([0, *(len(layer.kept[0]) for layer in layers)])
    for upper, row in enumerate(blocks):
        for lower, block in enumerate(row):
            dense[ends[upper] : ends[upper + 1], ends[lower] : ends[lower + 1]] = block
    values = np.append(np.linalg.eigvalsh(dense, UPLO="L"), 0.0)
    counts = np.ones(size + 1, np.int64)
    counts[-1] = sum(weight.size for weight in weights) - size
    return values, counts


def _layers(X: Array, weights: Sequence[Array]) -> list[_Layer]:
    inputs, above = [X], [np.eye(len(weights[-1]))]
    for weight in weights[:-1]:
        inputs.append(inputs[-1] @ weight.T)
    for weight in weights[:0:-1]:
        above.insert(0, above[0] @ weight)
    layers = []
    for top, below in zip(above, inputs, strict=True):
        (rows, b), (columns, a) = _basis(top), _basis(below)
        left = (np.arange(len(rows))[:, None] < b) | (np.arange(len(columns)) < a)
        at, across = np.nonzero(left)
        layers.append(_Layer(top, below, rows, columns, (at, across)))
    return layers


def _basis(matrix: Array) -> tuple[Array, int]:
    """Return an orthogonal basis whose first columns span the rows of a matrix, and how many they are."""
    _, values, vectors = np.linalg.svd(matrix)
    return vectors.T, int(np.sum(values > ZERO * values[0]))


def condition(values: Values) -> float:
    """Return the largest over the smallest nonzero absolute eigenvalue."""
    size = np.abs(values[0])
    return float(size.max() / size[size > ZERO * size.max()].min())


def softmax_gram(features: Array, logits: Array, scale: float) -> Array:
    """Return the eigenvalues of the Gram matrix of a factor: those of the Hessian that are not zero, ascending."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    samples, classes = p.shape
    roots = np.sqrt(scale) * (np.eye(classes) * np.sqrt(p)[:, None, :] - p[:, :, None] * np.sqrt(p)[:, None, :])
    gram = np.einsum("nca,mcb->namb", roots, roots, optimize=True) * (features @ features.T)[:, None, :, None]
    values = np.linalg.eigvalsh(gram.reshape(samples * classes, -1))
    kept: Array = values[values > ZERO * values[-1]]
    return kept
