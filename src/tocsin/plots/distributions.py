"""How well scores separate two classes, and what a threshold makes of them."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from tocsin.metrics.functional import RocCurve
from tocsin.plots.lines import COLUMNS, decimate, wants_log
from tocsin.plots.style import (
    CATEGORICAL,
    MUTED,
    NORMAL,
    PREDICTED,
    THRESHOLD,
    TRUE,
    area_handle,
    line_handle,
    new_figure,
    outside_legend,
    style_axes,
)

BINS = 60


def score_histogram(
    scores: np.ndarray,
    labels: np.ndarray | None,
    threshold: float,
    title: str = "Scores by class",
    unit: str = "steps",
) -> Figure:
    """Both classes over the same bins, each as shares of its own class, so that a rare class stays visible.

    Bins are of equal width on the axis drawn; it is logarithmic if the scores are positive and heavy-tailed.

    Args:
        scores: (N,) numbers, higher = more anomalous; what is not finite is left out.
        labels: (N,) bool, true = anomalous; None draws one class.
        threshold: In units of the score.
        title: First line.
        unit: What one score belongs to: steps, images, series.

    Raises:
        ValueError: Shapes differ, or no score is finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if labels is not None and np.shape(labels) != scores.shape:
        raise ValueError(
            f"labels has shape {np.shape(labels)}, but scores has {scores.shape}: give one per score"
        )
    finite = np.isfinite(scores)
    if not finite.any():
        raise ValueError(f"none of {scores.size} scores is finite: there is nothing to draw")
    truth = np.zeros(scores.shape, bool) if labels is None else np.asarray(labels).astype(bool)
    log = threshold > 0 and wants_log(scores)
    edges = _bin_edges(np.append(scores[finite], threshold), log)
    figure = new_figure(7, 4.3, title)
    axes = figure.subplots()
    if log:
        axes.set_xscale("log")
    classes = [("normal", NORMAL, finite & ~truth), ("anomalous", TRUE, finite & truth)]
    if labels is None:
        classes = [("all, unlabelled", NORMAL, finite)]
    handles = []
    for name, color, chosen in classes:
        counts, _ = np.histogram(scores[chosen].clip(edges[0], edges[-1]), edges)
        share = counts / max(1, int(chosen.sum()))
        axes.stairs(share, edges, fill=True, facecolor=color, alpha=0.45, zorder=2)
        axes.stairs(share, edges, edgecolor=color, linewidth=1.4, zorder=3)
        handles.append(area_handle(f"{name} ({int(chosen.sum()):,} {unit})", color, alpha=0.6))
    if np.isfinite(threshold):
        axes.axvline(threshold, color=THRESHOLD, linestyle="--", linewidth=1.5, zorder=4)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}"))
    share_of = "share of all" if labels is None else "share of each class"
    style_axes(axes, f"anomaly score{' (log scale)' if log else ''}", f"{share_of} per bin (%)")
    outside_legend(figure, [*handles, line_handle(f"threshold {threshold:.4g}", THRESHOLD, "--")])
    return figure


