"""Matrices other than a changed Hessian: outer products of gradients, and diagonals added group by group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern.explanation.given.candidate_model import CandidateModel, Curvature, difference
from hesskern.explanation.given.causes import Cause, listed
from hesskern.explanation.given.orders import Order, Tensor
from hesskern.explanation.given.scales import affine, least_factor, rounded
from hesskern.explanation.given.selections import symbol
from hesskern.explanation.search.matrices import PART_CAUSES, Base, Match, Search
from hesskern.explanation.search.sample_gradients import OuterProducts, SampleGradients

Values = NDArray[np.float64]

#: Fewest parameters for which a factor and a shift that fit are evidence.
_FEWEST = 3

_OUTER = {
    "all": Cause(
        "empirical-fisher",
        "it is the empirical Fisher matrix, the mean over the samples of g_n @ g_n.T, with g_n the gradient of the "
        "loss of sample n",
        "use second derivatives: the two agree only where every residual is as large as the model expects; "
        "H.gauss_newton() is the Fisher matrix of a Gaussian model",
    ),
    "centred": Cause(
        "gradient-covariance",
        "it is the covariance matrix of the samples' gradients, the mean of (g_n - g) @ (g_n - g).T",
        "use second derivatives, loss.hessian(net): the covariance says how noisy minibatch gradients are",
    ),
    "sum": Cause(
        "gradient-outer-product",
        "it is the outer product g @ g.T of the gradient with itself, of rank one",
        "differentiate the gradient, do not square it: torch.autograd.functional.hessian, or loss.hessian(net)",
    ),
}


def other_matches(search: Search) -> list[Match]:
    """Return the matrices of this kind that equal the candidate up to rounding, those of least cost."""
    if len(search.matrix) < _FEWEST:
        return []
    matches = [*_outer_products(search), *_added_diagonals(search)]
    least = min((match.cost for match in matches), default=0)
    return [match for match in matches if match.cost == least]


def _parts(curvature: Curvature) -> Iterator[tuple[str, tuple[Cause, ...]]]:
    yield "full", ()
    if len(curvature.layers) > 1:
        yield "layers", (PART_CAUSES["layers"],)
    if len(curvature.tensors) > len(curvature.layers):
        yield "tensors", (PART_CAUSES["tensors"],)


# Outer products of gradients ------------------------------------------------------------------------------------------


def _outer_products(search: Search) -> Iterator[Match]:
    scales, data, weights = search.scales, search.data[0], search.weights[0]
    loss = data.terms[0][1]
    of_sample = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / scales.outputs}[loss.kind]
    mean = of_sample**2 / scales.samples
    for selection in search.selections:
        gradients = SampleGradients(weights.net, loss, selection.tensors)
        for kind, factor in (("all", mean), ("centred", mean), ("sum", loss.scale**2)):
            if kind == "centred" and scales.samples < 3:
                continue  # for two samples both are multiples of one outer product
            products = OuterProducts(gradients, kind, factor, data, weights, selection.tensors, search.epsilon)
            if not search.diagonal_fits(products):
                continue
            base = Base(data, weights, selection)
            for part, of_part in _parts(products):
                for order in search.orders_of(selection.tensors):
                    match = _outer(search, products, (_OUTER[kind], *selection.causes, *of_part), part, order, base)
                    if match is not None:
                        yield match


def _outer(
    search: Search, products: OuterProducts, causes: tuple[Cause, ...], part: str, order: Order, base: Base
) -> Match | None:
    T = search.product(products, part, order.source, "both")
    size = float(np.linalg.norm(T))
    limit = 3.0 * np.sqrt(2.0) * products.rounding
    if size <= limit:
        return None
    scaling = affine(
        search.products, T, search.vectors, search.scales, part="gauss_newton", batch=base.data.samples,
        limit=limit, rounding=max(8.0 * products.rounding / size, 1e-14),
    )  # fmt: skip
    if scaling is None:
        return None
    model = CandidateModel(products, part, order.source, scaling.factor, scaling.shift)
    return _verified(search, model, (*causes, *order.causes, *scaling.causes), base, order)


def _verified(
    search: Search, model: CandidateModel, causes: tuple[Cause, ...], base: Base, order: Order
) -> Match | None:
    entries = difference(search.matrix, model, model.curvature.tensors)
    return Match(causes, model, entries, base, order) if entries.norm <= model.tolerance else None


# Diagonals ------------------------------------------------------------------------------------------------------------


def _added_diagonals(search: Search) -> Iterator[Match]:
    for selection in search.selections:
        base = Base(search.data[0], search.weights[0], selection)
        curvature = search.curvature(base)
        for part in ("full", "gauss_newton"):
            if part == "gauss_newton" and len(curvature.layers) == 1:
                continue
            causes = selection.causes if part == "full" else (*selection.causes, PART_CAUSES[part])
            for order in search.orders_of(selection.tensors):
                T = search.product(curvature, part, order.source, "both")
                for groups in (_by_tensor(selection.tensors), curvature.diagonal[:, None]):
                    match = _added(search, curvature, T, groups, (*causes, *order.causes), part, order, base)
                    if match is not None:
                        yield match


def _by_tensor(tensors: Sequence[Tensor]) -> Values:
    """Return an indicator (P, T) of each weight and bias."""
    indicators = np.zeros((tensors[-1].stop, len(tensors)))
    for column, tensor in enumerate(tensors):
        indicators[tensor.start : tensor.stop, column] = 1.0
    return indicators


def _added(
    search: Search,
    curvature: Curvature,
    T: Values,
    groups: Values,
    causes: tuple[Cause, ...],
    part: str,
    order: Order,
    base: Base,
) -> Match | None:
    """Return the match with a combination of these columns, in our order, added to a part's diagonal."""
    S, V = search.products, search.vectors
    one = groups.shape[1] == 1
    decay = search.scales.decay if part == "full" else 0.0
    if (groups.shape[1] < 2 and not one) or (one and float(np.ptp(groups)) == 0.0):
        return None
    moved = groups if order.source is None else groups[order.source]
    shifts = [(column[:, None] * V).ravel() for column in moved.T]
    columns = np.column_stack([T.ravel() + (decay * V).ravel(), *shifts])
    lengths = np.linalg.norm(columns, axis=0)
    if not lengths.all():
        return None
    solution = decompositions.least_squares(columns / lengths, S.ravel()) / lengths
    factor = float(solution[0])
    if abs(factor - 1.0) <= 1e-9:
        factor = 1.0
        rest_of_it = S.ravel() - columns[:, 0]
        solution[1:] = decompositions.least_squares(columns[:, 1:] / lengths[1:], rest_of_it) / lengths[1:]
    residual = float(np.linalg.norm(S.ravel() - factor * columns[:, 0] - columns[:, 1:] @ solution[1:]))
    norm = float(np.linalg.norm(S))
    limit = 3.0 * np.sqrt(2.0) * curvature.rounding
    if residual > limit * abs(factor) + 1e-15 * norm or not abs(factor) > least_factor(T, V) * norm:
        return None
    noise = 10.0 * abs(factor) * curvature.rounding
    if not float(np.linalg.norm(moved @ solution[1:])) > noise:
        return None  # the added diagonal is rounding
    least = max(noise / float(np.sqrt(len(moved))), 1e-12 * float(np.abs(solution[1:]).max()))
    added = np.where(np.abs(solution[1:]) > least, solution[1:], 0.0)
    total = added + decay * factor
    if one:
        cause: Cause | None = _marquardt(float(added[0]))
    else:
        cause = _by_group(added, np.where(np.abs(total) > 1e-9 * decay, total, 0.0), decay, base.selection.tensors)
    if cause is None:
        return None
    scale = () if factor == 1.0 else (search.scales.cause(factor, max(limit / lengths[0], 1e-14), base.data.samples),)
    model = CandidateModel(curvature, part, order.source, factor, factor * decay, diagonal=moved @ added)
    return _verified(search, model, (*causes, *scale, cause), base, order)


