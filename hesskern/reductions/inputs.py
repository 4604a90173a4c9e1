r"""Only the inputs that the samples span are seen by the loss.

*When it holds.* For any loss. With samples ``X = R V.T`` (N, i) and orthonormal columns V (i, a), the prediction
depends on the first layer through ``W_1 V`` alone. It helps where there are fewer samples than inputs: a = N.

*What is left.* The network with the first layer ``W_1 V`` (m, a) and the samples R (N, a). Biases stay as they are.

*How results are transformed back.* The Hessian is zero for changes of ``W_1`` orthogonal to V: every eigenvector of the
small network gives one of the large one, ``v V.T``, and the others have the eigenvalue 0.

*What it costs.* One QR decomposition of ``X.T``, O(i N²). V is kept as reflectors, never formed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hesskern._base.array_types import Matrix
from hesskern._base.flat_layout import FlatLayout, join
from hesskern.backends.data import Data
from hesskern.backends.protocol import PlainLayers
from hesskern.linalg.eigenbasis import Eigenbasis, InnerAndZeros
from hesskern.linalg.tall_qr import TallQR
from hesskern.network.parameters import Part

#: A rotation that rounds up to this times more than the product is no loss.
_MIXED = 16.0


class InputSpan:
    """The space that fewer samples than inputs span, exactly: no rank is decided.

    Parameters
    ----------
    data : Data
        With N < i rows, in float64.
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        self._qr = TallQR(np.array(data.X.T, order="F"))

    @property
    def kept(self) -> int:
        """Number of inputs that are left."""
        return len(self._data.X)

    def left_out(self, net: PlainLayers) -> int:
        """Return how many parameters of the first layer of this network are left out."""
        units, inputs = net.weights[0].shape
        return int(units) * (int(inputs) - self.kept)

    def mixes_features(self, weight: Matrix) -> bool:
        """Return whether a rotation of the inputs rounds much more than the product with these weights (m, i) does.

        So it is where features are in very different units, and the weights compensate for that.
        """
        X = self._data.X
        product = np.abs(X) @ np.abs(weight).T
        return bool(np.linalg.norm(X) * np.linalg.norm(weight) > _MIXED * np.linalg.norm(product))

    @property
    def data(self) -> Data:
        """The samples in the new inputs (N, N)."""
        return self._data._replace(X=np.ascontiguousarray(self._qr.R.T))

    def reduced(self, net: PlainLayers) -> PlainLayers:
        """Return the network with the first layer ``W_1 V``."""
        first = np.ascontiguousarray(self.rotate(net.weights[0].T.astype(np.float64), back=False)[: self.kept].T)
        return PlainLayers((first, *net.weights[1:]), net.biases)

    def rotate(self, vectors: Matrix, *, back: bool) -> Matrix:
        """Return ``[V, V'].T vectors`` or (`back`) ``[V, V'] vectors``, with V' orthogonal to V."""
        return self._qr.rotate(vectors, back=back)


class InputsBasis(InnerAndZeros):
    """The eigenbasis of a network from that of the network with fewer inputs: its eigenvalues, and zeros.

    Parameters
    ----------
    span : InputSpan
    net : PlainLayers
        Before the reduction.
    inner : Eigenbasis
        After it.
    parts : sequence of Part
        With the weight of the first layer.
    """

    def __init__(self, span: InputSpan, net: PlainLayers, inner: Eigenbasis, parts: Sequence[Part]) -> None:
        self._span, self._net, self._inner, self._parts = span, net, inner, parts
        self._zeros = span.left_out(net)
        self.dense_size = inner.dense_size
        self.structural_zeros = inner.structural_zeros + self._zeros

    def coordinates(self, columns: Matrix) -> Matrix:
        layout = FlatLayout.of(self._net.weights, self._net.biases).select(self._parts)
        weights, biases = layout.split(columns, axis=0)
        kept, k = self._span.kept, columns.shape[1]
        turned = self._turned(weights[0], back=False)
        weights[0] = turned[:, :kept]
        inside = self._inner.coordinates(join(weights, biases, axis=0))
        return np.concatenate([inside, turned[:, kept:].reshape(-1, k)])

    def vectors(self, columns: Matrix) -> Matrix:
        small = self._span.reduced(self._net)
        k, units = columns.shape[1], len(self._net.weights[0])
        inside = self._inner.vectors(columns[: len(columns) - self._zeros])
        weights, biases = FlatLayout.of(small.weights, small.biases).select(self._parts).split(inside, axis=0)
        outside = columns[len(columns) - self._zeros :].reshape(units, -1, k)
        weights[0] = self._turned(np.concatenate([weights[0], outside], axis=1), back=True)
        vectors: Matrix = join(weights, biases, axis=0)
        return vectors

    def _turned(self, cube: Matrix, *, back: bool) -> Matrix:
        """Return weights (m, i, k) in the other coordinates of the inputs."""
        m, n, k = cube.shape
        flat = self._span.rotate(cube.transpose(1, 0, 2).reshape(n, m * k), back=back)
        return np.ascontiguousarray(flat.reshape(n, m, k).transpose(1, 0, 2))
