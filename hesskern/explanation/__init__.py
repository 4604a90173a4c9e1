"""Why a Hessian disagrees: `explain` and its answer.

`candidate` reads what was given; `variants`, `selections`, `orders` and `scales` list what can have happened; `search`
finds what did, for a matrix, `spectra` for eigenvalues, `numbers` for a bare number; `precision`, `differences` and
`steps` know the causes whose size has to be estimated.
"""

from hesskern.explanation.answer import Explanation, Finding, Remainder
from hesskern.explanation.entry import explain

__all__ = ["Explanation", "Finding", "Remainder", "explain"]
