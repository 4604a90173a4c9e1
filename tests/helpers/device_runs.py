"""Runs on a GPU, or with tensors in main memory in its place, beside the same runs here."""

from __future__ import annotations

import numpy as np
import problems
import pytest

import hesskern as hk

pytest.importorskip("torch")
import torch
from device_place import moved

TOLERANCE = {"float64": 1e-9, "float32": 2e-3}


def host(array):
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def close(found, wanted, dtype="float64"):
    found, wanted = host(found), host(wanted)
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=1e-30)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype] * scale)


def agree(found, wanted, dtype="float64"):
    assert (found.steps == wanted.steps) if isinstance(found, hk.Run) else (found.steps == wanted.steps).all()
    assert found.status == wanted.status if isinstance(found, hk.Run) else (found.status == wanted.status).all()
    assert set(found.history) == set(wanted.history)
    for name, column in wanted.history.items():
        assert isinstance(found.history[name], np.ndarray)
        close(found.history[name], column, dtype)
    assert (found.reduction.samples, found.reduction.widths) == (wanted.reduction.samples, wanted.reduction.widths)


def both(net, loss, **options):
    """The run there and here, compared."""
    there, lost = moved(net, loss)
    found, wanted = hk.fit(there, lost, **options), hk.fit(net, loss, **options)
    dtype = str(net.dtype)
    agree(found, wanted, dtype)
    assert found.network.device == "cuda:0"
    close(found.network.flatten(), wanted.network.flatten(), dtype)
    return found


def rate(net, loss):
    """A rate that is stable for all methods."""
    return 0.2 / max(
        hk.SquaredLoss(loss.X.astype(float), loss.Y.astype(float), loss.kind, loss.weight_decay)
        .hessian(
            hk.LinearNetwork(
                [w.astype(float) for w in net.weights], [None if b is None else b.astype(float) for b in net.biases]
            )
        )
        .spectrum()
        .max,
        1e-3,
    )


def ensemble(count, widths=(4, 12, 3), samples=10, **options):
    problem = problems.normal(list(widths), samples, 5, bias=True, **options)
    nets = [hk.LinearNetwork.random(widths, seed=seed, bias=True) for seed in range(count)]
    return nets, problem.loss()


def there(nets, loss):
    losses = loss if isinstance(loss, list) else [loss]
    lost = [moved(nets[0], each)[1] for each in losses]
    return [moved(net, losses[0])[0] for net in nets], lost if isinstance(loss, list) else lost[0]


def both_ensembles(nets, loss, **options):
    found, wanted = hk.fit_ensemble(*there(nets, loss), **options), hk.fit_ensemble(nets, loss, **options)
    agree(found, wanted)
    for f, w in zip((*found.weights, *found.biases), (*wanted.weights, *wanted.biases), strict=True):
        assert (w is None) == (f is None)
        assert f is None or isinstance(f, torch.Tensor)
        close(0.0 if f is None else f, 0.0 if w is None else w)
    return found
