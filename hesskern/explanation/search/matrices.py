"""The search for what a dense matrix is: invariants first, then products with two random vectors, then every entry.

What can have happened consists of other data, other weights, another selection (together: another Hessian), then a part
of it, an order of the parameters, a factor and a shift. Three steps make the search cheap:

1. Orders, and all parts except the functional one, do not change the sorted diagonal, and no pairing of two vectors is
   closer than the sorted one. So a Hessian whose sorted diagonal does not fit the candidate's, with the best factor and
   shift, is ruled out together with all its parts and orders: O(P log P) each.
2. ``C @ V`` is computed once, O(P²); ``M @ V`` takes a few small products. A random V shows any difference.
3. The remaining models, usually one, are compared entry by entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base.cached import cached_property
from hesskern.explanation.given.candidate_model import PARTS, CandidateModel, Curvature, Difference, difference
from hesskern.explanation.given.causes import Cause, total
from hesskern.explanation.given.orders import Order, Tensor, orders
from hesskern.explanation.given.scales import Affine, Scales, affine, fit
from hesskern.explanation.given.selections import Selection
from hesskern.explanation.given.variants import DataVariant, WeightVariant

Values = NDArray[np.float64]

#: The most causes, not counting a factor and a shift.
MOST = 3

#: Relative difference up to which a model is near: a lower precision may explain the rest.
NEAR = 0.1

_VECTORS = 2


class Base(NamedTuple):
    """Another Hessian: its data, weights and selection."""

    data: DataVariant
    weights: WeightVariant
    selection: Selection

    @property
    def causes(self) -> tuple[Cause, ...]:
        """How it differs from the true Hessian."""
        return (*self.data.causes, *self.weights.causes, *self.selection.causes)

    @property
    def effort(self) -> int:
        """The key by which bases are sorted: the cost; prepared data with other weights come later, as less likely."""
        return total(self.causes) + (self.data.prepared and len(self.weights.causes) > 0)


class Match(NamedTuple):
    """A model that is the candidate, or close to it."""

    causes: tuple[Cause, ...]
    model: CandidateModel
    difference: Difference
    base: Base
    order: Order
    fitted: bool = False  # its factor and shift only fit the candidate, which is not exactly this model

    @property
    def cost(self) -> int:
        """How unlikely it is."""
        return total(self.causes)


class Search:
    """A candidate matrix, and the steps of the search for its model.

    Parameters
    ----------
    matrix : (P, P) array
    data, weights, selections
        The variants, the true one first in the first two.
    scales : Scales
    epsilon : float
        Rounding unit of the candidate.
    """

    def __init__(
        self,
        matrix: Values,
        data: Sequence[DataVariant],
        weights: Sequence[WeightVariant],
        selections: Sequence[Selection],
        scales: Scales,
        epsilon: float,
        *,
        skewed: bool = False,
    ) -> None:
        self.matrix, self.scales, self.epsilon = matrix, scales, epsilon
        self.data, self.weights = list(data), list(weights)
        self.selections = [selection for selection in selections if selection.size == len(matrix)]
        self._skewed = skewed
        self.vectors = np.random.default_rng(20240229).standard_normal((len(matrix), _VECTORS))
        self.products: Values = matrix @ self.vectors
        self._diagonal = np.sort(matrix.diagonal())
        self._compared_products: list[tuple[Values, Difference]] = []
        self._orders: dict[tuple[Tensor, ...], list[Order]] = {}

    @cached_property
    def _norm(self) -> float:
        return float(np.linalg.norm(self.products) / np.sqrt(_VECTORS))

    @cached_property
    def _diagonal_size(self) -> tuple[float, float]:
        """Norm of the candidate's diagonal, and of its distance from a constant one."""
        diagonal = self._diagonal
        return float(np.linalg.norm(diagonal)), float(np.linalg.norm(diagonal - diagonal.mean()))

    def matches(self, *, most: int = MOST) -> list[Match]:
        """Return the models of least cost that equal the candidate up to rounding."""
        best: list[Match] = []
        for base in self.bases(most):
            if (best and base.effort > best[0].cost) or (self._skewed and base.causes):
                break
            curvature = self.curvature(base)
            if self._skewed or self.diagonal_fits(curvature):
                for match in self._of_base(base, curvature, most, best[0].cost if best else None):
                    if not best or match.cost < best[0].cost:
                        best = [match]
                    elif match.cost == best[0].cost:
                        best.append(match)
        return best

    def bases(self, most: int) -> Iterator[Base]:
        """Yield the Hessians to try, the cheapest first."""
        every = [
            Base(data, weights, selection)
            for selection in self.selections
            for data in self.data
            for weights in self.weights
            if len(data.causes) + len(weights.causes) + len(selection.causes) <= most
        ]
        yield from sorted(every, key=lambda base: base.effort)

    def curvature(self, base: Base) -> Curvature:
        """Return the Hessian of a base."""
        return Curvature(base.data, base.weights, base.selection.tensors, self.epsilon)

    def diagonal_fits(self, curvature: Curvature, tolerance: float | None = None) -> bool:
        """Whether some factor and shift bring the sorted diagonals together, or the candidate's is constant.

        `tolerance`: Frobenius norm; default: rounding, which must stay below 5 % of what is compared.
        """
        diagonal, (size, spread) = self._diagonal, self._diagonal_size
        other = np.sort(curvature.diagonal)
        ones = np.ones_like(diagonal)
        for turned in (other, other[::-1]):  # a negative factor reverses the order
            best = fit(diagonal, turned, ones)
            if tolerance is None:
                if min(best.residual, spread) > 0.05 * size:
                    continue
                tolerance = curvature.rounding
            limit = tolerance * max(abs(best.factor), 1e-300) + 1e-14 * size
            if best.residual <= limit or spread <= max(tolerance, limit):
                return True
        return False

    def _of_base(self, base: Base, curvature: Curvature, most: int, limit: int | None) -> Iterator[Match]:
        """Yield the parts and orders of one Hessian that equal the candidate up to rounding."""
        room = most - len(base.causes)
        reach = limit
        for part, of_part in self._parts(curvature):
            for order in self.orders_of(base.selection.tensors):
                if len(of_part) + len(order.causes) > room:
                    break
                discrete = (*base.causes, *of_part, *order.causes)
                if reach is not None and total(discrete) > reach:
                    continue
                for sides in self._sides(order):
                    scaling = self._affine(curvature, part, order, sides, base.data.samples)
                    if scaling is None:
                        continue
                    causes = (*discrete, *scaling.causes)
                    if sides != "both":
                        causes = (*causes, _one_side(sides))
                    if reach is not None and total(causes) > reach:
                        continue
                    inner = 0.0 if sides == "both" else self.scales.decay
                    model = CandidateModel(
                        curvature, part, order.source, scaling.factor, scaling.shift, sides, inner=inner
                    )
                    entries = self._compared(model)
                    if entries.norm <= model.tolerance:
                        reach = total(causes)
                        yield Match(causes, model, entries, base, order)

    def _compared(self, model: CandidateModel) -> Difference:
        """Compare every entry; models that random vectors cannot tell apart are compared once."""
        product = self._model_product(model)
        for compared_product, entries in self._compared_products:
            if float(np.linalg.norm(product - compared_product)) <= np.sqrt(_VECTORS) * 1e-2 * model.tolerance:
                return entries
        self._compared_products.append((product, difference(self.matrix, model, model.curvature.tensors)))
        return self._compared_products[-1][1]

    def _model_product(self, model: CandidateModel) -> Values:
        product = model.factor * self.product(model.curvature, model.part, model.index, model.sides)
        if model.inner and model.index is not None:
            product += model.factor * model.inner * self._moved(model.index, model.sides)
        return product + model.shift * self.vectors

    def _sides(self, order: Order) -> tuple[str, ...]:
        """Return what an order may apply to; of a matrix that is not symmetric, only to rows or only to columns."""
        if not self._skewed:
            return ("both",)
        return () if order.source is None else ("rows", "columns")

    def _affine(self, curvature: Curvature, part: str, order: Order, sides: str, batch: int) -> Affine | None:
        T, scales = self.product(curvature, part, order.source, sides), self.scales
        if sides != "both" and scales.decay and order.source is not None:
            T, scales = T + scales.decay * self._moved(order.source, sides), replace(scales, decay=0.0)
        size = float(np.linalg.norm(T)) / np.sqrt(_VECTORS)
        if size <= curvature.rounding:
            return None  # nothing but rounding errors, whatever the factor
        return affine(
            self.products,
            T,
            self.vectors,
            scales,
            part=part,
            batch=batch,
            limit=3.0 * np.sqrt(_VECTORS) * curvature.rounding,
            rounding=max(8 * curvature.rounding / size, 1e-14),
        )

    def product(self, curvature: Curvature, part: str, index: NDArray[np.intp] | None, sides: str) -> Values:
        """Return the product of a part, in some order, with the random vectors."""
        moved = self.vectors
        if index is not None and sides != "rows":
            moved = np.empty_like(self.vectors)
            moved[index] = self.vectors
        product = curvature.product(part, moved)
        return product[index] if index is not None and sides != "columns" else product

    def _moved(self, index: NDArray[np.intp], sides: str) -> Values:
        """Return the identity in this order, of its rows or columns, times the random vectors."""
        if sides == "rows":
            return self.vectors[index]
        moved = np.empty_like(self.vectors)
        moved[index] = self.vectors
        return moved

    def orders_of(self, tensors: tuple[Tensor, ...]) -> list[Order]:
        """Return the orders of some parameters, computed once."""
        if tensors not in self._orders:
            self._orders[tensors] = orders(tensors)
        return self._orders[tensors]

    def _parts(self, curvature: Curvature) -> list[tuple[str, tuple[Cause, ...]]]:
        several = len(curvature.layers) > 1
        parts: list[tuple[str, tuple[Cause, ...]]] = [("full", ())]
        for part in PARTS:
            if (
                part == "diagonal"
                or (several and part != "tensors")
                or (part == "tensors" and len(curvature.tensors) > len(curvature.layers))
            ):
                parts.append((part, (PART_CAUSES[part],)))
        return parts

    def without(self, match: Match, cause: Cause) -> float:
        """Return the relative error of the model with one of its causes left out, from the random vectors."""
        base, model, true = match.base, match.model, (self.data[0], self.weights[0])
        tensors = base.selection.tensors
        if cause in base.selection.causes:
            return 1.0
        kept = Base(
            true[0] if cause in base.data.causes else base.data,
            true[1] if cause in base.weights.causes else base.weights,
            base.selection,
        )
        part = "full" if cause in PART_CAUSES.values() else model.part
        other_causes = tuple(other for other in match.order.causes if other != cause)
        index = next((order.source for order in self.orders_of(tensors) if order.causes == other_causes), None)
        index = model.index if other_causes == match.order.causes else index
        scaled, shifted = cause.key.startswith("scale"), cause.key == "damping"
        factor = 1.0 if scaled else model.factor
        shift = self.scales.decay if shifted else model.shift * (factor / model.factor if scaled else 1.0)
        T = self.product(self.curvature(kept), part, index, "both" if cause.key.startswith("order-of") else model.sides)
        rest_norm = float(np.linalg.norm(self.products - factor * T - shift * self.vectors)) / np.sqrt(_VECTORS)
        largest = max(self._norm, float(np.linalg.norm(factor * T + shift * self.vectors)) / np.sqrt(_VECTORS))
        return float(rest_norm / largest)

    def near(self, most: int = 2) -> list[Match]:
        """Return models that come close to the candidate, the closest first among those of least cost."""
        matches: list[Match] = []
        for base in self.bases(1):
            curvature = self.curvature(base)
            if not self.diagonal_fits(curvature, NEAR * self._norm):
                continue
            for part, of_part in self._parts(curvature):
                for order in self.orders_of(base.selection.tensors):
                    causes = (*base.causes, *of_part, *order.causes)
                    if len(causes) <= most:
                        matches += self._near(curvature, causes, part, order, base)
        closest = min((match.difference.norm for match in matches), default=0.0)
        return sorted(
            matches, key=lambda match: (match.difference.norm > 1.01 * closest, match.cost, match.difference.norm)
        )

    def _near(
        self, curvature: Curvature, causes: tuple[Cause, ...], part: str, order: Order, base: Base
    ) -> Iterator[Match]:
        """Yield the model with factor 1 and with the nearest named factors, if random vectors show that it is near."""
        T = self.product(curvature, part, order.source, "both")
        size = float(np.linalg.norm(T))
        if size <= np.sqrt(_VECTORS) * curvature.rounding:
            return
        V, S, decay = self.vectors, self.products, self.scales.decay
        free, samples = fit(S, T, V), base.data.samples
        factor = free.factor
        values = [1.0] if abs(factor - 1) <= 1e-3 else [1.0, -1.0, *self.scales.nearest(factor, NEAR, samples)]
        named = False
        alone = (0.0,) if part in ("gauss_newton", "functional") else ()
        scalings = [
            (value, shift, False) for value in values for shift in dict.fromkeys([decay, value * decay, *alone])
        ]
        for value, shift, fitted in [*scalings, (free.factor, free.shift, True)]:
            residual = float(np.linalg.norm(S - value * T - shift * V)) / np.sqrt(_VECTORS)
            if residual <= NEAR * self._norm and value != 0.0 and not (fitted and named):
                scale = (self.scales.cause(value, 1e-14, samples),) if value != 1.0 and not fitted else ()
                model = CandidateModel(curvature, part, order.source, value, shift)
                entries = difference(self.matrix, model, curvature.tensors)
                yield Match((*causes, *scale), model, entries, base, order, fitted)
                named = True

    def affine_of(self, match: Match, curvature: Curvature) -> Affine | None:
        """Return the factor and shift that bring a match with another curvature to the candidate, or None."""
        return self._affine(curvature, match.model.part, match.order, match.model.sides, match.base.data.samples)


