"""A model of a candidate: parts of the Hessian, orders, factors and shifts, against the matrices that they are."""

from __future__ import annotations

import corruptions
import judged
import numpy as np
import pytest

from hesskern.explanation.given.candidate_model import CandidateModel, difference
from hesskern.explanation.given.question import Question


@pytest.fixture(scope="module")
def case():
    """A problem without weight decay, its question, and its Gauss-Newton and functional part by plain NumPy."""
    problem = corruptions.random_problem(1)
    assert problem.decay == 0.0
    return problem, Question(*judged.given(problem), None, (), None, None), corruptions.parts(problem, problem.names)


def matrix_of(case, part):
    """A part as a matrix."""
    problem, _, (gauss_newton, functional) = case
    full = gauss_newton + functional
    found, size = corruptions.layout(problem, problem.names)
    blocks = np.zeros((2, size), int)  # the layer and the tensor of each parameter
    for number, (layer, _, start, shape) in enumerate(found):
        blocks[:, start : start + int(np.prod(shape))] = [[layer], [number]]
    same = blocks[:, :, None] == blocks[:, None, :]
    return {
        "full": full, "gauss_newton": gauss_newton, "functional": functional, "opposed": gauss_newton - functional,
        "layers": np.where(same[0], full, 0.0), "tensors": np.where(same[1], full, 0.0),
        "diagonal": np.diag(np.diag(full)),
    }[part]  # fmt: skip


PARTS = ("full", "gauss_newton", "functional", "opposed", "layers", "tensors", "diagonal")


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_its_matrix(case, part):
    curvature, wanted = case[1].truth(), matrix_of(case, part)
    limit = 1e-12 * np.abs(matrix_of(case, "full")).max()
    V = np.random.default_rng(0).standard_normal((len(wanted), 2))
    np.testing.assert_allclose(curvature.dense(part), wanted, rtol=0, atol=limit)
    np.testing.assert_allclose(curvature.product(part, V), wanted @ V, rtol=0, atol=20 * limit)
    np.testing.assert_allclose(curvature.eigenvalues(part), np.linalg.eigvalsh(wanted), rtol=0, atol=10 * limit)
    np.testing.assert_allclose(curvature.diagonal, np.diag(matrix_of(case, "full")), rtol=0, atol=limit)


@pytest.mark.parametrize("sides", ["both", "rows", "columns"])
@pytest.mark.parametrize("triangle", ["", "upper", "lower"])
def test_orders_factors_shifts_and_triangles(case, sides, triangle):
    full = matrix_of(case, "full")
    index = np.random.default_rng(1).permutation(len(full))
    model = CandidateModel(case[1].truth(), index=index, factor=-2.0, shift=0.5, sides=sides, triangle=triangle)
    wanted = full[index] if sides != "columns" else full
    wanted = wanted[:, index] if sides != "rows" else wanted
    wanted = -2.0 * wanted + 0.5 * np.eye(len(full))
    wanted = {"": wanted, "upper": np.triu(wanted), "lower": np.tril(wanted)}[triangle]
    np.testing.assert_allclose(model.toarray(), wanted, rtol=0, atol=1e-12 * np.abs(full).max())
    np.testing.assert_array_equal(model.rows(slice(3, 5)), model.toarray()[3:5])


def test_where_a_candidate_differs(case):
    model = CandidateModel(case[1].truth())
    tensors = case[1].selection.tensors
    matrix = model.toarray()
    matrix[2, 7] += 3.0
    matrix[0, 1] -= 1.0
    found = difference(matrix, model, tensors)
    assert found.norm == pytest.approx(np.sqrt(10.0)) and found.where == (2, 7) and found.largest == pytest.approx(3.0)
    assert found.candidate == pytest.approx(np.linalg.norm(matrix))
    assert found.row_norms[2] == pytest.approx(3.0) and np.count_nonzero(found.row_norms) == 2
    assert np.sum(found.blocks**2) == pytest.approx(10.0)
