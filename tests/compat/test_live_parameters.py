"""A model's problem as its parameters move: made anew when a number or a tensor is another, and only then."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from hesskern.compat.live_parameters import CountedBatches, LiveProblem, keep, per_batch, split, trained  # noqa: E402
from hesskern.torch.losses import LossScale  # noqa: E402


class Counting:
    """Makes a new object each time."""

    def __init__(self):
        self.made = 0

    def __call__(self):
        self.made += 1
        return object()


def test_the_problem_is_made_anew_when_something_has_moved():
    model, extra, make = nn.BatchNorm1d(3), torch.zeros(2), Counting()
    live = LiveProblem(make, model, [extra])
    first = live.problem
    assert live.problem is first and make.made == 1
    with torch.no_grad():
        model.weight[1] += 1.0
    second = live.problem
    assert second is not first and live.problem is second
    model.running_mean[0] = 5.0  # a buffer
    assert live.problem is not second
    extra[0] = 1.0
    third = live.problem
    model.weight = nn.Parameter(model.weight.detach().clone())  # the same numbers in another tensor
    assert live.problem is not third
    assert make.made == 5


def test_batches_are_counted_and_moved():
    batches = CountedBatches([(torch.ones(2, 3), torch.ones(2, 1))] * 3 + ["no pair"], torch.device("meta"))
    found = list(batches)
    assert batches.count == 4 and found[-1] == "no pair"
    assert all(tensor.device.type == "meta" for pair in found[:-1] for tensor in pair)
    with pytest.raises(TypeError, match=r"^data is 3 .*; expected a DataLoader of pairs"):
        list(CountedBatches(3, torch.device("cpu")))


def test_what_a_library_that_averages_over_batches_multiplies_by():
    assert per_batch(LossScale(2.0, per_sample=True), samples=10, batches=4) == 2.0 / 10
    assert per_batch(LossScale(2.0, per_sample=False), samples=10, batches=4) == 2.0 / 4


@pytest.mark.parametrize("columns", [(), (4,)])
def test_vectors_in_the_shapes_of_parameters(columns):
    vector = torch.randn(8, *columns)
    one, other = split(vector, [torch.Size([2, 3]), torch.Size([2])])
    assert one.shape == (2, 3, *columns) and other.shape == (2, *columns)
    assert torch.equal(torch.cat([one.reshape(6, *columns), other]), vector)


def test_parameters_that_are_trained():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert list(trained(model)) == ["weight"]
    model.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="model has no parameter that requires grad"):
        trained(model)


@pytest.mark.parametrize(("raised", "caught"), [(TypeError, TypeError), (UnicodeError, ValueError)])
def test_refusals_say_what_to_keep(raised, caught):
    with pytest.raises(caught, match=r"^no\. For this model and loss keep the original\.$"), keep("the original"):
        raise raised("no.")
