"""The eigenbasis of a last layer's Hessian: contrasts of the classes, directions of the features, a small basis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Matrix
from hesskern._base.cached import cached_property
from hesskern.curvature.softmax_factor import contrasts
from hesskern.linalg.eigenbasis import Values
from hesskern.linalg.spectrum import Spectrum
from hesskern.reductions.feature_span import FeatureSpan


class SoftmaxBasis:
    """Eigenvectors as small factors: one change of the classes, one of the features, and those of the factor.

    Parameters
    ----------
    values : (n,) array
        Eigenvalues of what is left, n = (C-1) times the kept coordinates of the features.
    vectors : (n, n) array
        Their eigenvectors in columns, ordered contrast by contrast.
    span : FeatureSpan
    classes : int
    order : (P,) array
        The position of each parameter in a matrix (C, d), row by row.
    dense_size : int
        Of what was decomposed.
    """

    def __init__(
        self,
        values: Values,
        vectors: Matrix,
        span: FeatureSpan,
        classes: int,
        order: NDArray[np.intp],
        dense_size: int,
    ) -> None:
        self._inner_values, self._inner, self._span, self._order = values, vectors, span, order
        shift = np.full((classes, 1), classes**-0.5)  # of all classes, which changes no probability
        self._of_classes = np.hstack([contrasts(classes), shift])
        self.dense_size = dense_size
        self.structural_zeros = len(order) - len(values)

    @cached_property
    def values(self) -> Values:
        return np.concatenate([self._inner_values, np.zeros(self.structural_zeros)])

    @cached_property
    def groups(self) -> Spectrum:
        count = np.ones(len(self._inner_values) + 1, np.int64)
        count[-1] = self.structural_zeros
        return Spectrum._of(np.append(self._inner_values, 0.0), count)

    def coordinates(self, columns: Matrix) -> Matrix:
        matrix = np.empty_like(columns)
        matrix[self._order] = columns
        classes, k = len(self._of_classes), columns.shape[1]
        turned = self._of_classes.T @ matrix.reshape(classes, -1)
        cube = self._features_turned(turned.reshape(classes, -1, k), back=False)
        inside, beside, shift = self._parts(cube)
        return np.concatenate([self._inner.T @ inside.reshape(-1, k), beside.reshape(-1, k), shift.reshape(-1, k)])

    def vectors(self, columns: Matrix) -> Matrix:
        classes, k, kept = len(self._of_classes), columns.shape[1], len(self._inner)
        cube = np.empty((classes, self._span.size, k))
        inside, beside, shift = self._parts(cube)
        inside[...] = (self._inner @ columns[:kept]).reshape(inside.shape)
        beside[...] = columns[kept : len(columns) - self._span.size].reshape(beside.shape)
        shift[...] = columns[len(columns) - self._span.size :]
        cube = self._features_turned(cube, back=True)
        turned = self._of_classes @ cube.reshape(classes, -1)
        vectors: Matrix = turned.reshape(-1, k)[self._order]
        return vectors

    def _parts(self, cube: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Return views of what is left, of the features that no sample has, and of the common shift."""
        kept = self._span.kept
        return cube[:-1, :kept], cube[:-1, kept:], cube[-1]

    def _features_turned(self, cube: Matrix, *, back: bool) -> Matrix:
        classes, size, k = cube.shape
        if self._span.kept == size:
            return cube
        turned = self._span.rotate(cube.transpose(1, 0, 2).reshape(size, -1), back=back)
        return np.ascontiguousarray(turned.reshape(size, classes, k).transpose(1, 0, 2))
