r"""A layer sees only the span of its inputs: fewer samples than features leave as many directions as samples.

*When it holds.* Always, for any loss. It helps where there are fewer samples N than features d, the constant one
included: ``F.T = Q [R; 0]`` with an orthogonal Q (d, d), so features in the new coordinates are ``[R.T, 0]``, and no
derivative with respect to the weights of the last d - N of them is anything but zero.

*What is left.* A layer with the N x N features ``R.T``; everything else is exactly zero.

*What it costs.* One QR decomposition, O(N² d). Q is kept as reflectors (`TallQR`), N of length d.

*What is lost.* Nothing but rounding: each sample changes by a few units of rounding relative to its own length, so
samples of very different sizes keep their digits. No direction is dropped: repeated samples, or repeated and constant
features, leave zeros among the singular values of what is left.
"""

from __future__ import annotations

import numpy as np

from hesskern._base.array_types import Matrix
from hesskern.linalg.tall_qr import TallQR


class FeatureSpan:
    """Orthogonal coordinates of the features, of which the first ones span all samples.

    Parameters
    ----------
    features : (N, d) array
        Samples in rows.

    Attributes
    ----------
    size : int
        The number of features, d.
    kept : int
        How many coordinates are left: N, or d if there are not fewer samples than features.
    coordinates : (N, kept) array
        The features in these coordinates; all other coordinates are zero.

    Examples
    --------
    >>> import numpy as np
    >>> span = FeatureSpan(np.array([[3.0, 0.0, 4.0]]))
    >>> span.kept, abs(span.coordinates)
    (1, array([[5.]]))
    >>> abs(span.rotate(np.array([[3.0], [0.0], [4.0]]), back=False)).round(12).ravel()
    array([5., 0., 0.])
    """

    def __init__(self, features: Matrix) -> None:
        self.size = int(features.shape[1])
        self._qr: TallQR | None = None
        self.coordinates: Matrix = features
        if len(features) < self.size:
            # Each sample over a power of two: entries near 1e308 would overflow in sums, and nothing is rounded.
            exponents = np.frexp(np.abs(features).max(axis=1, keepdims=True))[1]
            self._qr = TallQR(np.asfortranarray(np.ldexp(features, -exponents).T))
            self.coordinates = np.ascontiguousarray(np.ldexp(self._qr.R.T, exponents))
        self.kept = int(self.coordinates.shape[1])

    def rotate(self, vectors: Matrix, *, back: bool) -> Matrix:
        """Return the coordinates of vectors (d, k), or (`back`) the vectors of coordinates. O(N d k)."""
        return vectors if self._qr is None else self._qr.rotate(vectors, back=back)
