"""Extreme eigenpairs of a symmetric operator: the band Lanczos method, fully orthogonalised, with thick restarts.

A Krylov space is built from a block of start vectors, one vector at a time: vector j + block is the image of vector j,
made orthogonal to all others. Rayleigh-Ritz on the space gives the eigenpairs. When the space is full, the best Ritz
vectors are kept, and the next block continues from them (Wu and Simon, SIAM J. Matrix Anal. Appl. 22, 2000).

A block of b vectors finds at most b copies of a repeated eigenvalue, in exact arithmetic. Nothing here shows that none
was missed: see `hesskern.linalg.certificate`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern._base.array_types import Array, Matrix
from hesskern._base.interrupt import RATE, interruptibly
from hesskern._base.lanczos import orthonormalise

End = Literal["LA", "SA", "LM"]
_EPSILON = float(np.finfo(np.float64).eps)
#: A residual of this many units of rounding of the largest eigenvalue is as small as it gets.
_UNITS = 24.0
#: Residuals that stay at this size, relative to the largest eigenvalue, are rounding errors of the products.
_ROUNDED = 1e-13
#: How many vectors there are when the residuals are looked at for the first time.
_FIRST_LOOK = 40
_MOST_RESTARTS = 100


class LanczosSteps(Protocol):
    """Lanczos steps with a certain operator; `hesskern._base.lanczos.steps` defines them."""

    def __call__(self, vectors: Matrix, images: Matrix, start: int, stop: int, block: int, /) -> int:
        """Take the steps."""


class Ritz(NamedTuple):
    """Approximate eigenpairs, with the largest value of `which` first."""

    values: NDArray[np.float64]  # (k,)
    vectors: Matrix  # (k, P), orthonormal rows
    residuals: NDArray[np.float64]  # (k,) norms
    residual_norm: float  # Frobenius norm of all residuals together
    next_value: float  # the next value, not converged; NaN: none
    scale: float  # the largest absolute Ritz value
    converged: bool


class KrylovSearch:
    """A search for k extreme eigenpairs that can be continued with more start vectors.

    Parameters
    ----------
    take : LanczosSteps
    size : int
        P, the length of the vectors.
    k : int
    which : {"LA", "SA", "LM"}
    block : int
        Number of start vectors.
    inside : (P,) array, optional
        1, or 0 at entries that do not belong to the operator.
    offset : float
        What is added to all eigenvalues before they are compared in magnitude.
    seconds : float
        About how long one product takes.
    """

    def __init__(
        self,
        take: LanczosSteps,
        size: int,
        k: int,
        which: End,
        block: int,
        inside: Array | None = None,
        *,
        offset: float = 0.0,
        seconds: float = 0.0,
    ) -> None:
        self._take, self._k, self._which, self._inside = take, k, which, inside
        self.block = block
        self._offset, self._seconds = offset, seconds
        self._random = np.random.default_rng(0)
        self._most = most_vectors(k, block)
        self._vectors = np.empty((self._most + block, size))
        self._images = np.empty((self._most, size))
        #: How many vectors have images; `block` more have none.
        self._known = 0
        #: The operator in the space, as far as it was computed.
        self._projected = np.empty((self._most, self._most))
        self._solved = 0
        for j in range(block):
            self._draw(j)

    def _draw(self, row: int) -> None:
        """Make a row a random vector, orthogonal to those before it."""
        for _ in range(3):
            vector = self._random.standard_normal(self._vectors.shape[1])
            if self._inside is not None:
                vector *= self._inside
            if orthonormalise(self._vectors[:row], vector, self._vectors[row]):
                return
        raise AssertionError("the space is as large as the operator")

    def more_starts(self, count: int) -> None:
        """Add random start vectors; the pairs found stay in the space."""
        self._restart(self._which_first()[: self._k + self.block])
        before = self._vectors
        self._most = max(self._most, most_vectors(self._k, self.block + count))
        self._vectors = np.empty((self._most + self.block + count, before.shape[1]))
        self._vectors[: self._known + self.block] = before[: self._known + self.block]
        projected, self._projected = self._projected, np.empty((self._most, self._most))
        self._projected[: self._known, : self._known] = projected[: self._known, : self._known]
        images, self._images = self._images, np.empty((self._most, before.shape[1]))
        self._images[: self._known] = images[: self._known]
        for j in range(count):
            self._draw(self._known + self.block + j)
        self.block += count

    @property
    def _kept(self) -> int:
        """How many Ritz vectors a restart keeps."""
        return min(self._known, self._k + self.block + (self._most - self._k) // 3)

    def run(self) -> Ritz:
        """Continue until the residuals are rounding errors, or until they do not become smaller any more."""
        best, largest, stuck = np.inf, np.inf, 0
        target = min(max(_FIRST_LOOK, 2 * self._k + self.block, self._known + 8 * self.block), self._most)
        looks: list[tuple[int, float]] = []
        for restarts in range(_MOST_RESTARTS):
            while True:
                self._extend(max(target, self._known))
                self._solve()
                largest = float(self._residuals.max())
                if largest <= self._tolerance:
                    return self._ritz(converged=True)
                if self._known == self._most:
                    break
                looks.append((self._known, largest))
                target = min(self._next_look(looks), self._most)
            stuck = stuck + 1 if largest > 0.5 * best else 0
            best = min(best, largest)
            if stuck >= (2 if best <= _ROUNDED * self._scale else 20) or restarts + 1 == _MOST_RESTARTS:
                break
            self._restart(self._which_first()[: self._kept])
            looks = []
            target = min(self._known + max(8, self.block), self._most)
        return self._ritz(converged=largest <= 10.0 * _ROUNDED * self._scale)

    def _next_look(self, looks: list[tuple[int, float]]) -> int:
        """Return at how many vectors the residuals may be small enough, judging by the last two looks.

        They begin to fall late: at the first look, as if the second half of the vectors had done all of it.
        """
        (first, before), (last, now) = ([(looks[0][0] // 2, self._scale), *looks])[-2:]
        step = max(8, self.block)
        if 0 < now < before:
            rate = np.log(before / now) / (last - first)
            step = min(max(int(1.3 * np.log(now / self._tolerance) / rate) + 1, 4), 4 * step)
        return self._known + step

    def _extend(self, stop: int) -> None:
        start = self._known
        work = 8.0 * stop * self._vectors.shape[1] / RATE + self._seconds
        chunk = max(1, int(0.5 / work))  # so that Ctrl-C is noticed between two calls
        while start < stop:
            upto = min(stop, start + chunk)
            done = interruptibly(
                self._take, self._vectors, self._images, start, upto, self.block, seconds=(upto - start) * work
            )
            start = upto if done < 0 else done
            if done >= 0:
                self._draw(done - 1 + self.block)
        self._known = stop

    def _solve(self) -> None:
        """Compute the Ritz values of the space and the residuals of those wanted."""
        V, W, solved = self._vectors[: self._known], self._images[: self._known], self._solved
        added = W[solved:] @ V.T
        self._projected[solved : self._known, : self._known] = added
        self._projected[:solved, solved : self._known] = added[:, :solved].T
        corner = added[:, solved:]
        self._projected[solved : self._known, solved : self._known] = 0.5 * (corner + corner.T)
        self._solved = self._known
        projected = self._projected[: self._known, : self._known]
        if not np.isfinite(projected).all():
            raise OverflowError("products with this operator overflow; expected numbers of moderate size.")
        self._values, self._mix = decompositions.eigh(projected)
        chosen = self._which_first()[: self._k]
        mix = self._mix[:, chosen].T
        errors = mix @ W - self._values[chosen, None] * (mix @ V)
        self._residuals = np.linalg.norm(errors, axis=1)
        self._scale = float(np.abs(self._values).max())
        self._tolerance = _UNITS * _EPSILON * self._scale

    def _which_first(self) -> NDArray[np.intp]:
        values = self._values + self._offset
        order: NDArray[np.intp] = np.argsort(
            {"LA": -values, "SA": values, "LM": -np.abs(values)}[self._which], kind="stable"
        )
        return order

    def _restart(self, kept: NDArray[np.intp]) -> None:
        mix, count = self._mix[:, kept].T, len(kept)
        following = self._vectors[self._known : self._known + self.block].copy()
        self._vectors[:count] = mix @ self._vectors[: self._known]
        self._images[:count] = mix @ self._images[: self._known]
        self._vectors[count : count + self.block] = following
        self._projected[:count, :count] = np.diag(self._values[kept])
        self._known = self._solved = count

    def _ritz(self, *, converged: bool) -> Ritz:
        order = self._which_first()
        chosen = order[: self._k]
        mix = self._mix[:, chosen].T
        vectors = mix @ self._vectors[: self._known]
        following = float(self._values[order[self._k]]) if len(order) > self._k else np.nan
        return Ritz(
            self._values[chosen],
            vectors,
            self._residuals,
            float(np.linalg.norm(self._residuals)),
            following,
            self._scale,
            converged,
        )


def most_vectors(k: int, block: int) -> int:
    """Return up to how many vectors a space has before it is restarted."""
    return max(64, 32 + 8 * k, 3 * (k + block))
