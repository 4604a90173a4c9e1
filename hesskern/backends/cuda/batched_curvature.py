"""Curvature of many networks at once, recorded along their training: sharpness, condition of a layer's block."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hesskern._base.flat_layout import FlatLayout
from hesskern.backends.cuda.layers import TensorLayers, activations, split
from hesskern.backends.cuda.precision import full_precision
from hesskern.backends.cuda.product import Linearised

#: The largest matrices of which libraries find the eigenvalues of many at once; also the Lanczos steps of one start.
_SMALL = 32
#: Memory for the networks looked at together (bytes).
_CHUNK_BYTES = 1 << 30
#: Most restarts, and the relative residual that ends them. The error of the eigenvalue is smaller: the residual squared
#: over the distance to the next one.
_STARTS, _RESIDUAL = 100, 1e-11
#: Up to this many parameters, eigenvalues that have not converged then are computed from dense matrices.
_DENSE = 2048
#: How much larger than a factor's smallest singular value the numbers may be that it was computed from. The relative
#: error of that value is about the rounding unit times this.
_TRUSTED = 1e5


class Rows(NamedTuple):
    """Data of all networks, float64: (networks or 1, rows, ...)."""

    x: Tensor
    ones: Tensor  # (networks or 1, rows)
    y: Tensor


def sharpness(layout: FlatLayout, parameters: Tensor, data: Rows, *, scale: float, decay: float) -> Tensor:
    """Return the largest eigenvalue of each network's Hessian, (networks,); NaN where parameters are not finite.

    Parameters
    ----------
    layout : FlatLayout
    parameters : (networks, P) tensor, float64
    data : Rows
    scale, decay : float
    """
    finite = parameters.isfinite().all(1)
    clean = torch.where(finite[:, None], parameters, torch.zeros_like(parameters))
    size = layout.size
    vectors = min(size, _SMALL)
    numbers = 4 * vectors * (size + data.x.shape[-2] * sum(layout.widths))
    chunk = max(1, _CHUNK_BYTES // (8 * numbers))
    eigenvalues = []
    for start in range(0, len(clean), chunk):
        some = slice(start, start + chunk)
        rows = (part if len(part) == 1 else part[some] for part in data)
        eigenvalues.append(_largest(layout, clean[some], Rows(*rows), scale, decay))
    return torch.where(finite, torch.cat(eigenvalues), torch.nan)


def _largest(layout: FlatLayout, parameters: Tensor, data: Rows, scale: float, decay: float) -> Tensor:
    at_start = split(layout, parameters)
    # One more dimension than the networks', for directions.
    at = TensorLayers(
        [w[:, None] for w in at_start.weights], [None if b is None else b[:, None] for b in at_start.biases]
    )
    x, ones, y = (part[:, None] for part in data)
    with full_precision():
        hessian = Linearised(layout, at, x, ones, y, scale=scale, decay=decay)
        if layout.size > _SMALL:
            value, converged = _lanczos(hessian, parameters)
            if bool(converged.all()):
                return value
            if layout.size > _DENSE:
                return torch.where(converged, value, torch.nan)
        unit = torch.eye(layout.size, dtype=parameters.dtype, device=parameters.device)
        dense = hessian.times(unit.expand(len(parameters), -1, -1))
    dense = 0.5 * (dense + dense.mT)
    overflown = ~dense.isfinite().all(-1).all(-1)
    exponent = _exponent(torch.where(overflown[:, None, None], 0.0, dense).flatten(1))
    scaled = torch.where(overflown[:, None, None], 0.0, _ldexp(dense, -exponent[:, None, None]))
    values = _ldexp(torch.linalg.eigvalsh(scaled)[:, -1], exponent)
    return torch.where(overflown, torch.nan, values)


def _exponent(numbers: Tensor) -> Tensor:
    """Return the exponent of the largest number of each row: over ``2**exponent``, squares do not overflow."""
    return torch.frexp(numbers.abs().amax(1)).exponent


def _ldexp(numbers: Tensor, exponent: Tensor) -> Tensor:
    """Return ``numbers * 2**exponent``; the power itself may be out of range."""
    half = exponent // 2
    return torch.ldexp(torch.ldexp(numbers, half), exponent - half)


def _lanczos(hessian: Linearised, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalues by Lanczos's method, and which converged; NaN where the Hessian overflows.

    Each Hessian is multiplied by a power of two, which rounds nothing: squares of numbers beyond 1e154 overflow. Every
    vector is made orthogonal to all before. A full space is reduced to the best vectors it holds, and the iteration
    continues from there (thick restart, Wu and Simon 2000).
    """
    generator = torch.Generator(device="cpu").manual_seed(0)  # whatever the user's default device is
    random = torch.randn(like.shape, dtype=like.dtype, generator=generator, device="cpu")
    vector = torch.nn.functional.normalize(random.to(like.device))
    count = min(_SMALL, like.shape[1])
    kept = 0
    basis = like.new_zeros(len(like), count, like.shape[1])
    small = like.new_zeros(len(like), count, count)
    value = like.new_full((len(like),), torch.nan)
    converged = torch.zeros(len(like), dtype=torch.bool, device=like.device)
    exponent = _exponent(hessian.times(vector[:, None])[:, 0])
    for _ in range(_STARTS):
        for k in range(kept, count):
            basis[:, k] = vector
            image = _ldexp(hessian.times(vector[:, None])[:, 0], -exponent[:, None])
            for again in range(2):
                shares = (basis @ image[..., None])[..., 0]
                image = image - (shares[:, None] @ basis)[:, 0]
                if not again:
                    small[:, :, k] = shares
            outside = image.norm(dim=1)
            # If only rounding errors are left outside the space, there is no new direction: zeros from here on.
            new = outside > 1e-13 * _length(small[:, :, k], outside)
            vector = torch.where(new[:, None], image / outside[:, None], torch.zeros_like(image))
        sound = small.isfinite().all(-1).all(-1)
        # A column holds the products with the vectors up to its own.
        symmetric = torch.where(sound[:, None, None], small.triu() + small.triu(1).mT, 0.0)
        values, vectors = torch.linalg.eigh(symmetric)
        value = torch.where(sound, values[:, -1], torch.nan)
        residual = torch.where(new, outside * vectors[:, -1, -1].abs(), 0.0)
        converged = ~sound | (residual <= _RESIDUAL * values.abs().amax(1))
        if bool(converged.all()):
            break
        kept = count // 4
        best = torch.where(sound[:, None, None], vectors[:, :, -kept:].mT @ basis, 0.0)
        basis.zero_()
        small.zero_()
        basis[:, :kept] = best
        small.diagonal(dim1=1, dim2=2)[:, :kept] = values[:, -kept:]
        vector = torch.where(sound[:, None], vector, 0.0)
    return _ldexp(value, exponent), converged


