"""The in-memory form of one or several time series."""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class SeriesData:
    """One series, or several laid end to end on one time axis.

    Attributes:
        values: (N, C) float32 in the data's own units; may be a memory map.
        labels: (N,) bool, true = anomalous; None if unknown.
        timestamps: (N,) any dtype; None if unknown.
        channel_names: C names.
        lengths: Steps of each series; they sum to N. Windows never cross from one series to the next.
        names: One name per series.
        events: One row per anomaly: `start`, `end` (exclusive) on this time axis, `type` (str),
            `channels` (tuple of channel indices), `severity` (str). None if unknown.
    """

    values: np.ndarray
    channel_names: tuple[str, ...]
    labels: np.ndarray | None = None
    timestamps: np.ndarray | None = None
    lengths: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    events: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        if not self.lengths:
            object.__setattr__(self, "lengths", (len(self.values),))
        if not self.names:
            object.__setattr__(self, "names", tuple(f"series_{i}" for i in range(len(self.lengths))))
        if sum(self.lengths) != len(self.values):
            raise ValueError(f"lengths sum to {sum(self.lengths)}, but there are {len(self.values)} steps")

    @property
    def offsets(self) -> np.ndarray:
        """(S + 1,) int64: series i occupies steps offsets[i] to offsets[i + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)
