"""Parameters that a matrix can belong to: those asked for, and others of its size."""

from __future__ import annotations

import corruptions
import judged
import numpy as np
import pytest

import hesskern as hk


@pytest.mark.parametrize("seed", [1, 3, 6])
def test_blocks_of_layers(seed):
    problem = corruptions.random_problem(seed)
    net, loss = judged.given(problem)
    for layer in range(net.depth):
        names = [name for name in problem.names if name.startswith(f"{layer}.")]
        block = corruptions.hessian(problem, names)
        assert hk.explain(block, net, loss, params=[layer]).status == "match"
        stacked = corruptions.corrupted(problem, ["vec-column"], asked=names)
        why = hk.explain(stacked, net, loss, params=[layer])
        assert [finding.cause for finding in why.findings] in ([], ["vec-column"])
        assert why.status == "match" or any("numpy.kron" in other for other in why.findings[0].also)
        if names != problem.names:
            why = hk.explain(block, net, loss)
            assert why.findings[0].cause == f"block[{','.join(names)}]"
            assert why.before is None  # of another size: there is nothing to compare


def test_another_layers_block_of_the_same_size():
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork([rng.standard_normal((7, 4)), rng.standard_normal((4, 7))])
    loss = hk.SquaredLoss(rng.standard_normal((9, 4)), rng.standard_normal((9, 4)))
    why = hk.explain(loss.hessian(net, params=[0]).toarray(), net, loss, params=[1])
    assert [finding.cause for finding in why.findings] == ["block[0.weight]"]
    assert "the block of W1, not that of W2" in why.findings[0].words
