"""Other data and other weights: most mistakes give the exact Hessian of another network on other data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hesskern._base.array_types import Array
from hesskern.explanation.given.causes import Cause
from hesskern.explanation.given.prepared import prepared
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork

#: Samples up to which first and last minibatches of every size are tried; beyond, those of the usual sizes.
_EVERY = 64
_USUAL = (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100, 128, 200, 250, 256, 500, 512, 1000, 1024, 2048, 4096)


@dataclass(frozen=True, slots=True)
class DataVariant:
    """Data that somebody may have used: a sum of losses, each with its coefficient."""

    causes: tuple[Cause, ...]
    terms: tuple[tuple[float, SquaredLoss], ...]
    samples: int
    prepared: bool = False  # centred, standardised and the like


@dataclass(frozen=True, slots=True)
class WeightVariant:
    """Weights that somebody may have used."""

    causes: tuple[Cause, ...]
    net: LinearNetwork


def data_variants(loss: SquaredLoss, batch_size: int | None) -> list[DataVariant]:
    """Return the true data, then the data that somebody may have used. `loss` is float64, without weight decay."""
    X, Y, kind = loss.X, loss.Y, loss.kind
    samples = len(X)
    variants = [DataVariant((), ((1.0, loss),), samples)]

    def add(cause: Cause, *terms: tuple[float, Array, Array]) -> None:
        losses = tuple((factor, SquaredLoss(x, y, kind, backend=loss.backend)) for factor, x, y in terms)
        variants.append(DataVariant((cause,), losses, sum(len(x) for _, x, _ in terms)))

    rows = "samples are rows, as nn.Linear takes them"
    square_x, square_y = samples == X.shape[1], samples == Y.shape[1]
    if square_x:
        add(
            Cause(
                "X-transposed", "the data are transposed", f"use W1 @ X.T, not W1 @ X (and X.T @ X for X @ X.T): {rows}"
            ),
            (1.0, X.T, Y),
        )
    if square_y:
        add(Cause("Y-transposed", "the targets are transposed", f"use Y.T in place of Y: {rows}"), (1.0, X, Y.T))
    if square_x and square_y:
        add(
            Cause("XY-transposed", "samples are in columns, in the data and the targets", f"use X.T and Y.T: {rows}"),
            (1.0, X.T, Y.T),
        )
    for size in _sizes(samples, batch_size):
        samples_text = f"{size} sample{'s' if size > 1 else ''}"
        whole = f"sum over all {samples} samples: pass X and Y whole, not a minibatch"
        add(Cause(f"last-batch[{size}]", f"only the last {samples_text} are used", whole), (1.0, X[-size:], Y[-size:]))
        add(Cause(f"first-batch[{size}]", f"only the first {samples_text} are used", whole), (1.0, X[:size], Y[:size]))
    if batch_size is not None:
        for start in range(batch_size, samples - batch_size, batch_size):
            cause = Cause(
                f"batch[{start}:{start + batch_size}]",
                f"only the minibatch of rows {start} to {start + batch_size - 1} is used",
                f"sum over all {samples} samples: pass X and Y whole, not a minibatch",
            )
            add(cause, (1.0, X[start : start + batch_size], Y[start : start + batch_size]))
    if kind == "mean":
        for size in sorted({*_sizes(samples, batch_size), *([batch_size] if batch_size else [])}):
            remainder = samples % size
            if not remainder or size >= samples:
                continue
            batches = samples // size + 1
            cause = Cause(
                f"uneven-batches[{size}]",
                f"the means of batches of {size} are averaged without weights, though the last has {remainder}",
                f"weight each batch by its samples: sum(len(batch) * H_batch) / {samples}",
            )
            cut = samples - remainder
            add(cause, ((batches - 1) / batches, X[:cut], Y[:cut]), (1 / batches, X[cut:], Y[cut:]))
    for other in prepared(loss):
        add(other.cause, (other.factor, other.X, other.Y))
        variants[-1] = replace(variants[-1], prepared=True)
    return variants


def _sizes(samples: int, batch_size: int | None) -> list[int]:
    if samples <= _EVERY:
        return list(range(1, samples))
    sizes = {*_USUAL, samples // 2, samples // 4, samples // 5, samples // 10}
    sizes |= {samples % size for size in sizes if size < samples}
    if batch_size is not None:
        sizes |= {batch_size, samples % batch_size}
    return sorted(size for size in sizes if 0 < size < samples)


def weight_variants(net: LinearNetwork, trajectory: Sequence[LinearNetwork]) -> list[WeightVariant]:
    """Return the true weights, then the weights that somebody may have used; equal networks once."""
    variants = [WeightVariant((), net)]
    positions = {net.flatten().tobytes(): 0}

    def add(cause: Cause, weights: Sequence[Array], biases: Sequence[Array | None] | None = None) -> None:
        shapes = [weight.shape for weight in weights]
        if shapes != [weight.shape for weight in net.weights]:
            return
        changed = LinearNetwork(weights, net.biases if biases is None else biases)
        at = positions.setdefault(changed.flatten().tobytes(), len(variants))
        if at == len(variants):
            variants.append(WeightVariant((cause,), changed))
        elif at > 0:
            first = variants[at].causes[0]
            merged = Cause(first.key, first.words, first.fix, (*first.also, cause.words), first.cost)
            variants[at] = WeightVariant((merged,), variants[at].net)

    weights = list(net.weights)
    square = [layer for layer, weight in enumerate(weights) if weight.shape[0] == weight.shape[1] > 1]
    stored = "nn.Linear.weight is (out, in)"
    for layers in [square] * (len(square) > 1) + [[layer] for layer in square]:
        names = ", ".join(f"W{layer + 1}" for layer in layers)
        code = " and ".join(f"W{layer + 1}.T for W{layer + 1}" for layer in layers)
        cause = Cause(
            f"weight-transposed[{','.join(map(str, layers))}]",
            f"{names} {'are' if len(layers) > 1 else 'is'} transposed, taken as (in, out)",
            f"use {code}: {stored}",
            ("a transposed initialisation",),
        )
        add(cause, [weight.T if layer in layers else weight for layer, weight in enumerate(weights)])
    _add_refilled(weights, add)
    if net.depth > 1:
        swapped = Cause("layers-swapped", "the layers are swapped", "W1 is the layer next to the data, applied first")
        add(swapped, weights[::-1], None if not net.has_bias else _fitting(net.biases[::-1], weights[::-1]))
        turned = Cause(
            "layers-swapped-transposed",
            "the layers are swapped, each transposed",
            f"W1 is the layer next to the data, applied first, and {stored}",
        )
        back = [weight.T for weight in reversed(weights)]
        add(turned, back)
        for lower in range(net.depth):
            for upper in range(lower + 1, net.depth):
                exchanged = list(weights)
                exchanged[lower], exchanged[upper] = weights[upper], weights[lower]
                names = f"W{lower + 1} and W{upper + 1}"
                cause = Cause(f"layers-swapped[{lower},{upper}]", f"{names} are swapped", f"exchange {names}")
                add(cause, exchanged)
    for step, other in enumerate(trajectory):
        at = ("the first" if step == 0 else "the last" if step == len(trajectory) - 1 else f"number {step}") + (
            f" of the {len(trajectory)} networks of the trajectory" if len(trajectory) > 1 else " network given"
        )
        cause = Cause(
            f"trajectory[{step}]",
            f"the weights are not these, but those of {at}",
            "take the Hessian at the network you compare with (detach and copy the weights after the last step)",
        )
        add(cause, list(other.weights), list(other.biases))
    return variants


def _fitting(biases: Sequence[Array | None], weights: Sequence[Array]) -> list[Array | None] | None:
    """Return these biases if they fit the weights, None otherwise: then each layer keeps its own."""
    fits = all(bias is None or len(bias) == len(weight) for bias, weight in zip(biases, weights, strict=True))
    return list(biases) if fits else None


def _add_refilled(weights: Sequence[Array], add: Callable[[Cause, Sequence[Array]], None]) -> None:
    """Add weights whose numbers were drawn, or read, in the order of the transposed shape."""
    layers = [
        layer for layer, weight in enumerate(weights) if weight.shape[0] != weight.shape[1] and min(weight.shape) > 1
    ]
    for chosen in [layers] * (len(layers) > 1) + [[layer] for layer in layers]:
        names = ", ".join(f"W{layer + 1}" for layer in chosen)
        changes: tuple[tuple[str, str, Callable[[Array], Array]], ...] = (
            ("filled-by-columns", "column after column", lambda w: w.T.reshape(w.shape)),
            ("filled-by-rows", "as (in, out), row after row, then transposed", lambda w: w.reshape(w.shape[::-1]).T),
        )
        for key, words, change in changes:
            cause = Cause(
                f"weights-{key}[{','.join(map(str, chosen))}]",
                f"the numbers of {names} are filled in {words}: a transposed initialisation",
                f"use {names}.T, not {names}.reshape(...): a reshape of an array stored as (in, out) is not its "
                "transpose",
            )
            add(cause, [change(w) if layer in chosen else w for layer, w in enumerate(weights)])
