"""Two runs side by side: what was measured, which classes are confused, and a curve of each."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tocsin.plots.confusion import draw_confusion
from tocsin.plots.style import (
    CATEGORICAL,
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

COLORS = (NORMAL, PREDICTED)  # of the first and of the second run
BETTER, WORSE = CATEGORICAL[2], THRESHOLD


class Measured(NamedTuple):
    """A metric of two runs.

    Attributes:
        first: Value of the first run.
        second: Value of the second run.
        better: Whether the second is better; None if they are equal, or nobody knows.
    """

    first: float
    second: float
    better: bool | None


class Curves(NamedTuple):
    """One curve of each run.

    Attributes:
        first: (P, 2) points.
        second: (Q, 2) points.
        xlabel: What stands on the x axis.
        ylabel: What stands on the y axis.
    """

    first: np.ndarray
    second: np.ndarray
    xlabel: str
    ylabel: str


def comparison(
    names: tuple[str, str],
    metrics: Mapping[str, Measured],
    matrices: tuple[np.ndarray, np.ndarray] | None = None,
    classes: Sequence[str] = (),
    curves: Curves | None = None,
    title: str = "Before and after",
) -> Figure:
    """Metrics as pairs of points, beside curves, below confusion matrices.

    Args:
        names: Of the two runs.
        metrics: By name; values in [0, 1].
        matrices: Counts (K, K) of each run, rows true; None draws none.
        classes: K names.
        curves: None draws none.
        title: First line.

    Raises:
        ValueError: There is no metric.
    """
    if not metrics:
        raise ValueError("there is no metric to draw")
    K = len(classes) if matrices is not None else 0
    above, below = 1.3 + 0.75 * K if K else 0.0, max(3.6, 0.9 + 0.36 * len(metrics))
    wide = 10.5 if not K else max(10.5, 4 + 1.7 * K)
    figure = new_figure(wide if K or curves else 6.5, above + below + 1.0, title)
    rows, columns = 1 + bool(K), 1 if not K and curves is None else 2
    panels = figure.subplots(rows, columns, squeeze=False, height_ratios=[above, below][-rows:])
    if matrices is not None:
        for axes, name, counts in zip(panels[0], names, matrices, strict=True):
            draw_confusion(axes, counts, classes, name)
    _draw_metrics(panels[-1, 0], metrics)
    if curves is not None:
        for points, color in zip(curves[:2], COLORS, strict=True):
            panels[-1, 1].plot(points[:, 0], points[:, 1], color=color, linewidth=1.8)
        style_axes(panels[-1, 1], curves.xlabel, curves.ylabel)
    elif columns == 2:
        panels[-1, 1].set_axis_off()
    handles = [line_handle(name, color) for name, color in zip(names, COLORS, strict=True)]
    outside_legend(figure, [*handles, line_handle("better", BETTER), line_handle("worse", WORSE)], columns=2)
    return figure


def _draw_metrics(axes: Axes, metrics: Mapping[str, Measured]) -> None:
    """One row per metric: both values, joined by a line whose colour says which way it went."""
    for row, measured in enumerate(metrics.values()):
        color = MUTED if measured.better is None else BETTER if measured.better else WORSE
        axes.plot(
            measured[:2], [row, row], color=color, linewidth=3, alpha=0.7, solid_capstyle="round", zorder=2
        )
        for value, dot, size in zip(measured[:2], COLORS, (8, 6), strict=True):
            axes.plot([value], [row], "o", color=dot, markersize=size, markeredgecolor="white", zorder=3)
        axes.annotate(
            f"{measured.second - measured.first:+.3f}",
            (1.02, row),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=LABEL_SIZE,
            color=color,
        )
    style_axes(axes, "value", "", "test metrics, and how they changed")
    axes.set_yticks(range(len(metrics)), list(metrics), parse_math=False)
    axes.set_ylim(len(metrics) - 0.5, -0.5)
