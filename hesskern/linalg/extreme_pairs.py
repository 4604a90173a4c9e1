"""A few extreme eigenpairs by a Krylov method, and a proof that none was missed where that is affordable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import memory
from hesskern.linalg.certificate import Shifted, certify
from hesskern.linalg.eigenbasis import ChosenBasis, Eigenbasis
from hesskern.linalg.krylov import End, KrylovSearch, LanczosSteps, most_vectors

#: Up to this size all eigenvalues cost no more than a few.
SMALL = 300
#: Largest matrix that is factorised for a certificate: it takes seconds.
_MOST_FACTORISED = 8192
#: Bytes from which the free memory is looked at.
_LARGE = 1 << 25
#: The reason for no certificate.
NOT_ASKED = "nobody asked for it"
#: How often a search continues after an eigenvalue was missed.
_MOST_ROUNDS = 6


class FewPairs(NamedTuple):
    """A few extreme eigenpairs, and what is known about them."""

    basis: Eigenbasis
    values: NDArray[np.float64]  # of the operator, shifts included, in the order of the basis
    certified: bool
    error: float
    note: str
    small: bool  # whether all eigenvalues are affordable instead
    scale: float  # the largest absolute value seen, about the norm of the operator


def worthwhile(size: int, length: int, k: int) -> bool:
    """Return whether a Krylov method is cheaper than all eigenvalues.

    Parameters
    ----------
    size : int
        Of the dense problem that is left.
    length : int
        Of the vectors that belong to it.
    k : int
    """
    return size > SMALL and 20 * k <= size and 2 * most_vectors(k, k + 4) <= length


class ToFactorise(NamedTuple):
    """A matrix for a certificate: how large it is, and how it is made."""

    size: int
    make: Callable[[], Shifted]


def searched(
    take: LanczosSteps,
    length: int,
    k: int,
    which: End,
    tests: Sequence[ToFactorise],
    inside: NDArray[np.float64] | None = None,
    chosen: NDArray[np.intp] | None = None,
    *,
    offset: float = 0.0,
    seconds: float = 0.0,
    refusal: str = "",
) -> FewPairs:
    """Return k extreme eigenpairs, certified if that is affordable.

    Parameters
    ----------
    take : LanczosSteps
    length : int
        Of the vectors of `take`.
    k : int
    which : {"LA", "SA", "LM"}
    tests : sequence of ToFactorise
        The cheapest one first; the next one where a matrix cannot say.
    inside, chosen : arrays, optional
        Which entries of the vectors belong to the operator, as 1 and 0, and as positions.
    offset : float
        Multiple of the identity that is part of the operator, but not of `take`: it decides which values are the
        largest in magnitude.
    seconds : float
        About how long a product takes.
    refusal : str
        Why no certificate is to be made; empty: make one.
    """
    refused = refusal or too_large(tests[0].size)
    block = k + 2 if k > 1 and refused else 1 + k // 4
    needed = 8 * 2 * length * most_vectors(k, block)
    if needed > _LARGE:
        memory.require(needed, f"the Krylov space for {k} eigenvalues of a Hessian of {length}", "ask for fewer.")
    search = KrylovSearch(take, length, k, which, block, inside, offset=offset, seconds=seconds)
    made: dict[int, Shifted] = {}
    for _ in range(_MOST_ROUNDS):
        ritz = search.run()
        vectors = ritz.vectors if chosen is None else ritz.vectors[:, chosen]
        basis = ChosenBasis(ritz.values, vectors.T)
        if not ritz.converged:
            note = "not certified: the iteration did not converge"
            return FewPairs(basis, ritz.values, False, np.nan, note, not refused, ritz.scale)
        verdict = None
        for number, test in enumerate(tests):
            refused = refusal or too_large(test.size)
            if refused:
                break
            if number not in made:
                made[number] = test.make()
            verdict = certify(made[number], ritz, vectors, which, offset)
            if verdict is not None:
                break
        if verdict is None:
            note = f"not certified: {refused or 'no test can say'}"
            return FewPairs(basis, ritz.values, False, np.nan, note, not refused, ritz.scale)
        if verdict.certified:
            end = {"LA": "larger", "SA": "smaller", "LM": "larger in magnitude"}[which]
            note = f"certified by a Cholesky factorisation of {made[number].size} rows: no other eigenvalue is {end}"
            return FewPairs(basis, ritz.values, True, verdict.error, note, True, ritz.scale)
        if 2 * most_vectors(k, search.block + k + 2) > (length if chosen is None else len(chosen)):
            break
        search.more_starts(k + 2)
    note = "not certified: the factorisation shows that an eigenvalue is missing"
    return FewPairs(basis, ritz.values, False, np.nan, note, True, ritz.scale)


def too_large(size: int) -> str:
    """Return why a certificate is not affordable, and all eigenvalues are not either; empty: it is."""
    needed = 3 * 8 * size * size
    if size > _MOST_FACTORISED:
        return f"it takes a factorisation of {size} rows, more than {_MOST_FACTORISED}"
    if needed > _LARGE and needed > memory.available():
        return f"it takes a factorisation of {size} rows, and {memory.human(needed)} of memory"
    return ""
