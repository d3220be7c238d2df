"""What a grid of jobs shows: the effect of each key, of two keys together, and what quality costs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tocsin.plots.style import (
    CATEGORICAL,
    INK,
    LABEL_SIZE,
    MUTED,
    NORMAL,
    PREDICTED,
    THRESHOLD,
    line_handle,
    new_figure,
    outside_legend,
    style_axes,
)

COLUMNS = 4  # panels beside each other
SPREAD = 0.22  # half the width over which the jobs of one value are spread
DARK = 0.6  # of the range of colours; from there on numbers are white

Setting = Mapping[str, str]


def marginal_effects(
    settings: Sequence[Setting],
    qualities: Sequence[float],
    metric: str,
    shares: Mapping[str, float],
    title: str = "Effect of each option",
) -> Figure:
    """One panel per key: every job as a dot, mean and standard deviation of each value, keys in order of influence.

    Args:
        settings: Value of each swept key, for each job.
        qualities: One for each job; those that are not finite are left out.
        metric: What the qualities are, and which are better.
        shares: Share of the variance that each key explains, in [0, 1], in the order of the panels.
        title: First line.

    Raises:
        ValueError: There is no key, or no quality is finite.
    """
    found = _finite(settings, qualities)
    if not shares:
        raise ValueError("there is no swept key whose effect could be drawn")
    columns = min(COLUMNS, len(shares))
    rows = -(-len(shares) // columns)
    figure = new_figure(max(5.0, 3.1 * columns), 0.9 + 2.7 * rows, title)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for number, (axes, key) in enumerate(zip(panels.flat, shares, strict=False)):
        _draw_effect(axes, key, found)
        label = metric if number % columns == 0 else ""
        style_axes(axes, "", label, f"{_short(key)}: explains {100 * shares[key]:.0f} %")
        axes.grid(visible=False, axis="x")
    for axes in panels.flat[len(shares) :]:
        axes.set_axis_off()
    outside_legend(figure, [line_handle("mean and standard deviation", THRESHOLD)])
    return figure


def pair_heat_map(
    settings: Sequence[Setting],
    qualities: Sequence[float],
    keys: tuple[str, str],
    metric: str,
    mode: str,
    title: str = "The two most influential options together",
) -> Figure:
    """Mean quality of each pair of values, the better the darker; the best pair is framed.

    Args:
        settings: Value of each swept key, for each job.
        qualities: One for each job; those that are not finite are left out.
        keys: Of the rows and of the columns.
        metric: What the qualities are.
        mode: `min` or `max`: which is better.
        title: First line.

    Raises:
        ValueError: No quality is finite.
    """
    found = _finite(settings, qualities)
    rows, columns = (sorted({setting[key] for setting, _ in found}, key=_order) for key in keys)
    means = np.full((len(rows), len(columns)), np.nan)
    for row, column in np.ndindex(means.shape):
        inside = [q for s, q in found if (s[keys[0]], s[keys[1]]) == (rows[row], columns[column])]
        means[row, column] = np.mean(inside) if inside else np.nan
    low, high = np.nanmin(means), np.nanmax(means)
    level = (means - low) / ((high - low) or 1.0)
    level = level if mode == "max" else 1.0 - level
    figure = new_figure(max(5.2, 2.4 + 1.1 * len(columns)), 1.8 + 0.62 * len(rows), title)
    axes = figure.subplots()
    axes.imshow(np.ma.masked_invalid(level), cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for row, column in np.ndindex(means.shape):
        known = bool(np.isfinite(means[row, column]))
        best = known and level[row, column] == np.nanmax(level)
        axes.text(
            column,
            row,
            f"{means[row, column]:.4g}" if known else "n/a",
            ha="center",
            va="center",
            fontsize=LABEL_SIZE,
            fontweight="bold" if best else "normal",
            color="white" if known and level[row, column] > DARK else INK if known else MUTED,
        )
    style_axes(axes, _short(keys[1]), _short(keys[0]), f"mean {metric}; the darker the better")
    axes.grid(visible=False)
    axes.set_xticks(range(len(columns)), columns, parse_math=False)
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def cost_and_quality(
    seconds: Sequence[float],
    qualities: Sequence[float],
    groups: Sequence[str],
    group_name: str,
    metric: str,
    mode: str,
    title: str = "What quality costs",
) -> Figure:
    """Quality of each job against its time, coloured by one key, with the line of jobs that none beats in both.

    Args:
        seconds: One for each job; NaN = unknown.
        qualities: One for each job; NaN = failed.
        groups: Value of the key, for each job.
        group_name: The key.
        metric: What the qualities are.
        mode: `min` or `max`: which is better.
        title: First line.

    Raises:
        ValueError: No job has both.
    """
    points = np.array([seconds, qualities], dtype=np.float64).T  # (N, 2)
    known = np.isfinite(points).all(axis=1)
    if not known.any():
        raise ValueError("no job has both a time and a quality: there is nothing to draw")
    points, names = points[known], np.asarray(groups)[known]
    figure = new_figure(8, 4.6, title)
    axes = figure.subplots()
    handles = []
    for number, name in enumerate(sorted(set(names.tolist()), key=_order)):
        color = CATEGORICAL[number % len(CATEGORICAL)]
        own = points[names == name]
        axes.plot(own[:, 0], own[:, 1], "o", color=color, markersize=5, alpha=0.75, markeredgecolor="white")
        handles.append(line_handle(f"{_short(group_name)}={name}", color))
    front = pareto_front(points, mode)
    axes.plot(front[:, 0], front[:, 1], color=MUTED, linewidth=1.2, drawstyle="steps-post", zorder=1)
    if points[:, 0].max() > 20 * max(points[:, 0].min(), 1e-9):
        axes.set_xscale("log")
    style_axes(axes, "seconds of a job", metric, "grey line: no job is both faster and better")
    outside_legend(figure, handles)
    return figure


def pareto_front(points: np.ndarray, mode: str) -> np.ndarray:
    """Points (N, 2) of cost and quality that no other beats in both, in order of cost: (M, 2)."""
    sign = -1.0 if mode == "max" else 1.0
    ordered = points[np.lexsort((sign * points[:, 1], points[:, 0]))]
    best = np.minimum.accumulate(sign * ordered[:, 1])
    first = np.concatenate([[True], best[1:] < best[:-1]])
    return np.asarray(ordered[first])


def _draw_effect(axes: Axes, key: str, found: Sequence[tuple[Setting, float]]) -> None:
    """Fill one panel: dots, and mean and spread of each value."""
    values = sorted({setting[key] for setting, _ in found}, key=_order)
    for place, value in enumerate(values):
        own = np.array([quality for setting, quality in found if setting[key] == value])
        shift = SPREAD * np.sin(2.4 * np.arange(len(own))) if len(own) > 1 else np.zeros(1)  # no randomness
        axes.plot(place + shift, own, "o", color=PREDICTED, markersize=3.2, alpha=0.35, markeredgewidth=0)
        axes.errorbar(
            [place],
            [own.mean()],
            yerr=[own.std()],
            color=THRESHOLD,
            fmt="_",
            markersize=22,
            capsize=4,
            linewidth=1.6,
        )
    means = [np.mean([q for s, q in found if s[key] == value]) for value in values]
    axes.plot(range(len(values)), means, color=NORMAL, linewidth=1, linestyle=":", zorder=1)
    axes.set_xticks(range(len(values)), values, parse_math=False)
    axes.set_xlim(-0.5, len(values) - 0.5)


def _finite(settings: Sequence[Setting], qualities: Sequence[float]) -> list[tuple[Setting, float]]:
    found = [(s, q) for s, q in zip(settings, qualities, strict=True) if math.isfinite(q)]
    if not found:
        raise ValueError("none of the qualities is finite: there is nothing to draw")
    return found


def _order(value: str) -> tuple[int, float, str]:
    """Numbers by size, then words."""
    try:
        return (0, float(value), "")
    except ValueError:
        return (1, 0.0, value)


def _short(key: str) -> str:
    """The last part of a dotted key."""
    return key.rpartition(".")[2]
