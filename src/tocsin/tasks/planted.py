"""Synthetic anomalies planted in a validation part that has none: a fair way to choose between detectors.

How well a score finds them can be compared between detectors that minimise different losses, and no real label is
read (Goswami et al., "Unsupervised Model Selection for Time-Series Anomaly Detection", ICLR 2023).
"""

from dataclasses import replace

import numpy as np
import torch

from tocsin.data.cleaning import Scaler
from tocsin.data.injection import inject_series
from tocsin.data.series_data import SeriesData
from tocsin.errors import ConfigError

SEED = 0  # not that of the run: all runs on the same data are asked for the same anomalies
RATIO = 0.05  # rough share of the steps
GAP = 50  # fewest normal steps between two anomalies


def plant(series: SeriesData, scaler: Scaler) -> SeriesData:
    """A copy of a series with anomalies in it.

    Args:
        series: Normal, in its own units; labels it has are kept beside those of the planted anomalies.
        scaler: Of the train part: sizes of anomalies are in its units.

    Returns:
        The series with (N,) labels; values are the same where nothing was planted. Series that are too short for an
        anomaly stay as they are.

    Raises:
        ConfigError: All of them are.
    """
    values = np.array(series.values, dtype=np.float32)
    labels = (
        np.zeros(len(values), dtype=bool) if series.labels is None else np.array(series.labels, dtype=bool)
    )
    generator = torch.Generator().manual_seed(SEED)
    long_enough = [
        (int(begin), int(begin) + length)
        for begin, length in zip(series.offsets, series.lengths, strict=False)
        if length >= 2 * GAP + 4
    ]
    if not long_enough:
        raise ConfigError(
            f"task.planted: series of at most {max(series.lengths)} steps are too short for planted anomalies, which "
            f"need {2 * GAP + 4}; set task.planted=false"
        )
    for begin, end in long_enough:
        normal = torch.from_numpy(scaler.transform(values[begin:end]))
        changed, mask = inject_series(normal, generator, ratio=RATIO, gap=GAP)
        where = mask.numpy()
        values[begin:end][where] = scaler.inverse(changed.numpy())[where]
        labels[begin:end] |= where.any(axis=1)
    return replace(series, values=values, labels=labels, events=None)
