"""Pictures of a run: time against size with the limit drawn, and speed-ups as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import fits
from bench.compare import is_ours
from bench.fits import FittedLadder
from bench.tables import timed
from bench.timing import Summary, ratios, summary
from bench.words import digits

#: Okabe and Ito's colours, which remain apart for those who see fewer, and some more; the first is hesskern's alone.
OURS = "#D55E00"
OTHERS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999933", "#882255", "#44AA99", "#332288")
MARKERS = "osD^vP*XhdH>"
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "figure.constrained_layout.use": True,
}
DPI = 160
WORDS = {"N": "samples N", "h": "hidden units h", "P": "parameters P", "layers": "layers", "B": "networks B"}


class NoPicturesError(ImportError):
    """Matplotlib is not installed."""


def require() -> None:
    """Raise NoPicturesError without Matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise NoPicturesError(
            f'Pictures need Matplotlib ({error}): pip install ".[plot]"; of `run`, --json and --markdown need none.'
        ) from error


def draw(run: dict[str, Any], folder: Path) -> list[Path]:
    """Draw every ladder of a run, and its speed-ups, into a folder; return the files.

    Raises
    ------
    NoPicturesError
        Without matplotlib.
    """
    require()
    import matplotlib as mpl

    mpl.use("Agg")
    made = []
    with mpl.rc_context(STYLE):
        for task in run["tasks"]:
            found = [ladder for ladder in fits.ladders(task) if any(len(c.values) > 1 for c in ladder.curves)]
            if found:
                made.append(_save(growth_figure(task, found), folder / f"growth-{task['name']}.png"))
        bars = speedup_figure(run)
        if bars is not None:
            made.append(_save(bars, folder / "speedups.png"))
    return made


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return path


