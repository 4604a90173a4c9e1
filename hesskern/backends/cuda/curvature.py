"""Curvature of many networks at once, recorded along their training: sharpness, condition of a layer's block."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hesskern.backends.cuda.layers import Layers, Shapes, activations
from hesskern.backends.cuda.precision import full_precision
from hesskern.backends.cuda.product import Linearised

#: Parameters up to which all eigenvalues of dense matrices cost no more than Lanczos steps.
_DENSE = 256
#: Memory for the networks looked at together (bytes).
_CHUNK_BYTES = 1 << 30
#: Lanczos steps before a new start from what they have found, starts, and the relative residual that ends them. The
#: error of the eigenvalue is smaller: the residual squared over the distance to the next one.
_STEPS, _STARTS, _RESIDUAL = 60, 60, 1e-11
#: Largest condition number of a factor whose singular values are taken as they come: their relative error is about
#: the rounding unit times this.
_TRUSTED = 1e5


class Rows(NamedTuple):
    """Data of all networks, float64: (networks or 1, rows, ...)."""

    x: Tensor
    ones: Tensor  # (networks or 1, rows)
    y: Tensor


def sharpness(shapes: Shapes, parameters: Tensor, data: Rows, *, scale: float, decay: float) -> Tensor:
    """Return the largest eigenvalue of each network's Hessian, (networks,); NaN where parameters are not finite.

    Parameters
    ----------
    shapes : Shapes
    parameters : (networks, P) tensor, float64
    data : Rows
    scale, decay : float
    """
    finite = parameters.isfinite().all(1)
    clean = torch.where(finite[:, None], parameters, torch.zeros_like(parameters))
    size = shapes.size
    vectors = size if size <= _DENSE else _STEPS
    numbers = 4 * vectors * (size + data.x.shape[-2] * sum(shapes.widths))
    chunk = max(1, _CHUNK_BYTES // (8 * numbers))
    found = []
    for start in range(0, len(clean), chunk):
        some = slice(start, start + chunk)
        rows = (part if len(part) == 1 else part[some] for part in data)
        found.append(_largest(shapes, clean[some], Rows(*rows), scale, decay))
    return torch.where(finite, torch.cat(found), torch.nan)


def _largest(shapes: Shapes, parameters: Tensor, data: Rows, scale: float, decay: float) -> Tensor:
    split = shapes.split(parameters)
    # One more dimension than the networks', for directions.
    at = Layers([w[:, None] for w in split.weights], [None if b is None else b[:, None] for b in split.biases])
    x, ones, y = (part[:, None] for part in data)
    with full_precision():
        hessian = Linearised(shapes, at, x, ones, y, scale=scale, decay=decay)
        if shapes.size > _DENSE:
            return _lanczos(hessian, parameters)
        unit = torch.eye(shapes.size, dtype=parameters.dtype, device=parameters.device)
        dense = hessian.times(unit.expand(len(parameters), -1, -1))
    dense = 0.5 * (dense + dense.mT)
    overflown = ~dense.isfinite().all(-1).all(-1)
    values = torch.linalg.eigvalsh(torch.where(overflown[:, None, None], 0.0, dense))[:, -1]
    return torch.where(overflown, torch.nan, values)


def _lanczos(hessian: Linearised, like: Tensor) -> Tensor:
    """Return largest eigenvalues by Lanczos's method, every vector made orthogonal to all before, started again."""
    random = torch.randn(like.shape, dtype=like.dtype, generator=torch.Generator().manual_seed(0))
    start = random.to(like.device)
    count = min(_STEPS, like.shape[1])
    value = like.new_full((len(like),), torch.nan)
    for _ in range(_STARTS):
        basis = like.new_zeros(len(like), count, like.shape[1])
        small = like.new_zeros(len(like), count, count)
        vector = start / start.norm(dim=1, keepdim=True)
        for k in range(count):
            basis[:, k] = vector
            image = hessian.times(vector[:, None])[:, 0]
            for again in range(2):
                shares = (basis @ image[..., None])[..., 0]
                image = image - (shares[:, None] @ basis)[:, 0]
                if not again:
                    small[:, :, k] = shares
            outside = image.norm(dim=1)
            # What is left of an image inside the space is rounding: no new direction, and zeros from here on.
            new = outside > 1e-13 * _length(small[:, :, k], outside)
            vector = torch.where(new[:, None], image / outside[:, None], torch.zeros_like(image))
        sound = small.isfinite().all(-1).all(-1)
        # A column holds the products with the vectors up to its own.
        symmetric = torch.where(sound[:, None, None], small.triu() + small.triu(1).mT, 0.0)
        values, vectors = torch.linalg.eigh(symmetric)
        value = torch.where(sound, values[:, -1], torch.nan)
        left = torch.where(new, outside * vectors[:, -1, -1].abs(), 0.0)
        scale = values.abs().amax(1)
        if bool((~sound | (left <= _RESIDUAL * scale)).all()):
            break
        start = torch.where(sound[:, None], (vectors[:, None, :, -1] @ basis)[:, 0], random.to(like.device))
    return value


def _length(shares: Tensor, outside: Tensor) -> Tensor:
    """Return the length of an image before what lies in the space was taken from it."""
    return (shares.square().sum(1) + outside.square()).sqrt()


class Extremes(NamedTuple):
    """Of each network's block: nonzero eigenvalues without weight decay, and how many there are."""

    largest: Tensor
    smallest: Tensor
    rank: Tensor
    trusted: Tensor  # where False, the factors are too badly conditioned to be decided on here


def block(
    shapes: Shapes, parameters: Tensor, data: Rows, *, scale: float, layer: int, parts: tuple[bool, bool]
) -> Extremes:
    """Return the eigenvalues that decide the condition number of one layer's block, from its factors.

    The block is ``scale * (B.T B) kron (Z.T Z)`` with Z the layer's inputs and B the product of the layers behind; its
    eigenvalues are products of squared singular values.

    Parameters
    ----------
    shapes, parameters, data, scale
        As for `sharpness`.
    layer : int
        Counted from 0.
    parts : (bool, bool)
        Whether the block is over the layer's weight, and over its bias.
    """
    finite = parameters.isfinite().all(1)
    layers = shapes.split(torch.where(finite[:, None], parameters, torch.zeros_like(parameters)))
    before = Layers(layers.weights[:layer], layers.biases[:layer])
    inputs = activations(before, data.x, data.ones)[-1]
    count = len(parameters)
    pieces = [inputs.expand(count, -1, -1)] if parts[0] else []
    pieces += [data.ones.expand(count, -1)[..., None]] if parts[1] else []
    into = torch.linalg.svdvals(torch.cat(pieces, dim=-1))
    if layer + 1 < len(layers.weights):
        behind = layers.weights[layer + 1]
        for weight in layers.weights[layer + 2 :]:
            behind = weight @ behind
        out_of = torch.linalg.svdvals(behind)
    else:
        out_of = into.new_ones(count, layers.weights[layer].shape[-2])
    good = finite
    for values in (into, out_of):
        good = good & (values[:, -1] * _TRUSTED > values[:, 0])
    largest = scale * (into[:, 0] * out_of[:, 0]).square()
    smallest = scale * (into[:, -1] * out_of[:, -1]).square()
    good = good & largest.isfinite() & (smallest > 0)
    rank = torch.full_like(good, into.shape[1] * out_of.shape[1], dtype=torch.int64)
    return Extremes(largest, smallest, rank, good)
