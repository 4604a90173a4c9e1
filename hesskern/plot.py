"""Pictures, drawn by matplotlib on axes that the caller passes; matplotlib is loaded on first use.

Install it with ``pip install "hesskern[plot]"``. The colours come from Okabe and Ito; people with any kind of colour
vision can tell them apart. No meaning depends on colour alone.
"""

from __future__ import annotations

import importlib
import io
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import atomic_write, checks
from hesskern._base.array_types import Array

if TYPE_CHECKING:
    from hesskern.demo.results import Demo
    from hesskern.explanation import Explanation

BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#007F5F", "#6B6B6B"

_STYLE = {
    "font.size": 11,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "hesskern",
}


def formats() -> tuple[str, ...]:
    """Return the suffixes of the picture formats that matplotlib writes, without the dot."""
    return tuple(sorted(_matplotlib("backend_bases").FigureCanvasBase.get_supported_filetypes()))


def check_path(path: str | os.PathLike[str]) -> None:
    """Refuse a path that a picture cannot be written to, before the work begins.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the suffix is not a picture format.
    OSError
        If the file cannot be written.
    """
    target = Path(checks.path(path, "path"))
    suffixes = formats()
    if target.suffix.lower().removeprefix(".") not in suffixes:
        had = f"has the suffix {target.suffix!r}" if target.suffix else "has no suffix"
        raise ValueError(f"{os.fspath(path)!r} {had}; expected one of .{', .'.join(suffixes)}.")
    atomic_write.check(path, "path")


def loss(ax: Any, losses: Array, *, color: str = BLUE) -> None:
    """Draw the loss at the start of each epoch, relative to the first, on a log scale.

    If the loss rises above its start (a catapult), its peak is marked and an inset shows the first epochs.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    losses : (steps,) array
        The loss at the start of each epoch, ``run.history["loss"]``.
    """
    relative = np.asarray(losses, dtype=np.float64) / losses[0]
    epochs = np.arange(1, len(relative) + 1)
    ax.semilogy(epochs, relative, color=color, linewidth=2)
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss / first loss")
    ax.set_xlim(0, 1.02 * len(relative))
    ax.grid(axis="y", color="0.92")
    ax.annotate(
        f"{relative[-1]:.3g} in epoch {len(relative)}",
        (epochs[-1], relative[-1]),
        xytext=(-40, 0),  # left of the end and below the curve, which falls towards it
        textcoords="offset points",
        ha="right",
        va="center",
        color=color,
        arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.8, "shrinkB": 5},
    )
    ax.plot(epochs[-1], relative[-1], "o", color=color, clip_on=False)
    peak = int(relative.argmax())
    if peak > 0:
        _inset(ax, epochs, relative, peak)


