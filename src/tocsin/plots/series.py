"""A detector on a time series: the whole signal with its score, and sections that explain hits and misses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from tocsin.plots.channels import check_lengths, most_affected
from tocsin.plots.regions import regions
from tocsin.plots.scored import ScoredSeries
from tocsin.plots.style import (
    INK,
    MUTED,
    horizontal_ylabel,
    new_figure,
    outside_legend,
    style_axes,
)

SCORE_LABEL = "anomaly score"


@dataclass(frozen=True)
class Section:
    """A stretch of a series around one region.

    Attributes:
        kind: `detected event`, `missed event`, `false alarm`, or `alarm` where labels are unknown.
        start: First step shown.
        end: Step after the last one shown.
        region: First step of the region and the step after its last.
    """

    kind: str
    start: int
    end: int
    region: tuple[int, int]


def signal(
    values: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    labels: np.ndarray | None = None,
    timestamps: np.ndarray | None = None,
    channel_names: Sequence[str] | None = None,
    title: str = "",
    max_channels: int = 8,
    predicted: np.ndarray | None = None,
) -> Figure:
    """The channels with the true areas, and below them the score with threshold and predicted areas.

    Of more than `max_channels` channels those are shown that differ most inside the true (without labels:
    predicted) areas; they keep their order. The score axis is logarithmic if the scores are positive and
    heavy-tailed.

    Args:
        values: (N, C) numbers in their own units.
        scores: (N,) numbers, higher = more anomalous.
        threshold: In units of the score.
        labels: (N,) bool, true = anomalous; None if unknown.
        timestamps: (N,) numbers or dates; None counts steps.
        channel_names: C names; None counts channels.
        title: First line.
        max_channels: At most this many panels of channels.
        predicted: (N,) bool, where alarms were post-processed; None takes `score >= threshold`.

    Raises:
        ValueError: Arrays do not fit each other, or fewer than one channel is asked for.
    """
    data = ScoredSeries.of(values, scores, threshold, labels, timestamps, channel_names, predicted)
    if max_channels < 1:
        raise ValueError(f"max_channels is {max_channels}: at least one channel must be shown")
    shown = most_affected(data.values, data.areas, max_channels)
    figure = new_figure(11, 1.9 + 0.85 * len(shown) + 1.3, title)
    panels = figure.subplots(
        len(shown) + 1, 1, sharex=True, squeeze=False, height_ratios=[1.0] * len(shown) + [1.6]
    )[:, 0]
    for axes, channel in zip(panels, shown, strict=False):
        data.draw_channel(axes, channel, 0, len(data.values))
        style_axes(axes, ticks=3)
        horizontal_ylabel(axes, data.names[channel])
    data.draw_score(panels[-1], 0, len(data.values))
    style_axes(panels[-1], data.time.label, ticks=4)
    horizontal_ylabel(panels[-1], SCORE_LABEL)
    data.time.apply(panels[-1], ticks=10)
    panels[0].set_title(data.summary(len(shown)), loc="left", fontsize=9, color=MUTED)
    outside_legend(figure, data.handles())
    return figure


def zoom_windows(
    labels: np.ndarray | None, predicted: np.ndarray, n: int = 3, context: int = 100
) -> list[Section]:
    """Choose sections that explain a detector: by turns a detected event, a missed event and a false alarm.

    A detected event has at least one alarm in it, and typical ones (of median length) come first; missed
    events and false alarms (alarms that touch no event) come longest first. Without labels: the longest
    alarms.

    Args:
        labels: (N,) bool, true = anomalous; None if unknown.
        predicted: (N,) bool.
        n: At most this many sections; fewer if there are fewer regions.
        context: Steps shown before and after the region.

    Raises:
        ValueError: Shapes differ.
    """
    predicted = np.asarray(predicted).astype(bool)
    alarms = regions(predicted)
    if labels is None:
        groups = {"alarm": _longest_first(alarms)}
    else:
        check_lengths(len(predicted), labels=labels)
        truth = np.asarray(labels).astype(bool)
        events = regions(truth)
        hit = _any_inside(events, predicted)
        groups = {
            "detected event": _typical_first(events[hit]),
            "missed event": _longest_first(events[~hit]),
            "false alarm": _longest_first(alarms[~_any_inside(alarms, truth)]),
        }
    chosen: list[Section] = []
    for turn in range(max((len(group) for group in groups.values()), default=0)):
        for kind, group in groups.items():
            if turn < len(group):
                start, end = (int(step) for step in group[turn])
                window = max(0, start - context), min(len(predicted), end + context)
                chosen.append(Section(kind, *window, (start, end)))
    return chosen[:n]


def sections(
    values: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    windows: Sequence[Section],
    labels: np.ndarray | None = None,
    timestamps: np.ndarray | None = None,
    channel_names: Sequence[str] | None = None,
    title: str = "",
    max_channels: int = 3,
    predicted: np.ndarray | None = None,
) -> Figure:
    """Sections side by side: the channels that each region touches most, and scores on one common scale.

    Args:
        values: (N, C) numbers in their own units.
        scores: (N,) numbers, higher = more anomalous.
        threshold: In units of the score.
        windows: From `zoom_windows`.
        labels: (N,) bool, true = anomalous; None if unknown.
        timestamps: (N,) numbers or dates; None counts steps.
        channel_names: C names; None counts channels.
        title: First line.
        max_channels: At most this many channels in a section.
        predicted: (N,) bool; None takes `score >= threshold`.

    Raises:
        ValueError: There are no windows, or arrays do not fit each other.
    """
    data = ScoredSeries.of(values, scores, threshold, labels, timestamps, channel_names, predicted)
    if not windows:
        raise ValueError("no sections to show: there is neither an event nor an alarm")
    rows = min(max_channels, len(data.names))
    figure = new_figure(max(6.0, 4.2 * len(windows)), 2.9 + 1.15 * rows, title)
    grid = figure.subplots(
        rows + 1, len(windows), sharex="col", squeeze=False, height_ratios=[1.0] * rows + [1.5]
    )
    for axes in grid[-1, 1:]:  # before drawing: joined later, all would take the range of the first
        axes.sharey(grid[-1, 0])
    for column, window in zip(grid.T, windows, strict=True):
        _draw_section(column, data, window)
        figure.align_ylabels(column)
    if data.log:  # there the first section's lower limit has fixed the upper one too
        highest = max(float(np.nanmax(data.scores[window.start : window.end])) for window in windows)
        grid[-1, 0].set_ylim(top=1.5 * max(highest, data.threshold))
    grid[-1, 0].set_ylabel(SCORE_LABEL, fontsize=9, color=INK)
    outside_legend(figure, data.handles())
    return figure


def _draw_section(column: np.ndarray, data: ScoredSeries, window: Section) -> None:
    """Fill one column of panels: its channels, then the score."""
    start, end = window.start, window.end
    first, last = window.region
    inside = np.zeros(end - start, bool)
    inside[first - start : last - start] = True
    shown = most_affected(data.values[start:end], inside, len(column) - 1)
    for axes, channel in zip(column, shown, strict=False):
        data.draw_channel(axes, channel, start, end)
        style_axes(axes, ylabel=data.names[channel][:16], ticks=3)
    data.draw_score(column[-1], start, end)
    style_axes(column[-1], data.time.label, ticks=4)
    data.time.part(start, end).apply(column[-1], ticks=4)
    where = f"step {first:,}" if last - first == 1 else f"steps {first:,} to {last - 1:,}"
    column[0].set_title(f"{window.kind}, {where}", loc="left", fontsize=9.5, color=INK, fontweight="bold")


def _any_inside(found: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(R,) bool: whether any step of each region (R, 2) is true in the mask (N,)."""
    before = np.concatenate([[0], np.cumsum(mask)])
    return np.asarray(before[found[:, 1]] > before[found[:, 0]])


def _longest_first(found: np.ndarray) -> np.ndarray:
    """Regions (R, 2), the longest first."""
    return found[np.argsort(found[:, 0] - found[:, 1], kind="stable")]


def _typical_first(found: np.ndarray) -> np.ndarray:
    """Regions (R, 2), those nearest to the median length first."""
    length = found[:, 1] - found[:, 0]
    middle = np.median(length) if len(length) else 0
    return found[np.argsort(np.abs(length - middle), kind="stable")]
