"""A few extreme eigenpairs of a network's Hessian after the reductions of width, and whether any was missed.

Products with the reduced network take microseconds, so a Krylov method finds a few eigenvalues in a small part of the
time that all of them take. It may miss copies of a repeated eigenvalue. A certificate shows whether it did
(`hesskern.linalg.certificate`); if so, it continues with more start vectors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hesskern._base.flat_layout import FlatLayout, count
from hesskern._base.interrupt import RATE
from hesskern.backends.data import Data
from hesskern.backends.protocol import HostBackend, PlainLayers
from hesskern.curvature.eigenvalue_errors import EigenvalueErrors
from hesskern.curvature.layer_factors import Mode
from hesskern.curvature.reduced_problem import ReducedProblem
from hesskern.curvature.shifted import DenseShifted, TwoLayers
from hesskern.linalg.eigenbasis import ValuesOnly
from hesskern.linalg.extreme_pairs import NOT_ASKED, FewPairs, ToFactorise, searched, worthwhile
from hesskern.linalg.symmetric_operator import Which
from hesskern.network.parameters import Part


class FewWanted(NamedTuple):
    """Which eigenpairs of which Hessian."""

    parts: Sequence[Part]
    mode: Mode
    backend: HostBackend
    k: int
    which: Which
    offset: float  # a multiple of the identity that decides which are the largest in magnitude
    sure: bool  # whether a certificate is wanted


def of_problem(problem: ReducedProblem, question: FewWanted, errors: EigenvalueErrors) -> FewPairs | None:
    """Return a few eigenpairs of a Hessian; None where all of them are cheaper.

    Parameters
    ----------
    problem : ReducedProblem
        Made for eigenvectors.
    question : FewWanted
    errors : EigenvalueErrors
        Of this Hessian.
    """
    parts, mode, backend, k, which, offset, sure = question
    if which == "SM" or mode == "functional" or (which == "SA" and mode == "gauss_newton"):
        return None  # eigenvalues close to zero, which a Krylov method finds slowly; the functional part is quick
    factors, size = problem.factors, problem.likely_size
    layers = PlainLayers(tuple(factors.weights), tuple(factors.biases))
    length = count(layers.weights, layers.biases)
    chosen = FlatLayout.of(layers.weights, layers.biases).positions(parts)
    if not worthwhile(size, length if chosen is None else len(chosen), k):
        return None
    inside = None
    if chosen is not None:
        inside = np.zeros(length)
        inside[chosen] = 1.0
    product = backend.hessian_product(
        layers,
        Data(factors.X, factors.column if factors.has_bias else None, factors.Y, 0.0),
        scale=factors.scale,
        decay=0.0,
        gauss_newton=True,
        functional=mode != "gauss_newton",
    )
    take = functools.partial(backend.krylov_steps, product, inside)
    tests = [ToFactorise(size, lambda: DenseShifted(factors, parts, mode, errors.residual_error, backend))]
    if factors.depth == 2 and len(parts) == 2:
        upper, weight = parts[1], layers.weights[1]
        rows = len(weight) * (weight.shape[1] * upper.weight + upper.bias)
        tests.insert(0, ToFactorise(rows, lambda: TwoLayers(factors, parts, mode)))
    seconds = 8.0 * length * len(factors.X) / RATE
    refusal = "" if sure else NOT_ASKED
    few = searched(take, length, k, which, tests, inside, chosen, offset=offset, seconds=seconds, refusal=refusal)
    basis = problem.lifted(few.basis)
    error = few.error
    if few.certified:  # the matrix itself has the rounding errors of its factors
        error += errors.tolerances(ValuesOnly(np.array([few.scale]), dense_size=max(size, 1)))[1]
    return few._replace(basis=basis, values=basis.values + offset, error=error)
