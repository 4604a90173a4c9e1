"""Parameters cut out of one vector: where they begin, and what is left between them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hesskern.torch.model_problem import RequestedParameter  # noqa: E402
from hesskern.torch.vector_slices import VectorSlice, offset, split_leaf  # noqa: E402
from hesskern.torch_modules.chain import Parameter  # noqa: E402


@pytest.mark.parametrize(
    ("name", "arguments", "at"),
    [
        ("getitem", (None, slice(3, 7)), 3),
        ("getitem", (None, slice(-4, None)), 6),
        ("getitem", (None, slice(None, 5, 2)), None),
        ("getitem", (None, 3), None),
        ("narrow", (None, 0, -2, 2), 8),
        ("split", (None, [3, 7]), 0),
        ("view", (None, 3), None),
    ],
)
def test_where_an_operation_begins_to_cut(name, arguments, at):
    assert offset(name, arguments, 10) == at


def parameter(name, size):
    return Parameter(name, torch.zeros(size))


def test_what_nobody_uses_lies_between():
    pieces = {"b": VectorSlice("theta", 8), "a": VectorSlice("theta", 1), "c": VectorSlice("other", 0)}
    parameters = [parameter("b", 2), parameter("a", (2, 3)), parameter("c", 4), parameter("d", 1)]
    found = list(split_leaf(RequestedParameter("theta", torch.Size([12])), pieces, parameters))
    assert [(piece.name, piece.size) for piece in found] == [
        ("theta from 0", 1), ("a", 6), ("theta from 7", 1), ("b", 2), ("theta from 10", 2),
    ]  # fmt: skip


def test_pieces_that_overlap_are_refused():
    pieces = {"a": VectorSlice("theta", 0), "b": VectorSlice("theta", 3)}
    with pytest.raises(ValueError, match="func uses a part of b a second time in another parameter"):
        list(split_leaf(RequestedParameter("theta", torch.Size([8])), pieces, [parameter("a", 4), parameter("b", 4)]))


def test_the_numbers_of_a_piece():
    theta = torch.arange(10.0)
    assert torch.equal(VectorSlice("theta", 2).of({"theta": theta}, torch.Size([2, 3])), theta[2:8].reshape(2, 3))