def _length(shares: Tensor, outside: Tensor) -> Tensor:
    """Return the length of an image before its part in the space was subtracted."""
    return (shares.square().sum(1) + outside.square()).sqrt()


class Extremes(NamedTuple):
    """Of each network's block: nonzero eigenvalues without weight decay, and how many there are."""

    largest: Tensor
    smallest: Tensor
    rank: Tensor
    trusted: Tensor  # where False, the factors are too badly conditioned to be decided on here


def block(
    layout: FlatLayout, parameters: Tensor, data: Rows, *, scale: float, layer: int, parts: tuple[bool, bool]
) -> Extremes:
    """Return the eigenvalues that decide the condition number of one layer's block, from its factors.

    The block is ``scale * (B.T B) kron (Z.T Z)`` with Z the layer's inputs and B the product of the later layers; its
    eigenvalues are products of squared singular values.

    Parameters
    ----------
    layout, parameters, data, scale
        As for `sharpness`.
    layer : int
        Counted from 0.
    parts : (bool, bool)
        Whether the block is over the layer's weight, and over its bias.
    """
    finite = parameters.isfinite().all(1)
    layers = split(layout, torch.where(finite[:, None], parameters, torch.zeros_like(parameters)))
    before = TensorLayers(layers.weights[:layer], layers.biases[:layer])
    count = len(parameters)
    # For each factor also the size of the numbers that it was computed from: its rounding errors are relative to that.
    inputs, size = activations(before, data.x, data.ones)[-1], _norm(data.x)
    for weight, bias in zip(*before, strict=True):
        size = size * _norm(weight) + (0.0 if bias is None else data.ones.norm(dim=1) * bias.norm(dim=1))
    pieces = [inputs.expand(count, -1, -1)] if parts[0] else []
    pieces += [data.ones.expand(count, -1)[..., None]] if parts[1] else []
    input_values, trusted = _singular_values(torch.cat(pieces, dim=-1), size + data.ones.norm(dim=1))
    trusted = trusted & finite
    output_values = input_values.new_ones(count, layers.weights[layer].shape[-2])
    if layer + 1 < len(layers.weights):
        product, size = layers.weights[layer + 1], _norm(layers.weights[layer + 1])
        for weight in layers.weights[layer + 2 :]:
            product, size = weight @ product, _norm(weight) * size
        output_values, outputs_trusted = _singular_values(product, size)
        trusted = trusted & outputs_trusted
    largest = scale * (input_values[:, 0] * output_values[:, 0]).square()
    smallest = scale * (input_values[:, -1] * output_values[:, -1]).square()
    trusted = trusted & largest.isfinite() & (smallest > 0)
    rank = torch.full_like(trusted, input_values.shape[1] * output_values.shape[1], dtype=torch.int64)
    return Extremes(largest, smallest, rank, trusted)


def _norm(matrices: Tensor) -> Tensor:
    norms: Tensor = matrices.flatten(1).norm(dim=1)
    return norms


def _singular_values(factors: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return singular values of factors computed from numbers of this size, and which are right to nine digits."""
    finite = factors.isfinite().all(-1).all(-1)
    values = torch.linalg.svdvals(torch.where(finite[:, None, None], factors, 0.0))
    return values, finite & (values[:, -1] * _TRUSTED > size)
