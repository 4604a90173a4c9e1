"""`hesskern.explain`: checks what was given, searches, and says what was found."""

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
    r"""Say why a Hessian that somebody computed is not the Hessian.

    Tries what usually goes wrong, alone and together: transposed data, targets or weights, swapped layers, other orders
    of the parameters, constant factors, parts of the Hessian, weight decay, other weights, parts of the data, lower
    precision and finite differences. A cause is reported only if it brings the difference down to rounding.

    Parameters
    ----------
    candidate : (P, P) array, (P,) array, or number
        A dense matrix (Hessian, block, Gauss-Newton matrix), all or all nonzero eigenvalues in any order, or one
        number: a condition number, rank or largest eigenvalue. A number may be text: its digits say how precise it is.
    net : LinearNetwork
    loss : SquaredLoss
        What the Hessian should have been of.
    params : sequence of int or str, optional
        With respect to which parameters, as in ``loss.hessian(net, params)``.
    quantity : {"condition", "rank", "largest"}, optional
        What a number is; default: any of them.
    trajectory : sequence of LinearNetwork, optional
        Networks before and after, during training for instance, that the candidate may have been taken at.
    lr : float, optional
        Learning rate of a full-batch step that the weights may be off by; otherwise it is estimated.
    batch_size : int, optional
        Of the minibatches that were used; otherwise the usual ones are tried.

    Returns
    -------
    Explanation
        ``print`` it; or `status`, `verdict`, `findings`, `corrected`, ``as_dict()``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be. A candidate that holds NaN, or has a size that no parameters have, is
        not refused but explained.
    MemoryError
        If a second matrix of the candidate's size does not fit in memory.

    Notes
    -----
    Sorted diagonals and products with random vectors exclude nearly everything at O(P) each, so the candidate is read a
    few times only: O(P²).

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
    with np.errstate(all="ignore"):  # other data and weights may overflow where these do not; then they are not it
        question = Question(net, loss, params, trajectory, lr, batch_size)
        if quantity is not None:
            checks.one_of(quantity, "quantity", QUANTITIES)
        parsed = read_candidate(candidate)
        if quantity is not None and parsed.kind != "number":
            raise ValueError(f"quantity is {quantity!r}, but the candidate is a {parsed.kind}; it goes with a number.")
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
