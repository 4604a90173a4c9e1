"""Where networks on a device stand: at the start, and after a step back."""

import pytest

torch = pytest.importorskip("torch")

from hesskern.backends.cuda.state import CONVERGED, DIVERGED, RUNNING, DescentStates  # noqa: E402


def test_the_start_is_a_copy():
    parameters = torch.arange(6.0, dtype=torch.float64).reshape(3, 2)
    states = DescentStates.at(parameters, momentum=True)
    parameters += 1
    assert states.parameters.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert states.previous.data_ptr() != states.parameters.data_ptr()
    assert states.velocity.tolist() == [[0, 0]] * 3
    assert (states.target < 0).all() and states.target.dtype == torch.float64
    assert states.status.tolist() == [RUNNING] * 3
    assert DescentStates.at(parameters, momentum=False).velocity.shape == (3, 0)


def test_a_step_back_is_of_some_networks_only():
    states = DescentStates.at(torch.zeros(3, 2, dtype=torch.float64), momentum=False)
    states.parameters.add_(1.0)
    states.steps.add_(torch.tensor([2, 2, 0]))
    states.status[0] = CONVERGED
    states.step_back(torch.tensor([False, True, True]))
    assert states.parameters.tolist() == [[1, 1], [0, 0], [0, 0]]
    assert states.steps.tolist() == [2, 1, 0]
    assert states.status.tolist() == [CONVERGED, DIVERGED, DIVERGED]