def _one_side(sides: str) -> Cause:
    other = "columns" if sides == "rows" else "rows"
    return Cause(
        f"order-of-{sides}",
        f"only the {sides} have this order, so the matrix is not symmetric",
        f"put the {other} in the same order: H[index][:, index]",
    )


PART_CAUSES = {
    "gauss_newton": Cause(
        "gauss-newton",
        "it is the Gauss-Newton part J.T @ J alone",
        "add the second derivatives of the network, weighted by the residual: H.gauss_newton() + "
        "H.functional(), or H itself",
    ),
    "functional": Cause(
        "functional",
        "it is the functional part alone, the second derivatives weighted by the residual",
        "add the Gauss-Newton part J.T @ J: H.gauss_newton() + H.functional(), or H itself",
    ),
    "opposed": Cause(
        "functional-negated",
        "the functional part is subtracted, not added: the residual has the wrong sign",
        "the residual is prediction - Y, not Y - prediction: H.gauss_newton() + H.functional(), or H itself",
    ),
    "layers": Cause(
        "block-diagonal",
        "the blocks between layers are zero",
        "fill in the cross blocks H.block(l, m), or compare with the diagonal blocks H.block(l, l)",
    ),
    "tensors": Cause(
        "block-diagonal-tensors",
        "the blocks between different parameters are zero, also between a weight and its bias",
        "differentiate the whole gradient with respect to every parameter, not each parameter's own gradient",
    ),
    "diagonal": Cause(
        "diagonal-only",
        "everything off the diagonal is zero",
        "fill in the rest: H.toarray(), or compare with H.diagonal()",
    ),
    "exchanged": Cause(
        "factors-exchanged",
        "the Kronecker factors of the diagonal blocks are exchanged, while the cross blocks are not",
        "use numpy.kron(B.T @ B, A), output factor first, in the diagonal blocks",
    ),
}
