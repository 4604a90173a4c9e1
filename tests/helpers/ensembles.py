"""Ensembles beside ensembles of one, and beside single runs."""

from __future__ import annotations

import numpy as np
from witness import relative

import hesskern as hk


def same_as_alone(runs, nets, losses, **options):
    """Compare with ensembles of one, to the bit, and with `fit`, which adds in another order, to rounding.

    Options that are lists have one entry a network.
    """
    assert runs.status.shape == runs.steps.shape == (len(runs),) == (len(nets),)
    assert runs.steps.dtype == np.int64
    longest = 0
    for b, net in enumerate(nets):
        loss = losses[b] if isinstance(losses, list) else losses
        own = {name: value[b] if isinstance(value, list) else value for name, value in options.items()}
        single = hk.fit(net, loss, **own)
        if np.ndim(own["lr"]):
            own["lr"] = own["lr"][None]
        alone = hk.fit_ensemble([net], loss, **own)
        assert (runs.status[b], runs.steps[b]) == (alone.status[0], alone.steps[0]) == (single.status, single.steps)
        for layer, weight in enumerate(alone.weights):
            np.testing.assert_array_equal(runs.weights[layer][b], weight[0])
            bias = alone.biases[layer]
            if bias is None:
                assert runs.biases[layer] is None
            else:
                np.testing.assert_array_equal(runs.biases[layer][b], bias[0])
        eps = np.finfo(net.dtype).eps
        relative(runs.network(b).flatten(), single.network.flatten(), 1e4 * eps)
        assert set(runs.history) == set(alone.history) == set(single.history)
        count = len(single.history["step"])
        longest = max(longest, count)
        for name, values in single.history.items():
            if name == "step":
                continue
            found = runs.history[name]
            assert found.shape == (len(nets), len(runs.history["step"]), *values.shape[1:]), name
            np.testing.assert_array_equal(found[b, :count], alone.history[name][0], err_msg=name)
            assert np.isnan(found[b, count:]).all(), name
            np.testing.assert_allclose(found[b, :count], values, rtol=1e6 * eps, atol=1e4 * eps, err_msg=name)
    assert len(runs.history["step"]) == longest
    np.testing.assert_array_equal(runs.history["step"], options.get("record_every", 1) * np.arange(longest))
