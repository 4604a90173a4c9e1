"""What the exact reductions of a training run did, with sizes, in words."""

from __future__ import annotations

from dataclasses import dataclass

_UNBALANCED = (
    "widths not reduced, because the weights of the hidden units differ by orders of magnitude from unit "
    "to unit, and a reduction would lose digits"
)


@dataclass(frozen=True, slots=True)
class Reduction:
    """Sizes before and after the reductions of a training run; false if nothing was reduced.

    Attributes
    ----------
    samples : (int, int) or None
        Rows of data before and after; None: the data as given.
    widths : (tuple, tuple) or None
        ``net.widths`` before and after, if hidden layers became narrower; None: they are as given.
    leak : float
        ``ε ∏ (1 + η‖G_t‖₂)``; with momentum, the growth of its recurrence replaces each factor. It estimates how far,
        relatively, rounding may move the run *without* width reduction away from the exact trajectory. The reduced run
        stays on it. 0 if no width was reduced; NaN, not followed, on a GPU and from an orthogonal start.
    unbalanced : int
        Number of networks whose hidden units have too different sizes for the reduction. If there are any, all networks
        are trained at their given widths.
    inputs : (int, int) or None
        Inputs before and after; None: the inputs as given.
    start : bool
        Whether the widths became smaller because the inner layers start as multiples of orthogonal matrices.
    rotated : bool
        Whether the data was rotated so that X is diagonal.
    reason : str
        Why something that looks reducible was not; else empty.

    Examples
    --------
    >>> print(Reduction((500, 5), ((5, 100, 5), (5, 10, 5)), 1e-15))
    500 samples to 5 rows; widths 5-100-5 to 5-10-5
    >>> print(Reduction(inputs=(784, 50), widths=((784, 100, 10), (50, 60, 10)), rotated=True))
    inputs 784 to 50; widths 784-100-10 to 50-60-10; X diagonal
    >>> print(Reduction(widths=((5, 100, 100, 5), (5, 10, 10, 5)), start=True))
    orthogonal start: widths 5-100-100-5 to 5-10-10-5
    >>> print(Reduction(reason="widths not reduced: square inner layers in general position"))
    widths not reduced: square inner layers in general position
    """

    samples: tuple[int, int] | None = None
    widths: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    leak: float = 0.0
    unbalanced: int = 0
    inputs: tuple[int, int] | None = None
    start: bool = False
    rotated: bool = False
    reason: str = ""

    def __bool__(self) -> bool:
        return self.rotated or any(sizes is not None for sizes in (self.samples, self.widths, self.inputs))

    def __str__(self) -> str:
        sentences = []
        if self.samples is not None:
            sentences.append(f"{self.samples[0]} samples to {self.samples[1]} rows")
        if self.inputs is not None:
            sentences.append(f"inputs {self.inputs[0]} to {self.inputs[1]}")
        if self.widths is not None:
            before, after = ("-".join(map(str, widths)) for widths in self.widths)
            sentences.append(f"{'orthogonal start: ' if self.start else ''}widths {before} to {after}")
        if self.rotated:
            sentences.append("X diagonal")
        if self.reason:
            sentences.append(self.reason)
        if self.unbalanced:
            sentences.append(_UNBALANCED)
        return "; ".join(sentences)