def precision_recall(
    precision: np.ndarray,
    recall: np.ndarray,
    base_rate: float,
    operating_point: tuple[float, float] | None = None,
    title: str = "Precision and recall over all thresholds",
) -> Figure:
    """The curve, the base rate that a random score reaches, and where the chosen threshold lies on it.

    Average precision in the legend is the step-wise area, as scikit-learn computes it.

    Args:
        precision: (P,) in [0, 1], in the order of `recall`.
        recall: (P,) in [0, 1], falling or rising; `sklearn.metrics.precision_recall_curve` gives both.
        base_rate: Share of anomalous items, in [0, 1].
        operating_point: Recall and precision at the threshold, each in [0, 1].
        title: First line.

    Raises:
        ValueError: Shapes differ, or a number lies outside of [0, 1].
    """
    precision, recall = (np.asarray(array, dtype=np.float64) for array in (precision, recall))
    if precision.shape != recall.shape or precision.ndim != 1 or not precision.size:
        raise ValueError(
            f"precision has shape {precision.shape} and recall {recall.shape}: give two equal (P,)"
        )
    point = np.array([] if operating_point is None else operating_point)
    shares = {"precision": precision, "recall": recall, "base_rate": np.array([base_rate]), "point": point}
    for name, numbers in shares.items():
        if not ((numbers >= 0) & (numbers <= 1)).all():
            raise ValueError(f"{name} must lie in [0, 1], but holds {numbers.min():g} to {numbers.max():g}")
    if recall[0] < recall[-1]:
        precision, recall = precision[::-1], recall[::-1]
    area = float(-np.sum(np.diff(recall) * precision[:-1]))
    kept = decimate(precision, COLUMNS)
    figure = new_figure(5.4, 6.0, title)
    axes = figure.subplots()
    axes.plot(recall[kept], precision[kept], color=PREDICTED, linewidth=1.8, drawstyle="steps-post", zorder=3)
    axes.axhline(base_rate, color=MUTED, linestyle=":", linewidth=1.4, zorder=2)
    handles = [
        line_handle(f"detector, average precision {area:.3f}", PREDICTED),
        line_handle(f"random score, base rate {base_rate:.3g}", MUTED, ":"),
    ]
    if operating_point is not None:
        found, right = operating_point
        label = f"chosen threshold, recall {found:.3f}, precision {right:.3f}"
        handles.append(_mark_threshold(axes, found, right, label))
    _unit_square(axes, "recall (share of anomalies found)", "precision (share of alarms that are right)")
    outside_legend(figure, handles, columns=1)
    return figure


def roc(
    curves: Mapping[str, RocCurve],
    areas: Mapping[str, float],
    operating_point: tuple[float, float] | None = None,
    title: str = "True and false alarms over all thresholds",
) -> Figure:
    """ROC curves in one panel, such as that of images and that of pixels, and where the chosen threshold lies.

    Args:
        curves: By name; thin long ones (`metrics.functional.roc_curve(..., max_points=...)`).
        areas: Exact area under each, for the legend: that under a thinned curve is another.
        operating_point: False and true positive rate at the threshold, each in [0, 1].
        title: First line.

    Raises:
        ValueError: There is no curve, a curve has no area, or a rate is undefined.
    """
    if not curves or curves.keys() != areas.keys():
        raise ValueError(
            f"curves are {list(curves)} and areas {list(areas)}: give both for at least one name"
        )
    figure = new_figure(5.4, 5.9 + 0.2 * len(curves), title)
    axes = figure.subplots()
    handles = []
    for (name, curve), color in zip(curves.items(), cycle((PREDICTED, *CATEGORICAL[2:])), strict=False):
        if not np.isfinite([curve.false_positive_rate, curve.true_positive_rate]).all():
            raise ValueError(f"the curve of {name} is undefined: it needs normal and anomalous items")
        axes.plot(curve.false_positive_rate, curve.true_positive_rate, color=color, linewidth=1.8, zorder=3)
        handles.append(line_handle(f"{name}, area {areas[name]:.3f}", color))
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.4, zorder=2)
    handles.append(line_handle("random score, area 0.5", MUTED, ":"))
    if operating_point is not None:
        false, true = operating_point
        label = f"chosen threshold, {100 * false:.3g} % false alarms, {100 * true:.3g} % found"
        handles.append(_mark_threshold(axes, false, true, label))
    _unit_square(axes, "share of the normal with an alarm", "share of the anomalous with an alarm")
    outside_legend(figure, handles, columns=1)
    return figure


def _mark_threshold(axes: Axes, x: float, y: float, label: str) -> Line2D:
    """The point of a curve that the chosen threshold gives."""
    (marker,) = axes.plot(
        [x],
        [y],
        marker="o",
        markersize=10,
        color=THRESHOLD,
        markeredgecolor="white",
        linestyle="none",
        zorder=5,
        label=label,
    )
    return marker


def _unit_square(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Axes of two shares."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    style_axes(axes, xlabel, ylabel)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_yticks(np.linspace(0, 1, 6))


def _bin_edges(scores: np.ndarray, log: bool) -> np.ndarray:
    """(BINS + 1,) edges over all finite scores; a log axis starts at the 0.1 % quantile of positive ones."""
    scores = scores[np.isfinite(scores)]
    if log:
        positive = scores[scores > 0]
        return np.geomspace(min(np.quantile(positive, 0.001), positive[-1]), scores.max() * 1.001, BINS + 1)
    low, high = float(scores.min()), float(scores.max())
    margin = 0.02 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, BINS + 1)