def _inset(ax: Any, epochs: NDArray[Any], relative: Array, peak: int) -> None:
    above = int(np.flatnonzero(relative >= 1.0)[-1]) + 1
    shown = slice(0, min(len(relative), above + max(4, above // 2)))
    inset = ax.inset_axes((0.42, 0.55, 0.58, 0.39))
    inset.plot(epochs[shown], relative[shown], "-o", color=BLUE, linewidth=1.5, markersize=3.5)
    inset.axhline(1.0, color=GREY, linewidth=0.8, linestyle=":")
    inset.plot(epochs[peak], relative[peak], "o", color=VERMILION, markersize=7)
    inset.annotate(
        f"catapult: {relative[peak]:.1f} times\nthe first loss",
        (epochs[peak], relative[peak]),
        xytext=(0.99, 0.99),
        textcoords="axes fraction",
        ha="right",
        va="top",
        arrowprops={"arrowstyle": "-", "color": VERMILION, "linewidth": 0.8, "shrinkB": 5},
        color=VERMILION,
    )
    inset.set_ylim(0, 1.18 * relative[peak])
    inset.set_title(f"the first {len(epochs[shown])} epochs, linear scale", fontsize=10, fontweight="normal", pad=4)
    inset.tick_params(labelsize=9)
    ax.plot(epochs[peak], relative[peak], "o", color=VERMILION, markersize=7)


def spectra(axes: Sequence[Any], rows: Sequence[tuple[str, Array | None, int, str, str]]) -> None:
    """Draw spectra as rows of lines, with the values that are zero up to rounding on separate axes.

    Parameters
    ----------
    axes : two matplotlib.axes.Axes
        The left one is for rounding noise, the right one for the nonzero eigenvalues; they share their rows.
    rows : sequence of (name, values, rank, color, note)
        From top to bottom: absolute eigenvalues, descending; the first `rank` of them are nonzero. If values is None,
        `note` is written in its place, otherwise below the name. A row with only `rank` values has no noise: its zeros
        are exact, and the left axes say so.
    """
    noise, counted = axes
    for row, (name, values, rank, color, note) in enumerate(rows):
        low, high = row + 0.18, row - 0.22
        counted.text(0.0, row - 0.32, name, color=color, fontweight="bold", transform=_rows(counted), va="bottom")
        if values is None:
            counted.text(0.0, row, textwrap.fill(note, 42), color=GREY, transform=_rows(counted), va="center")
            continue
        kept, rounding = values[:rank], values[rank:]
        counted.vlines(kept, high, low, color=color, linewidth=2.4)
        _bracket(counted, float(kept[-1]), float(kept[0]), row + 0.27, color, note)
        if len(rounding):
            noise.vlines(rounding[rounding > 0.0], high, low, color=color, linewidth=0.6, alpha=0.5)
        else:
            noise.text(0.5, row - 0.02, "exactly zero", color=color, transform=_rows(noise), ha="center", va="center")
    for ax in axes:
        ax.set_xscale("log")
        ax.set_ylim(len(rows) - 0.45, -0.6)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x", color="0.92")
        ax.set_axisbelow(True)


def _rows(ax: Any) -> Any:
    """Return the transform in which x is a fraction of the axes and y is the row."""
    return ax.get_yaxis_transform()


def _bracket(ax: Any, left: float, right: float, y: float, color: str, text: str) -> None:
    ax.annotate(
        "", (left, y), (right, y), arrowprops={"arrowstyle": "<->", "color": color, "shrinkA": 0, "shrinkB": 0, "lw": 1}
    )
    ax.text(np.sqrt(left * right), y + 0.03, text, color=color, ha="center", va="top")


def save_demo(demo: Demo, path: str | os.PathLike[str]) -> None:
    """Write the demo's picture: the loss over the epochs, and the three spectra that were discussed.

    Raises
    ------
    ImportError, ValueError, OSError
        As `check_path`.
    """
    suffix = Path(checks.path(path, "path")).suffix.lower().removeprefix(".")
    matplotlib = _matplotlib()
    with matplotlib.rc_context(_STYLE):
        figure = _matplotlib("figure").Figure(figsize=(12, 4.6), dpi=110, layout="constrained", facecolor="white")
        draw_demo(figure, demo)
        picture = io.BytesIO()
        figure.savefig(picture, format=suffix)
    atomic_write.write(path, "path", lambda file: file.write(picture.getvalue()))


def draw_demo(figure: Any, demo: Demo) -> None:
    """Draw the demo's picture on an empty matplotlib figure."""
    left, right = figure.subfigures(1, 2, width_ratios=(1.0, 1.35), wspace=0.04)
    ax = left.subplots()
    loss(ax, demo.losses)
    ax.set_title(f"Training: {demo.steps} epochs")

    noise, counted = right.subplots(1, 2, width_ratios=(1.0, 2.3))
    size, rank = demo.condition.size, demo.condition.rank
    eigenvalues = np.repeat(demo.values, demo.multiplicities)
    times = "/".join(str(count) for count in sorted(set(demo.multiplicities.tolist())))
    autograd = demo.autograd
    spectra(
        (noise, counted),
        [
            ("hesskern", eigenvalues, rank, BLUE, f"κ = {demo.condition.value:.2f}"),
            (
                "PyTorch autograd",
                None if autograd is None else autograd.dense.values,
                0 if autograd is None else autograd.dense.rank,
                GREEN,
                demo.autograd_missing if autograd is None else f"κ = {autograd.dense.cond:.2f}",
            ),
            (
                "the formula as posted",
                demo.as_posted.values,
                demo.as_posted.rank,
                VERMILION,
                f"κ = {demo.as_posted.cond:.2f}",
            ),
        ],
    )
    counted.set_xlabel(f"{rank} nonzero eigenvalues, {times} on each line")
    noise.set_xlabel(f"{size - rank} zeros, with rounding")
    noise.set_title("Three spectra of the Hessian in W₂")


def save_explanation(why: Explanation, path: str | os.PathLike[str]) -> None:
    """Write the picture of an explanation: the difference before and after, block by block.

    Raises
    ------
    ValueError
        If the candidate is not a matrix that can be compared with the Hessian.
    ImportError, OSError
        As `check_path`.
    """
    suffix = Path(checks.path(path, "path")).suffix.lower().removeprefix(".")
    matplotlib = _matplotlib()
    with matplotlib.rc_context(_STYLE):
        figure = _matplotlib("figure").Figure(figsize=(11, 4.4), dpi=110, layout="constrained", facecolor="white")
        draw_explanation(figure, why)
        picture = io.BytesIO()
        figure.savefig(picture, format=suffix)
    atomic_write.write(path, "path", lambda file: file.write(picture.getvalue()))


def draw_explanation(figure: Any, why: Explanation) -> None:
    """Draw the difference of a candidate from the Hessian, and from the Hessian after the findings, on an empty figure.

    Each cell is the root mean square of a small square of entries, relative to the root mean square of the whole
    candidate. Both pictures have one log scale; lines separate the parameters.
    """
    matrices = why.matrices
    if matrices is None:
        raise ValueError("why has no matrix to draw; expected an explanation of a matrix of the Hessian's size.")
    axes = figure.subplots(1, 2)
    candidate = matrices.candidate
    panels = [("before", matrices.truth), ("after", matrices.model)]
    scale = float(np.linalg.norm(candidate)) / len(candidate) or 1.0
    colors = _matplotlib("colors").LogNorm(1e-16, 1.0)
    image = None
    for ax, (when, expected) in zip(axes, panels, strict=True):
        ax.set_xticks([])
        ax.set_yticks([])
        if expected is None:
            why_not = "not the size of the Hessian" if when == "before" else "no model comes close"
            ax.text(0.5, 0.5, why_not, ha="center", va="center", color=GREY, transform=ax.transAxes)
            continue
        gap = candidate - expected()
        largest = max(float(np.linalg.norm(candidate)), float(np.linalg.norm(candidate - gap)))
        relative = float(np.linalg.norm(gap)) / (largest or 1.0)
        cells = _cells(gap) / scale
        extent = (0.0, float(len(gap)), float(len(gap)), 0.0)
        image = ax.imshow(np.maximum(cells, 1e-16), norm=colors, cmap="cividis", extent=extent, interpolation="nearest")
        undone = "Corrected: " + ", ".join(finding.cause for finding in why.findings)
        if not why.findings:
            undone = "Nothing to fix" if why.status == "match" else "The closest model"
        ax.set_title(textwrap.fill("Your matrix against the Hessian" if when == "before" else undone, 44))
        ax.set_xlabel(f"relative difference {relative:.2g}" + (" (to the bit)" if relative == 0 else ""))
        for start in matrices.starts[1:]:
            ax.axhline(start, color="white", linewidth=1)
            ax.axvline(start, color="white", linewidth=1)
        ends = [*matrices.starts[1:], len(gap)]
        middles = [(start + end) / 2 for start, end in zip(matrices.starts, ends, strict=True)]
        wide = [end - start > len(gap) / 20 for start, end in zip(matrices.starts, ends, strict=True)]
        shown = [(middle, name) for middle, name, fits in zip(middles, matrices.names, wide, strict=True) if fits]
        ax.set_yticks([middle for middle, _ in shown], [name for _, name in shown])
        ax.tick_params(length=0)
    if image is not None:
        bar = figure.colorbar(image, ax=list(axes), label="difference / size of an entry", extend="min")
        bar.outline.set_visible(False)


def _cells(gap: NDArray[Any]) -> NDArray[Any]:
    """Return root mean squares over squares of entries, about 128 squares along each side."""
    size = -(-len(gap) // min(128, len(gap)))
    starts = np.arange(0, len(gap), size)
    sums = np.add.reduceat(np.add.reduceat(gap * gap, starts, axis=0), starts, axis=1)
    counts = np.diff([*starts, len(gap)])
    means: NDArray[Any] = np.sqrt(sums / np.outer(counts, counts))
    return means


def _matplotlib(module: str = "") -> Any:
    try:
        package = importlib.import_module("matplotlib")
        return importlib.import_module(f"matplotlib.{module}") if module else package
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "matplotlib"
        why = "is not installed" if missing else f"does not load: {error}"
        raise ImportError(f'pictures need matplotlib, which {why}; pip install "hesskern[plot]"') from error
