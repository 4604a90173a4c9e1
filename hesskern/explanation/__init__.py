"""Why a Hessian disagrees: `explain` and its answer.

Three folders, each of which imports only from those before it: `given` holds the candidate, the question and everything
that can have happened to a Hessian; `search` finds what did happen; `answer` says it.
"""

from hesskern.explanation.answer.explanation import Explanation, Finding, Remainder
from hesskern.explanation.entry import explain

__all__ = ["Explanation", "Finding", "Remainder", "explain"]
