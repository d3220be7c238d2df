"""Parallel coordinates (Inselberg 1985): what the options of many runs have to do with how good they are.

One axis for each option and one for the metric; a line is a run. Lines of one value are spread over the band of
that value in the order of the metric, so that hundreds of runs of a grid do not lie on one another, and each band
shows how good its runs are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tocsin.plots.style import INK, LABEL_SIZE, MUTED, SUBTITLE_SIZE, TICK_SIZE, new_figure

MISSING = "not given"
BAND = 0.72  # share of the room of a value that its lines are spread over
MAX_BANDS = 8  # numbers of an axis that have a band each; more stand to scale
MAX_WORDS = 14  # of an axis that are written; of more, every n-th
SAMPLES = 24  # points of a line between two axes
LOG_SPAN = 50.0  # largest over smallest number from which only a log axis shows both
PALE, DARK = 0.12, 1.0  # part of the colour map that stands out from white
LONGEST = 16  # characters of a word


@dataclass(frozen=True)
class _Axis:
    """Where the lines cross one axis, from 0 (lowest) to 1, and what is written beside it."""

    heights: np.ndarray  # (N,)
    ticks: list[tuple[float, str]]
    bands: list[tuple[float, float]]


def parallel_coordinates(
    options: Mapping[str, Sequence[str | None]],
    metric: np.ndarray,
    *,
    metric_name: str,
    title: str = "Options and what they lead to",
) -> Figure:
    """Lines of N runs over the axes of their options, coloured by a metric; the best are drawn last.

    Args:
        options: For each option N values, None = the run has no such option. Many numbers have an axis to scale;
            words and few numbers have a band each.
        metric: (N,) numbers, higher = better; all finite.
        metric_name: Of the last axis.
        title: First line.

    Raises:
        ValueError: There is no option, fewer than two runs, a number that is not finite, or lengths differ.
    """
    metric = np.asarray(metric, dtype=np.float64)
    N = len(metric)
    if not options or N < 2:
        raise ValueError(f"{len(options)} options of {N} runs: it takes one option and two runs")
    if not np.isfinite(metric).all():
        raise ValueError("metric has numbers that are not finite: leave these runs out")
    if wrong := [name for name, values in options.items() if len(values) != N]:
        raise ValueError(f"{wrong[0]} has {len(options[wrong[0]])} values for {N} runs")
    axes_of = [_axis(values, metric) for values in options.values()]
    axes_of.append(_numbers(metric))
    figure = new_figure(max(6.0, 1.6 + 1.5 * len(axes_of)), 4.8, title)
    axes = figure.subplots()
    colours = ListedColormap(colormaps["viridis_r"](np.linspace(PALE, DARK, 256)))
    scale = Normalize(metric.min(), metric.max() if metric.max() > metric.min() else metric.min() + 1)
    order = np.argsort(metric, kind="stable")
    lines = _curves(np.stack([axis.heights for axis in axes_of], axis=1)[order])
    width, alpha = (1.6, 0.9) if N <= 40 else (1.0, 0.7) if N <= 150 else (0.8, 0.55)
    axes.add_collection(
        LineCollection(list(lines), colors=colours(scale(metric[order])), linewidths=width, alpha=alpha)
    )
    _decorate(axes, [*options, metric_name], axes_of)
    edges = np.linspace(0, 1, 65)
    pieces = np.stack([np.full((64, 2), len(options)), np.stack([edges[:-1], edges[1:]], axis=1)], axis=2)
    axes.add_collection(LineCollection(list(pieces), colors=colours(edges[1:]), linewidths=7, zorder=4))
    return figure


# --- axes -----------------------------------------------------------------------------------------------------


def _axis(values: Sequence[str | None], metric: np.ndarray) -> _Axis:
    numbers = _as_numbers(values)
    if numbers is not None and len(np.unique(numbers)) > MAX_BANDS:
        return _numbers(numbers)
    return _words([MISSING if value is None else value for value in values], metric)


def _as_numbers(values: Sequence[str | None]) -> np.ndarray | None:
    """(N,) float64; None if one value is no number."""
    try:
        numbers = np.array([float(value) for value in values if value is not None])
    except ValueError:
        return None
    return numbers if len(numbers) == len(values) and np.isfinite(numbers).all() else None


def _numbers(numbers: np.ndarray) -> _Axis:
    """An axis to scale, of logarithms where small and large numbers would not both be seen."""
    low, high = float(numbers.min()), float(numbers.max())
    log = low > 0 and high / low >= LOG_SPAN
    written = np.geomspace(low, high, 5) if log else np.array(MaxNLocator(5).tick_values(low, high))
    written = written[(written >= low) & (written <= high)]
    span = (np.log(high) - np.log(low) if log else high - low) or 1.0

    def height(values: np.ndarray) -> np.ndarray:
        placed: np.ndarray = ((np.log(values) - np.log(low)) if log else values - low) / span
        return placed

    ticks = list(zip(height(written).tolist(), (f"{value:.4g}" for value in written), strict=True))
    return _Axis(height(numbers), ticks, [])


def _words(values: Sequence[str], metric: np.ndarray) -> _Axis:
    """An axis with a band for each word; lines in it are in the order of the metric."""
    words = sorted(set(values), key=_in_order)
    room = 1 / len(words)
    heights = np.empty(len(values))
    codes = np.array([words.index(value) for value in values])
    for code in range(len(words)):
        members = np.flatnonzero(codes == code)
        ranks = np.argsort(np.argsort(metric[members], kind="stable"), kind="stable")
        share = (ranks + 0.5) / len(members) - 0.5 if len(members) > 1 else np.zeros(1)
        heights[members] = (code + 0.5 + BAND * share) * room
    step = -(-len(words) // MAX_WORDS)
    ticks = [((code + 0.5) * room, _short(word)) for code, word in enumerate(words) if code % step == 0]
    half = 0.5 * (BAND + 0.1)
    return _Axis(
        heights, ticks, [((code + 0.5 - half) * room, 2 * half * room) for code in range(len(words))]
    )


def _in_order(word: str) -> tuple[int, float, str]:
    """Numbers by size, then words; what is missing is lowest."""
    numbers = _as_numbers([word])
    if word == MISSING:
        return (0, 0.0, "")
    return (1, float(numbers[0]), "") if numbers is not None else (2, 0.0, word)


def _short(word: str) -> str:
    return word if len(word) <= LONGEST else f"{word[: LONGEST - 1]}…"


# --- drawing --------------------------------------------------------------------------------------------------


def _curves(heights: np.ndarray) -> np.ndarray:
    """Lines that leave and meet every axis level, so that the eye can follow them through it.

    Args:
        heights: (N, K) where N lines cross K axes.

    Returns:
        (N, (K - 1) * SAMPLES + 1, 2) points, x in units of axes.
    """
    N, K = heights.shape
    t = np.linspace(0, 1, SAMPLES, endpoint=False)
    ease = t * t * (3 - 2 * t)
    steps = (
        heights[:, :-1, None] + (heights[:, 1:] - heights[:, :-1])[:, :, None] * ease
    )  # (N, K - 1, SAMPLES)
    y = np.concatenate([steps.reshape(N, -1), heights[:, -1:]], axis=1)  # (N, P)
    x = np.concatenate([(np.arange(K - 1)[:, None] + t).ravel(), [K - 1]])  # (P,)
    return np.stack([np.broadcast_to(x, y.shape), y], axis=2)


def _decorate(axes: Axes, names: Sequence[str], axes_of: Sequence[_Axis]) -> None:
    """Axes, what is written beside them, and bands behind words."""
    halo = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.2}
    for x, (name, axis) in enumerate(zip(names, axes_of, strict=True)):
        last = x == len(names) - 1
        axes.plot([x, x], [0, 1], color=MUTED, linewidth=0.8, zorder=3)
        for bottom, height in axis.bands:
            axes.plot(
                [x, x], [bottom, bottom + height], color=INK, linewidth=3.2, zorder=4, solid_capstyle="butt"
            )
        place, side = (x + 0.05, "left") if last else (x - 0.035, "right")
        for height, text in axis.ticks:
            axes.text(
                place, height, text, ha=side, va="center", fontsize=TICK_SIZE, color=INK, zorder=5, bbox=halo,
                parse_math=False,
            )  # fmt: skip
        axes.text(
            x, 1.045, name, ha="center", va="bottom", fontsize=SUBTITLE_SIZE if last else LABEL_SIZE,
            fontweight="bold" if last else "normal", color=INK, parse_math=False,
        )  # fmt: skip
    axes.set(xlim=(-0.55, len(names) - 0.6), ylim=(-0.03, 1.12))
    axes.set_axis_off()
