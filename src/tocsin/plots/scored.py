"""A series with its scores, and how one channel and the score are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from tocsin.plots.channels import check_lengths, check_names, check_table
from tocsin.plots.lines import TimeAxis, draw_line, time_axis, wants_log
from tocsin.plots.regions import draw_regions, regions
from tocsin.plots.style import INK, PREDICTED, THRESHOLD, TRUE, area_handle, line_handle


@dataclass(frozen=True)
class ScoredSeries:
    """Checked inputs of the figures of a scored series.

    Attributes:
        values: (N, C) numbers in their own units.
        scores: (N,) float64, higher = more anomalous.
        threshold: In units of the score; an alarm is `score >= threshold`.
        labels: (N,) bool, true = anomalous; None if unknown.
        predicted: (N,) bool.
        time: Positions of the steps.
        names: C names.
        log: Whether the score axis is logarithmic.
    """

    values: np.ndarray
    scores: np.ndarray
    threshold: float
    labels: np.ndarray | None
    predicted: np.ndarray
    time: TimeAxis
    names: tuple[str, ...]
    log: bool

    @classmethod
    def of(
        cls,
        values: np.ndarray,
        scores: np.ndarray,
        threshold: float,
        labels: np.ndarray | None,
        timestamps: np.ndarray | None,
        channel_names: Sequence[str] | None,
        predicted: np.ndarray | None,
    ) -> "ScoredSeries":
        """Check the shapes and fill in what was left out."""
        N, C = check_table(values)
        check_lengths(N, scores=scores, labels=labels, timestamps=timestamps, predicted=predicted)
        scores = np.asarray(scores, dtype=np.float64)
        alarms = scores >= threshold if predicted is None else np.asarray(predicted).astype(bool)
        return cls(
            values=values,
            scores=scores,
            threshold=float(threshold),
            labels=None if labels is None else np.asarray(labels).astype(bool),
            predicted=alarms,
            time=time_axis(timestamps, N),
            names=check_names(channel_names, C),
            log=threshold > 0 and wants_log(scores),
        )

    @property
    def areas(self) -> np.ndarray:
        """(N,) bool: the labels, or the alarms where labels are unknown."""
        return self.predicted if self.labels is None else self.labels

    def draw_channel(self, axes: Axes, channel: int, start: int, end: int) -> None:
        """One channel with the true areas."""
        x = self.time.x[start:end]
        draw_line(axes, x, self.values[start:end, channel], INK)
        if self.labels is not None:
            draw_regions(axes, self.labels[start:end], x, TRUE)

    def draw_score(self, axes: Axes, start: int, end: int) -> None:
        """The score with threshold and predicted areas."""
        x, part = self.time.x[start:end], self.scores[start:end]
        if self.log:
            axes.set_yscale("log", nonpositive="clip")
        elif (
            self.threshold > 0
            and self.scores.min() < 0
            and wants_log(np.maximum(self.scores, self.threshold))
        ):
            axes.set_yscale("symlog", linthresh=self.threshold)  # linear below the threshold, a log above it
        draw_line(axes, x, part, INK)
        draw_regions(axes, self.predicted[start:end], x, PREDICTED, alpha=0.25)
        if np.isfinite(self.threshold):
            axes.axhline(self.threshold, color=THRESHOLD, linestyle="--", linewidth=1.3, zorder=3)
        if self.log:  # a handful of near-zero scores must not stretch the axis
            positive = self.scores[self.scores > 0]
            axes.set_ylim(bottom=min(float(np.quantile(positive, 0.005)), self.threshold) / 2)

    def handles(self) -> list[Artist]:
        """Legend entries of what is drawn."""
        known: list[Artist] = [] if self.labels is None else [area_handle("true anomaly", TRUE)]
        return [
            *known,
            area_handle("predicted anomaly", PREDICTED, alpha=0.25),
            line_handle(f"threshold {self.threshold:.4g}", THRESHOLD, "--"),
        ]

    def summary(self, shown: int) -> str:
        """What is seen, in one line."""
        C = len(self.names)
        channels = f"{C} channel{'s' if C > 1 else ''}" if shown == C else f"{shown} of {C} channels"
        alarms = f"{len(regions(self.predicted)):,} predicted regions"
        events = "unlabelled" if self.labels is None else f"{len(regions(self.labels)):,} true events"
        return f"{len(self.values):,} steps, {channels}, {events}, {alarms}"
