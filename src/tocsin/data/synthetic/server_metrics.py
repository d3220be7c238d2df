"""Server metrics: eight coupled channels of one simulated machine, one step a minute, labelled anomalies.

Source: time-series specification, section 9.4. `server_load` draws the healthy machine, `server_schedule`
says when something goes wrong, `server_anomalies` does it. Train and validation come first and are free of
anomalies unless `contamination` asks for some in train; the test part carries them all.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd
from scipy.ndimage import uniform_filter1d

from tocsin.data.series_data import SeriesData
from tocsin.data.synthetic.server_anomalies import inject
from tocsin.data.synthetic.server_load import CHANNELS, DAY, LOWER, REQUESTS, UPPER, normal_metrics, quantise
from tocsin.data.synthetic.server_schedule import ANOMALY_TYPES, PlannedEvent, plan_events
from tocsin.data.synthetic.server_site import Severity, Site

TYPE_NAMES = ("normal", *ANOMALY_TYPES)

MISSING_RATE = 0.0005
MIN_TRAIN = 2 * DAY  # steps from which the residual sd of each hour can be measured


@dataclass(frozen=True)
class ServerMetrics:
    """A labelled series and everything the generator knows about it.

    Attributes:
        series: Values (N, 8), labels (N,), timestamps (N,) datetime64[s], events.
        type_ids: (N,) int64, index into `TYPE_NAMES`; 0 = normal.
        channel_labels: (N, 8) bool, the channels that an anomaly touches at that step.
        transition: (N,) bool, steps within 2 of the border of an event; inside an event only if it is longer
            than 8 steps, so that a scorer that ignores these steps still sees every event.
        missing: (N, 8) bool, readings that were lost and filled with the one before.
        hard_negatives: `start`, `end` (exclusive), `type` of what is unusual but normal (labelled 0):
            deploys, batch jobs, flash crowds, garbage collection, regime changes.
        clean: (N, 8) float32, the twin of `series.values` without anomalies.
        train_end: First step after the train part.
        test_start: First step of the test part.
    """

    series: SeriesData
    type_ids: np.ndarray
    channel_labels: np.ndarray
    transition: np.ndarray
    missing: np.ndarray
    hard_negatives: pd.DataFrame
    clean: np.ndarray
    train_end: int
    test_start: int


def server_metrics(
    *,
    total_length: int = 440_000,
    train_fraction: float = 0.4,
    val_fraction: float = 0.1,
    severity: Severity = "medium",
    contamination: float = 0.0,
    anomaly_ratio: float = 0.05,
    seed: int = 42,
) -> ServerMetrics:
    """Draw a series; the same arguments give the same series, bit for bit.

    Args:
        total_length: Steps of one minute; 440,000 carry each anomaly type at least 15 times in the test part.
        train_fraction: Leading share of the steps for training.
        val_fraction: Share after it for validation, always without anomalies.
        severity: How much anomalies stand out: "easy", "medium" or "hard".
        contamination: Share of the train steps that are anomalous, 0 to .02.
        anomaly_ratio: Anomalous test steps / `total_length`, .01 to .05; an upper limit that is met closely.
        seed: Seed of everything.

    Raises:
        ValueError: If an argument is out of range or the test part is too short for one event of each type.
    """
    _check(total_length, train_fraction, val_fraction, severity, contamination, anomaly_ratio)
    train_end = int(total_length * train_fraction)
    test_start = train_end + int(total_length * val_fraction)
    # One stream for each purpose: severity and contamination do not change the healthy machine below them.
    healthy, planning, train_planning, events_rng, losses = np.random.default_rng(seed).spawn(5)

    normal = normal_metrics(total_length, train_end, healthy)
    busy = np.argsort(np.argsort(uniform_filter1d(normal.values[:, REQUESTS], 61))) / total_length
    budget = int(anomaly_ratio * total_length)
    planned = plan_events(test_start, total_length, budget, busy, planning, every_type=True)
    if contamination > 0:
        budget = int(contamination * train_end)
        planned = plan_events(0, train_end, budget, busy, train_planning, every_type=False) + planned

    values = normal.values.copy()
    type_ids = np.zeros(total_length, dtype=np.int64)
    channel_labels = np.zeros((total_length, len(CHANNELS)), dtype=bool)
    rows = []
    for event, rng in zip(planned, events_rng.spawn(len(planned)), strict=True):
        touched = inject(event.kind, Site(values, normal, event.start, event.end, severity, rng))
        _reflect(values[event.start : event.end])
        type_ids[event.start : event.end] = TYPE_NAMES.index(event.kind)
        for channel, onset in touched.items():
            channel_labels[event.start + onset : event.end, channel] = True
        rows.append((event.start, event.end, event.kind, tuple(sorted(touched)), severity))

    missing = losses.random(values.shape) < MISSING_RATE
    missing[0] = False
    series = SeriesData(
        values=_fill(quantise(values), missing),
        channel_names=CHANNELS,
        labels=type_ids > 0,
        timestamps=np.datetime64("2024-01-01T00:00:00", "s") + 60 * np.arange(total_length),
        names=("server",),
        events=pd.DataFrame(rows, columns=["start", "end", "type", "channels", "severity"]),
    )
    return ServerMetrics(
        series=series,
        type_ids=type_ids,
        channel_labels=channel_labels,
        transition=_transition(planned, total_length),
        missing=missing,
        hard_negatives=normal.hard_negatives,
        clean=_fill(quantise(normal.values), missing),
        train_end=train_end,
        test_start=test_start,
    )


def _reflect(values: np.ndarray) -> None:
    """Fold values (L, 8) back at the physical bounds, in place; clipping would leave no noise."""
    values[:] = LOWER + np.abs(values - LOWER)
    above = values > UPPER
    values[above] = np.maximum(2 * UPPER - values, LOWER)[above]


def _fill(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Replace missing readings by the last one before them, (N, 8)."""
    last_seen = np.maximum.accumulate(np.where(missing, 0, np.arange(len(values))[:, None]), axis=0)
    filled: np.ndarray = np.take_along_axis(values, last_seen, axis=0)
    return filled


def _transition(planned: list[PlannedEvent], n: int) -> np.ndarray:
    """Steps (N,) bool within 2 of a border; see `ServerMetrics.transition`."""
    transition = np.zeros(n, dtype=bool)
    for event in planned:
        inner = 2 if event.end - event.start > 8 else 0
        transition[max(event.start - 2, 0) : event.start + inner] = True
        transition[event.end - inner : event.end + 2] = True
    return transition


def _check(
    total_length: int,
    train_fraction: float,
    val_fraction: float,
    severity: str,
    contamination: float,
    anomaly_ratio: float,
) -> None:
    if severity not in get_args(Severity):
        raise ValueError(f"severity is {severity!r}, but must be one of {', '.join(get_args(Severity))}")
    if not 0.01 <= anomaly_ratio <= 0.05:
        raise ValueError(f"anomaly_ratio is {anomaly_ratio}, but must be in [0.01, 0.05]")
    if not 0 <= contamination <= 0.02:
        raise ValueError(f"contamination is {contamination}, but must be in [0, 0.02]")
    if not 0 < train_fraction < 1:
        raise ValueError(f"train_fraction is {train_fraction}, but must be in (0, 1)")
    if not 0 <= val_fraction < 1 - train_fraction:
        raise ValueError(f"val_fraction is {val_fraction}, but must be in [0, 1 - train_fraction)")
    if total_length * train_fraction < MIN_TRAIN:
        raise ValueError(
            f"total_length is {total_length}, but train_fraction of it must be >= {MIN_TRAIN} steps"
        )
