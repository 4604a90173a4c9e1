"""Ranks that theory predicts for generic weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hesskern._base import checks


class PredictedRank(NamedTuple):
    """Ranks of the Hessian and of its two parts."""

    gauss_newton: int
    functional: int
    full: int


def predicted_rank(widths: Sequence[int], N: int) -> PredictedRank:
    """Return the ranks of the Hessian of a network without biases at generic weights and a generic residual.

    Parameters
    ----------
    widths : sequence of int
        ``(m_0, ..., m_L)``.
    N : int
        Number of samples.

    Returns
    -------
    PredictedRank
        With r = min(N, m_0), K = m_L, q = min(r, K, hidden widths), s = min(r, K), M the sum of the hidden widths:
        ``q(r+K-q)``, ``2qM + 2qs - Lq²``, ``2qM - Lq² + q(r+K)``.

    Notes
    -----
    Singh, Bachmann, Hofmann (2021), "Analytic insights into structure and rank of neural network Hessian maps". At an
    interpolating minimum the functional part vanishes, so the Hessian has the rank of the Gauss-Newton part.

    Examples
    --------
    >>> import hesskern as hk
    >>> hk.predicted_rank([25, 5, 10, 10], N=100)
    PredictedRank(gauss_newton=150, functional=175, full=250)
    """
    sizes = checks.widths(widths)
    r = min(checks.integer(N, "N", 1, None), sizes[0])
    outputs, hidden, depth = sizes[-1], sizes[1:-1], len(sizes) - 1
    q, s, M = min([r, outputs, *hidden]), min(r, outputs), sum(hidden)
    gauss_newton = q * (r + outputs - q)
    if depth == 1:
        return PredictedRank(gauss_newton, 0, gauss_newton)
    return PredictedRank(
        gauss_newton, 2 * q * M + 2 * q * s - depth * q**2, 2 * q * M - depth * q**2 + q * (r + outputs)
    )
