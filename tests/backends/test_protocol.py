"""The state of a descent: what a backend does not keep is empty, and nobody can write into it."""

import numpy as np
import pytest

from hesskern.backends.protocol import State


def test_what_is_not_kept_is_empty_and_read_only():
    theta = np.zeros(3)
    state = State(steps=2, target=-1.0, parameters=theta, previous=theta, velocity=theta[:0])
    assert (state.growth_step, state.search_step, state.search_rest, state.search_drift) == (-1, -1, 0.0, 0.0)
    assert state.search.shape == (0, 0)
    for array in (state.growth, state.growth_rate, state.search):
        assert array.size == 0
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1.0