def _marquardt(value: float) -> Cause | None:
    if value == 0.0:
        return None
    shown = rounded(value, abs(value))
    return Cause(
        "damping-of-the-diagonal",
        f"{shown} times its own diagonal is added (Levenberg-Marquardt damping)",
        f"subtract {shown} * numpy.diag(H.diagonal())",
    )


def _by_group(added: Values, total: Values, decay: float, tensors: Sequence[Tensor]) -> Cause | None:
    """Return the cause for one multiple of the identity per weight and bias; `total` includes weight decay."""
    if np.ptp(added) <= 1e-9 * float(np.abs(added).max()):
        return None  # the same value everywhere is damping
    size = float(np.abs(total).max())
    shown = [rounded(float(value), size) for value in total]
    weights = {text for text, tensor in zip(shown, tensors, strict=True) if tensor.name == "weight"}
    biases = {text for text, tensor in zip(shown, tensors, strict=True) if tensor.name == "bias"}
    values = listed([f"{text} for {symbol(tensor)}" for text, tensor in zip(shown, tensors, strict=True)])
    besides = f" (weight_decay={decay:g} acts on every parameter)" if decay else ""
    subtract = "subtract it: numpy.diag(numpy.repeat([{}], [{}]))".format(
        ", ".join(rounded(float(value), size) for value in added), ", ".join(str(t.stop - t.start) for t in tensors)
    )
    if len(weights) == len(biases) == 1 and "0" in weights | biases:
        decayed, undecayed = ("weights", "biases") if biases == {"0"} else ("biases", "weights")
        value = (weights | biases) - {"0"}
        return Cause(
            f"decay-of-{decayed}-only",
            f"weight decay acts on the {decayed} only, {value.pop()} times the identity there and nothing on the "
            f"{undecayed}{besides}",
            f"{subtract}; SquaredLoss(weight_decay=...) acts on weights and biases alike",
        )
    by_layer = all(
        len({text for text, tensor in zip(shown, tensors, strict=True) if tensor.layer == layer}) == 1
        for layer in {tensor.layer for tensor in tensors}
    )
    return Cause(
        "damping-by-layer" if by_layer else "damping-by-parameter",
        f"each {'layer' if by_layer else 'weight and bias'} has damping or weight decay of its own: {values}{besides}",
        subtract,
    )
