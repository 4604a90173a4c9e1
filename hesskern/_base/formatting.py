"""What a repr says of networks and parameters: one line, however many layers there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hesskern.losses.squared import SquaredLoss
    from hesskern.network.linear_network import LinearNetwork
    from hesskern.network.parameters import Part

#: As many stand side by side; of more, the first ones and the last.
_SHOWN = 8


def widths_in_words(widths: Sequence[int]) -> str:
    """Return "5-100-5".

    Examples
    --------
    >>> widths_in_words((5, 100, 5))
    '5-100-5'
    >>> widths_in_words([4] * 30)
    '4-4-4-...-4 (29 layers)'
    """
    text = "-".join(_few(widths))
    return text if len(widths) <= _SHOWN else f"{text} ({len(widths) - 1} layers)"


def parts_in_words(net: LinearNetwork, parts: Sequence[Part]) -> str:
    """Return "layer 1", "layers 0, 2", or names where not all parameters of each layer are selected."""
    if all(part.weight and (part.bias or net.biases[part.layer] is None) for part in parts):
        layers = [part.layer for part in parts]
        return f"layer {layers[0]}" if len(layers) == 1 else f"layers {', '.join(_few(layers))}"
    selected = [(part.layer, name) for part in parts for name in ("weight", "bias") if getattr(part, name)]
    return ", ".join(_few([f"{layer}.{name}" for layer, name in selected]))


def setting(loss: SquaredLoss, net: LinearNetwork) -> str:
    """Return what a Hessian was taken of: "in 5-100-5, kind='half_sum', dtype=float64"."""
    decay = f", weight_decay={loss.weight_decay:g}" if loss.weight_decay else ""
    backend = "" if loss.backend is None else f", backend={loss.backend!r}"
    device = "" if net.device == "cpu" else f" on {net.device}"
    return f"in {widths_in_words(net.widths)}{device}, kind={loss.kind!r}{decay}{backend}, dtype={net.dtype}"


def _few(items: Sequence[object]) -> list[str]:
    words = [str(item) for item in items]
    return words if len(words) <= _SHOWN else [*words[:3], "...", words[-1]]
