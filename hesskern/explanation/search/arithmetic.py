"""Arithmetic with fewer digits, recognised by the size and the pattern of its errors.

The same computation is done here in the format, which gives the errors S of the entries, and with random signs of all
rounding errors, which gives samples of possible errors. Another order of operations has other errors. But data, weights
and the numbers that every program computes from them are rounded alike, so the errors E of a candidate that comes from
this arithmetic

- are as large as the samples, relative to each entry's own spread;
- agree with S more than a sample does. Most of any difference lies in a few directions (a little more of one weight),
  in which everything agrees by chance. These are removed first: they are the principal directions of half of the
  samples. The other half shows how far the rest agrees by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern.explanation.given.candidate_model import CandidateModel
from hesskern.explanation.given.formats import Format
from hesskern.explanation.search.low_precision import Nearest, Rounding, Scattered, columns

Values = NDArray[np.float64]

#: Samples, half of them for the principal directions, and the number of directions that are removed.
_SAMPLES, _DIRECTIONS = 64, 8

#: The most columns, and the most floating-point operations for all samples together.
_COLUMNS, _BUDGET = 64, 2e9

#: How large errors may be, as a multiple of the samples': closed forms round less often than autograd, and sums can be
#: computed in many orders.
_SMALLEST, _LARGEST = 0.2, 2.2


class Pattern(NamedTuple):
    """How the errors of a candidate compare with those of a format.

    Attributes
    ----------
    size : float
        Root mean square of the errors, in units of the samples' standard deviation of each entry.
    agreement : float
        Correlation with the errors of the same computation here, outside the principal directions.
    chance : float
        Standard deviation of that correlation for samples.
    """

    size: float
    agreement: float
    chance: float

    def shows(self, deviations: float) -> bool:
        """Whether the size fits and the agreement is this many standard deviations above chance."""
        return _SMALLEST <= self.size <= _LARGEST and self.agreement >= deviations * self.chance


def pattern(matrix: Values, model: CandidateModel, format_: Format) -> Pattern | None:
    """Compare a candidate's error with that of a format, in some columns; None if they cannot be compared.

    `model` is the candidate without its error: full, Gauss-Newton or block diagonal, of one set of data.
    """
    size = model.size
    terms = model.curvature.data.terms
    samples_ = sum(len(loss.X) for _, loss in terms)
    net = model.curvature.weights.net
    cost = samples_ * (8.0 * sum(w.size for w in net.weights) + 60.0 * sum(net.widths))
    count = int(np.clip(_BUDGET / (_SAMPLES * cost), 2, _COLUMNS))
    chosen = np.sort(np.random.default_rng(11).permutation(size)[:count])
    exact = _exact(model, chosen)
    error = matrix[:, chosen] - exact
    simulated = _computed(model, format_, Nearest(), chosen) - exact
    simulated_norm, error_norm = float(np.linalg.norm(simulated)), float(np.linalg.norm(error))
    if not error_norm or not 0.1 <= simulated_norm / error_norm <= 10.0:
        return None  # far too large or too small
    drawn = np.stack([(_computed(model, format_, Scattered(seed), chosen) - exact).ravel() for seed in range(_SAMPLES)])
    spread = np.sqrt(np.mean(np.square(drawn), axis=0))
    exact_zero = spread <= 1e-14 * float(np.abs(exact).max())
    floor = 4.0 * model.tolerance / size
    if np.abs(error.ravel()[exact_zero]).max(initial=0.0) > floor:
        return None  # entries that every order of operations gets exactly are not exact
    kept = ~exact_zero
    if np.count_nonzero(kept) < 2 * _DIRECTIONS:
        return None
    drawn = drawn[:, kept] / spread[kept]
    errors, simulated_errors = error.ravel()[kept] / spread[kept], simulated.ravel()[kept] / spread[kept]
    _, _, directions = decompositions.svd(drawn[::2], full_matrices=False)
    taken_out = directions[:_DIRECTIONS]
    residuals = [vector - (vector @ taken_out.T) @ taken_out for vector in (errors, simulated_errors)]
    unused = drawn[1::2] - (drawn[1::2] @ taken_out.T) @ taken_out
    by_chance = [np.sqrt(np.mean([_correlation(other, one) ** 2 for other in unused])) for one in residuals]
    return Pattern(float(np.sqrt(np.mean(np.square(errors)))), _correlation(*residuals), float(max(by_chance)))


def _correlation(one: Values, two: Values) -> float:
    norms = float(np.linalg.norm(one) * np.linalg.norm(two))
    return float(np.vdot(one, two)) / norms if norms else 0.0


def _source(model: CandidateModel, chosen: NDArray[np.intp]) -> NDArray[np.intp]:
    return chosen if model.index is None else model.index[chosen]


def _ordered(model: CandidateModel, part: Values, chosen: NDArray[np.intp]) -> Values:
    """Return columns of a part, at `_source`, as columns of the model."""
    out = model.factor * (part if model.index is None else part[model.index])
    out[chosen, np.arange(len(chosen))] += model.shift
    return out


def _exact(model: CandidateModel, chosen: NDArray[np.intp]) -> Values:
    units = np.zeros((model.size, len(chosen)))
    units[_source(model, chosen), np.arange(len(chosen))] = 1.0
    return _ordered(model, model.curvature.product(model.part, units), chosen)


def _computed(model: CandidateModel, format_: Format, rounding: Rounding, chosen: NDArray[np.intp]) -> Values:
    """Return columns of the model as a program in this format computes them."""
    curvature, at = model.curvature, _source(model, chosen)
    part: Values | float = 0.0
    for factor, loss in curvature.data.terms:
        one_sided = model.part == "gauss_newton"
        net, tensors = curvature.weights.net, curvature.tensors
        part = part + factor * columns(format_, rounding, net, loss, tensors, at, gauss_newton=one_sided)
    assert not isinstance(part, float)
    if model.part in ("layers", "tensors"):
        group = _groups([(t.layer if model.part == "layers" else k, t.stop - t.start) for k, t in
                         enumerate(curvature.tensors)])  # fmt: skip
        part = np.where(group[:, None] == group[at][None, :], part, 0.0)
    return rounding.round(_ordered(model, part, chosen), format_.product_bits)


def _groups(sizes: Sequence[tuple[int, int]]) -> NDArray[np.intp]:
    return np.concatenate([np.full(size, group, dtype=np.intp) for group, size in sizes])
