"""Whether a classifier is right as often as it says: confidence against accuracy."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tocsin.metrics.classification import calibration_bins, expected_calibration_error
from tocsin.plots.style import (
    AREA_ALPHA,
    INK,
    MUTED,
    NORMAL,
    PREDICTED,
    THRESHOLD,
    line_handle,
    new_figure,
    outside_legend,
    style_axes,
)

SHOWN_BINS = 20  # of the histogram


def reliability_diagram(
    labels: np.ndarray,
    probabilities: np.ndarray,
    before: np.ndarray | None = None,
    title: str = "Confidence and accuracy",
) -> Figure:
    """Accuracy over confidence in bins of equal mass, above a histogram of the confidence.

    Args:
        labels: (N,) int, in [0, K).
        probabilities: (N, K) in [0, 1], rows sum to 1.
        before: (N, K), the same before a temperature was fitted; None draws one curve.
        title: First line.

    Raises:
        ValueError: Arrays do not fit each other.
    """
    curves = {"": (probabilities, PREDICTED)}
    if before is not None:
        curves = {"before temperature, ": (before, NORMAL), "after, ": (probabilities, PREDICTED)}
    figure = new_figure(5.4, 7.0, title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    upper.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.4, zorder=2)
    handles = [line_handle("as right as it says", MUTED, ":")]
    lowest = 1.0
    for name, (shares, color) in curves.items():
        draw_reliability(upper, labels, shares, color)
        error = expected_calibration_error(labels, shares)
        handles.append(line_handle(f"{name}expected calibration error {error:.3f}", color))
        confidence = np.asarray(shares, dtype=np.float64).max(1)
        lowest = min(lowest, float(confidence.min()))
        _draw_histogram(lower, confidence, 1 / np.shape(shares)[1], color)
    right = float((np.argmax(probabilities, 1) == labels).mean())
    lower.axvline(right, color=THRESHOLD, linestyle="--", linewidth=1.3)
    handles.append(line_handle(f"accuracy of all {len(labels):,} images, {right:.3f}", THRESHOLD, "--"))
    left = max(0.0, 0.1 * np.floor(10 * lowest - 1e-9)) - 0.01
    upper.set_xlim(left, 1.01)
    upper.set_ylim(min(left, *(float(np.min(line.get_ydata())) - 0.02 for line in upper.lines[1:])), 1.01)
    style_axes(upper, "", "accuracy", "equally many images in each bin")
    style_axes(lower, "confidence (probability of the predicted class)", "images (%)", ticks=3)
    lower.set_ylim(bottom=0)
    outside_legend(figure, handles, columns=1)
    return figure


def draw_reliability(axes: Axes, labels: np.ndarray, probabilities: np.ndarray, color: str) -> None:
    """One curve of accuracy over confidence, with what chance alone may move a bin (two standard errors)."""
    images, confidence, accuracy = calibration_bins(labels, probabilities)
    spread = 2 * np.sqrt(confidence * (1 - confidence) / images)
    low, high = (accuracy + sign * spread for sign in (-1, 1))
    axes.fill_between(
        confidence, low.clip(0), high.clip(max=1), color=color, alpha=AREA_ALPHA / 2, linewidth=0
    )
    axes.plot(confidence, accuracy, color=color, linewidth=1.6, marker="o", markersize=4, zorder=3)


def _draw_histogram(axes: Axes, confidence: np.ndarray, chance: float, color: str) -> None:
    """Shares of the images by confidence, from chance to 1."""
    counts, edges = np.histogram(confidence, np.linspace(chance, 1, SHOWN_BINS + 1))
    shares = 100 * counts / len(confidence)
    filled = color == PREDICTED
    axes.stairs(
        shares, edges, fill=filled, facecolor=color, alpha=AREA_ALPHA if filled else 1, edgecolor=color
    )
    axes.stairs(
        shares, edges, color=color if filled else INK, linewidth=1.2, linestyle="-" if filled else ":"
    )