def growth_figure(task: dict[str, Any], found: Sequence[FittedLadder]) -> Any:
    """Return a figure with one panel a ladder and one legend for all: time against size, both logarithmic."""
    from matplotlib import pyplot as plt

    size = (2.6 + 2.5 * len(found), 3.4)
    figure, axes = plt.subplots(1, len(found), figsize=size, squeeze=False, sharey=True)
    looks = _looks(list(dict.fromkeys(c.contestant for ladder in found for c in ladder.curves if c.role != "floor")))
    for axis, ladder in zip(axes[0], found, strict=True):
        _panel(axis, ladder, looks)
    _bottom(axes[0][0], found)
    axes[0][0].set_ylabel("seconds, median and quartiles")
    handles: dict[str, Any] = {}
    for axis in axes[0]:
        handles |= dict(reversed(pair) for pair in zip(*axis.get_legend_handles_labels(), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside right center", title=task["name"])
    return figure


def _looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return colour, marker and line of each contestant; hesskern's other forms are dotted."""
    others, looks = iter(OTHERS * len(names)), {}
    for name, marker in zip(names, MARKERS * len(names), strict=False):
        ours = name.startswith("hesskern")
        looks[name] = {"color": OURS if ours else next(others), "marker": marker, "linestyle": ":" if ours else "-"}
    return looks


def _panel(axis: Any, ladder: FittedLadder, looks: dict[str, dict[str, Any]]) -> None:
    axis.set(xscale="log", yscale="log", xlabel=WORDS.get(ladder.variable, ladder.variable), title=ladder.name)
    for curve in (curve for curve in ladder.curves if curve.role != "floor"):
        quartiles = [summary(times) for times in curve.seconds]
        bars = [[q.median - q.lower for q in quartiles], [q.upper - q.median for q in quartiles]]
        first = curve.contestant == ladder.curves[0].contestant
        look = looks[curve.contestant] | ({"linestyle": "-"} if first else {})
        axis.errorbar(
            curve.values,
            curve.medians,
            yerr=bars,
            label=curve.contestant,
            linewidth=2 if first else 1,
            elinewidth=0.8,
            zorder=3 if first else 2,
            **look,
        )
    if ladder.limit:
        values, seconds = zip(*ladder.limit, strict=True)
        axis.plot(values, seconds, color="#666666", linestyle="--", label="limit of the machine", zorder=1)
        axis.fill_between(values, [1e-15] * len(values), seconds, color="#f0f0f0", linewidth=0, zorder=0)
    ticks = sorted({value for curve in ladder.curves for value in curve.values})
    ticks = ticks if len(ticks) <= 6 else ticks[::3]
    axis.set_xticks(ticks, labels=[f"{tick:g}" if tick < 1e5 else f"{tick:.0e}".replace("e+0", "e") for tick in ticks])
    axis.minorticks_off()


def _bottom(axis: Any, found: Sequence[FittedLadder]) -> None:
    """Let the axis of the times begin below the fastest of them."""
    least = [median for ladder in found for curve in ladder.curves for median in curve.medians]
    most = [s.upper for ladder in found for curve in ladder.curves for s in map(summary, curve.seconds)]
    axis.set_ylim(min(least) / 2, max(most) * 2)


#: A task with fewer peers is no comparison of libraries.
LEAST_PEERS = 3


def speedup_figure(run: dict[str, Any]) -> Any:
    """Return bars of how many times faster ours is than each peer, at the problem of each task with most peers."""
    from matplotlib import pyplot as plt

    leads = [(task["name"], *lead) for task in run["tasks"] if (lead := largest_lead(task)) is not None]
    leads = [lead for lead in leads if len(lead[2]) >= LEAST_PEERS]
    if not leads:
        return None
    lengths = [len(bars) + 1.6 for *_, bars in leads]
    # Two columns, cut where they are most nearly equal.
    cut = min(range(1, len(leads) + 1), key=lambda k: max(sum(lengths[:k]), sum(lengths[k:])))
    columns = [leads[:cut], leads[cut:]] if cut < len(leads) else [leads]
    height = max(sum(len(bars) + 1.6 for *_, bars in column) for column in columns)
    size = (5.2 * len(columns), 0.7 + 0.165 * height)
    figure, axes = plt.subplots(1, len(columns), figsize=size, squeeze=False, sharex=True)
    for axis, column in zip(axes[0], columns, strict=True):
        _bars(axis, column, height)
    ratios_shown = [ratio for *_, bars in leads for _, ratio in bars]
    axes[0][0].set_xlim(min(0.5, min(r.lower for r in ratios_shown) / 3), max(r.upper for r in ratios_shown) * 12)
    return figure


def _bars(axis: Any, column: Sequence[tuple[str, str, list[tuple[str, Summary]]]], height: float) -> None:
    axis.set(xscale="log", xlabel="times faster than this peer, median and quartiles", ylim=(height, -0.2))
    at, ticks, names = 0.5, [], []
    for task, label, bars in column:
        axis.text(
            0.004,
            at,
            f"{task}: {label}",
            fontsize=8,
            fontweight="bold",
            va="center",
            transform=axis.get_yaxis_transform(),
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
        for name, ratio in bars:
            at += 1
            colour = OTHERS[0] if ratio.median >= 1 else OTHERS[4]
            axis.barh(at, ratio.median - 1, left=1, color=colour, height=0.72)
            axis.plot([ratio.lower, ratio.upper], [at, at], color="black", linewidth=0.9)
            axis.text(max(ratio.upper, 1) * 1.2, at, digits(ratio.median), va="center", fontsize=7)
            ticks.append(at)
            names.append(name)
        at += 1.6
    axis.set_yticks(ticks, labels=names, fontsize=7)
    axis.axvline(1, color="#666666", linewidth=0.8)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)


def largest_lead(task: dict[str, Any]) -> tuple[str, list[tuple[str, Summary]]] | None:
    """Return the problem of a task with most peers (of several, the first) and our lead over each of them."""
    best: tuple[str, list[tuple[str, Summary]]] | None = None
    for problem in task["problems"]:
        found = timed(problem)
        ours = next((contestant for contestant in found if contestant["role"] == "ours"), None)
        if ours is None:
            continue
        peers = [contestant for contestant in found if contestant["role"] == "peer" and not is_ours(contestant)]
        if peers and (best is None or len(peers) > len(best[1])):
            leads = [(peer["name"], ratios(peer["seconds"], ours["seconds"])) for peer in peers]
            best = problem["label"], sorted(leads, key=lambda lead: lead[1].median)
    return best
