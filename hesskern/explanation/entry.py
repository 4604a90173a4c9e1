"""`hesskern.explain`: checks the candidate, searches, and says what it found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hesskern._base import checks
from hesskern.explanation.answer.explanation import Explanation
from hesskern.explanation.answer.invalid import invalid
from hesskern.explanation.answer.matrix_answer import MatrixAnswer
from hesskern.explanation.answer.number_answer import explain_number
from hesskern.explanation.answer.spectrum_answer import explain_spectrum
from hesskern.explanation.answer.vector_answer import explain_vector, has_shape_of
from hesskern.explanation.given.candidate import read_candidate
from hesskern.explanation.given.question import Question
from hesskern.explanation.search.numbers import QUANTITIES, Quantity
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork


def explain(
    candidate: object,
    net: LinearNetwork,
    loss: SquaredLoss,
    params: Sequence[int | str] | None = None,
    *,
    quantity: Quantity | None = None,
    trajectory: Sequence[LinearNetwork] = (),
    lr: float | None = None,
    batch_size: int | None = None,
) -> Explanation:
    r"""Explain why a Hessian that somebody computed differs from the exact one.

    Tries the usual mistakes, alone and combined: transposed data, targets or weights, swapped layers, other orders
    of the parameters, constant factors, parts of the Hessian, weight decay, other weights, parts of the data, lower
    precision and finite differences. A cause is reported only if it brings the difference down to rounding.

    Parameters
    ----------
    candidate : (P, P) array, (P,) array, or number
        A dense matrix (Hessian, block, Gauss-Newton matrix), all or all nonzero eigenvalues in any order, or one
        number: a condition number, rank or largest eigenvalue. A number may be text: its digits say how precise it is.
    net : LinearNetwork
    loss : SquaredLoss
        The Hessian should be that of this network and this loss.
    params : sequence of int or str, optional
        The parameters of the Hessian, as in ``loss.hessian(net, params)``.
    quantity : {"condition", "rank", "largest"}, optional
        What the number is; default: any of the three.
    trajectory : sequence of LinearNetwork, optional
        Other networks whose Hessian the candidate may be, for instance from earlier or later in training.
    lr : float, optional
        Learning rate of a full-batch step by which the weights may be off; estimated if not given.
    batch_size : int, optional
        Size of the minibatches that were used; the usual sizes are tried if not given.

    Returns
    -------
    Explanation
        ``print`` it, or read `status`, `verdict`, `findings`, `corrected`, ``as_dict()``.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. A candidate that contains NaN, or whose size fits no parameters, is not refused: the
        explanation says so.
    MemoryError
        If a second matrix of the candidate's size does not fit in memory.

    Notes
    -----
    Sorted diagonals and products with random vectors rule out nearly everything at O(P) each, so the candidate is read
    only a few times: O(P²).

    Examples
    --------
    >>> import numpy as np, hesskern as hk
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.standard_normal((4, 4)), rng.standard_normal((4, 2))
    >>> net, loss = hk.LinearNetwork.random([4, 3, 2], seed=0), hk.SquaredLoss(X, Y)
    >>> theirs = hk.SquaredLoss(X.T.copy(), Y).hessian(net).toarray()
    >>> why = hk.explain(theirs, net, loss)
    >>> why.status, [finding.cause for finding in why.findings]
    ('explained', ['X-transposed'])
    >>> why.findings[0].fix
    'use W1 @ X.T, not W1 @ X (and X.T @ X for X @ X.T): samples are rows, as nn.Linear takes them'
    """
    with np.errstate(all="ignore"):  # other data and weights may overflow where these do not, and are then ruled out
        question = Question(net, loss, params, trajectory, lr, batch_size)
        if quantity is not None:
            checks.one_of(quantity, "quantity", QUANTITIES)
        parsed = read_candidate(candidate)
        if quantity is not None and parsed.kind != "number":
            raise ValueError(
                f"quantity is {quantity!r}, but the candidate is a {parsed.kind}; quantity is for a number only."
            )
        if parsed.kind == "number":
            return explain_number(parsed, question, quantity)
        refused = invalid(parsed, question)
        if parsed.kind == "matrix" and (refused or has_shape_of(parsed, question)):
            refused = explain_vector(parsed, question) or refused
        if refused is not None:
            return refused
        return (
            explain_spectrum(parsed, question)
            if parsed.kind == "spectrum"
            else MatrixAnswer(parsed, question).explain()
        )
