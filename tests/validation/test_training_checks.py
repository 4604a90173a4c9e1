"""Broken training: a wrong step and another order of the minibatches are found."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk
from hesskern.backends.protocol import Update

pytest.importorskip("torch")
from broken_backends import broken, failed, given


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        (lambda update: update._replace(momentum=0.9 * update.momentum),
         {"momentum", "Nesterov", "minibatches, momentum"}),
        (lambda update: update._replace(nesterov=False), {"Nesterov"}),
        (lambda update: update._replace(nesterov=True) if update.momentum else update,
         {"momentum", "minibatches, momentum"}),
        (lambda update: Update(update.momentum, update.nesterov, 0.5 * update.decay),
         {"plain", "momentum", "Nesterov", "minibatches", "minibatches, momentum", "plain, not reduced",
          "plain, in an ensemble"}),
    ],
    ids=["momentum", "no Nesterov", "Nesterov", "decay"],
)  # fmt: skip
def test_a_wrong_step(monkeypatch, change, touched):
    def descent(original, *arguments, **options):
        return original(*arguments, **options | {"update": change(options["update"])})

    found = failed(broken(monkeypatch, "descent", descent))
    assert {name for name in found if name.startswith("training, ")} == {f"training, {name}" for name in touched}


def test_minibatches_in_another_order(monkeypatch):
    from hesskern.training.minibatches import Batches

    monkeypatch.setattr(Batches, "_epoch", lambda self, epoch: np.arange(self.samples))
    report = hk.validate(*given(), backends=["numpy"])
    assert failed(report) == {"training, minibatches", "training, minibatches, momentum"}
