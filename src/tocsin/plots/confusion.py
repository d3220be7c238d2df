"""Which classes are taken for which, and how well each is found."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tocsin.plots.style import (
    INK,
    LABEL_SIZE,
    MUTED,
    PREDICTED,
    TICK_SIZE,
    TRUE,
    area_handle,
    line_handle,
    new_figure,
    outside_legend,
    style_axes,
)

DARK = 0.55  # share of a row from which on numbers are white
MANY = 8  # classes from which on cells get smaller, and empty ones stay blank


def confusion_matrix(counts: np.ndarray, names: Sequence[str], title: str = "Confusion matrix") -> Figure:
    """Counts with the share of the true class below; the colour is that share.

    Args:
        counts: (K, K) whole numbers, rows are true classes, as of `metrics.classification.confusion`.
        names: K classes.
        title: First line.

    Raises:
        ValueError: There is not one row and one column per name.
    """
    K = len(names)
    cell = 0.95 if K < MANY else 0.72
    margin = 1.2 + 0.075 * max(map(len, names), default=0)  # of the names
    figure = new_figure(max(3.9, margin + 0.2 + cell * K), 1.2 + 0.5 * margin + 0.84 * cell * K, title)
    draw_confusion(figure.subplots(), counts, names, "counts and shares of the true class")
    return figure


def draw_confusion(axes: Axes, counts: np.ndarray, names: Sequence[str], subtitle: str) -> None:
    """Fill one panel; arguments as for `confusion_matrix`."""
    counts, K = np.asarray(counts), len(names)
    if counts.shape != (K, K) or K == 0:
        raise ValueError(
            f"counts has shape {counts.shape} for {K} names: give one row and one column for each"
        )
    totals = counts.sum(axis=1)
    share = counts / np.maximum(totals, 1)[:, None]
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(K, K):
        count, part = counts[row, column], share[row, column]
        if K >= MANY and count == 0 and row != column:
            continue
        axes.text(
            column,
            row,
            f"{count:,}\n{part:.1%}" if K < MANY else f"{count:,}\n{part:.0%}",
            ha="center",
            va="center",
            fontsize=LABEL_SIZE if K < MANY else TICK_SIZE,
            color="white" if part > DARK else INK,
        )
    style_axes(axes, "predicted class", "true class (count)", subtitle)
    axes.grid(visible=False)
    axes.set_xticks(range(K), list(names), parse_math=False)
    if K > 2 and max(map(len, names)) > (9 if K < MANY else 6):
        axes.tick_params(axis="x", labelrotation=35)
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    labels = [f"{name}\n({total:,})" for name, total in zip(names, totals, strict=True)]
    axes.set_yticks(range(K), labels, parse_math=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def class_scores(
    scores: Mapping[str, Mapping[str, float]],
    intervals: np.ndarray | None = None,
    title: str = "F1, precision and recall of each class",
) -> Figure:
    """F1 of each class as a bar with its interval, precision and recall as marks; the worst class on top.

    Args:
        scores: By name, as of `metrics.classification.per_class`; classes whose F1 is NaN come last, without a bar.
        intervals: (K, 2) lower and upper ends of F1, as of `metrics.bootstrap.class_f1_intervals`; NaN for none.
        title: First line.

    Raises:
        ValueError: There is no class, or not one interval for each.
    """
    K = len(scores)
    ends = np.full((K, 2), np.nan) if intervals is None else np.asarray(intervals)
    if K == 0 or ends.shape != (K, 2):
        raise ValueError(f"intervals has shape {ends.shape} for {K} classes: give {(K, 2)}")
    names, rows = list(scores), list(scores.values())
    f1, precision, recall = (
        np.array([row[key] for row in rows], dtype=np.float64) for key in ("f1", "precision", "recall")
    )
    order = np.argsort(f1, kind="stable")  # NaN last
    place = np.arange(K)
    figure = new_figure(7.4, 1.7 + 0.42 * K, title)
    axes = figure.subplots()
    axes.barh(place, np.nan_to_num(f1[order]), color=PREDICTED, alpha=0.35, height=0.62)
    axes.plot(precision[order], place, ">", color=PREDICTED, markersize=6, zorder=4)
    axes.plot(recall[order], place, "o", color=TRUE, markersize=5.5, zorder=4)
    handles = [
        area_handle("F1", PREDICTED),
        _mark("precision (share of its predictions that are right)", ">", PREDICTED),
        _mark("recall (share of its images that are found)", "o", TRUE),
    ]
    if intervals is not None:
        axes.hlines(place, *ends[order].T, color=INK, linewidth=1.3, zorder=3)
        handles.append(line_handle("95 % interval of F1", INK))
    for row, value in enumerate(f1[order]):
        text = f"{value:.3f}" if np.isfinite(value) else "n/a"
        axes.text(
            1.03, row, text, va="center", fontsize=LABEL_SIZE, color=INK if np.isfinite(value) else MUTED
        )
    style_axes(axes, "")
    supports = [f"{names[index]} ({rows[index]['support']:,})" for index in order]
    axes.set_yticks(place, supports, parse_math=False)
    axes.set(xlim=(0, 1.13), ylim=(K - 0.5, -0.5), xticks=np.linspace(0, 1, 6))
    axes.grid(visible=False, axis="y")
    outside_legend(figure, handles, columns=2)
    return figure


def _mark(label: str, marker: str, color: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, color=color, label=label)
