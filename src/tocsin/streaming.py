"""Scores rows as they arrive: one output row per input row, in constant memory.

The last T rows are kept; each new row is scored as the last step of its window. Means over time look back
only, because a score that was given cannot be taken back.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tocsin.data.cleaning import Scaler
from tocsin.errors import DataError
from tocsin.tasks.series_anomaly import SeriesAnomaly


class TrainedDetector(Protocol):
    """What streaming needs of a trained detector."""

    @property
    def task(self) -> SeriesAnomaly: ...
    @property
    def scaler(self) -> Scaler: ...
    @property
    def channel_names(self) -> tuple[str, ...]: ...
    @property
    def window(self) -> int: ...
    @property
    def fill_limit(self) -> int: ...


def score_stream(
    lines: Iterable[str], trained: TrainedDetector, *, timestamp_column: str | None = None
) -> Iterator[str]:
    """Score CSV lines with a header.

    Args:
        lines: A header that names the channels of training, then one row per step.
        trained: Detector, scaling and threshold.
        timestamp_column: Column that is passed on; None passes on a first column that is no channel.

    Yields:
        A header, then `timestamp,score,is_anomaly` for each row; the score is empty until the first window is
        full.

    Raises:
        DataError: The header lacks a channel, or a row has a wrong number of values or a text among them.
    """
    reader = csv.reader(iter(lines))
    header = next(reader, None)
    if header is None:
        raise DataError("input=-: nothing arrived; the first line must be a header with the channel names")
    positions = _positions(header, trained.channel_names)
    stamp = _timestamp_position(header, trained.channel_names, timestamp_column)
    yield "timestamp,score,is_anomaly\n" if stamp is not None else "score,is_anomaly\n"
    scorer = RowScorer(trained)
    for number, fields in enumerate(reader, start=1):
        if len(fields) != len(header):
            raise DataError(
                f"input=-: row {number} has {len(fields)} values, but the header has {len(header)}"
            )
        score = scorer.push(_values(fields, positions, number))
        prefix = "" if stamp is None else f"{fields[stamp]},"
        if score is None:
            yield f"{prefix},\n"
        else:
            yield f"{prefix}{score:.6g},{int(scorer.alarm)}\n"


class RowScorer:
    """Scores one row at a time.

    Several rows may be taken at once: `windows` gives what the detector must see for them, `scores` makes of its
    deviations what `push` would have said of one row after another.

    Args:
        trained: Detector, scaling and threshold.
        where: What to call the source of the rows in messages.
    """

    def __init__(self, trained: TrainedDetector, *, where: str = "input=-") -> None:
        self.trained = trained
        self.where = where
        self._calibration = trained.task.calibration
        self._above = 0  # steps in a row with a score above the threshold
        self._rows = np.empty((0, len(trained.channel_names)), dtype=np.float32)  # (up to T - 1, C)
        self._last: np.ndarray | None = None
        self._scorer = trained.task.scorer.cpu()
        self._past = torch.empty(0)  # (up to 2 * reach, K) deviations of the rows before
        self._missing = np.zeros(len(trained.channel_names), dtype=np.int64)

    @torch.inference_mode()
    def push(self, row: np.ndarray) -> float | None:
        """Score of a row (C,) in the data's own units; None until the first window is full."""
        windows = self.windows(self.fill(row)[None])
        if not len(windows):
            return None
        return float(self.scores(self.trained.task.errors(windows)[:, -1])[0][0])

    def fill(self, row: np.ndarray) -> np.ndarray:
        """The next row (C,) float32, with the last known value where one is missing (NaN).

        Raises:
            DataError: A channel is missing for longer than may be filled.
        """
        missing = np.isnan(row)
        self._missing = np.where(missing, self._missing + 1, 0)
        if missing.any():
            channel = int(self._missing.argmax())
            if self._last is None or self._missing[channel] > self.trained.fill_limit:
                raise DataError(
                    f"{self.where}: channel {self.trained.channel_names[channel]} is missing for "
                    f"{self._missing[channel]} rows, and data.fill_limit is {self.trained.fill_limit}"
                )
            row = np.where(missing, self._last, row).astype(np.float32)
        self._last = row
        return row

    def windows(self, rows: np.ndarray) -> Tensor:
        """The windows that end with the next rows.

        Args:
            rows: (N, C) float32 in the data's own units, as `fill` gave them.

        Returns:
            (M, T, C) float32, standardised; M = N but for the rows that come before the first window is full.
        """
        known = np.concatenate([self._rows, rows])  # (up to T - 1 + N, C)
        window = self.trained.window
        self._rows = known[max(0, len(known) - window + 1) :].copy()
        if len(known) < window:
            return torch.empty(0, window, known.shape[1])
        scaled = self.trained.scaler.transform(known)
        views = np.lib.stride_tricks.sliding_window_view(scaled, window, axis=0)  # (M, C, T)
        return torch.from_numpy(views.transpose(0, 2, 1).copy())  # (M, T, C)

    @torch.inference_mode()
    def scores(self, deviations: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """What the next rows come to.

        Args:
            deviations: (M, K) float32 of the last step of each of the next M windows.

        Returns:
            Scores (M,) float32, and (M,) bool, whether a row is in an alarm. An alarm begins late by
            `task.min_duration`: no one knows before.
        """
        known = torch.cat([self._past, deviations]) if len(self._past) else deviations
        scores = self._scorer.score(known, causal=True)[-len(deviations) :].numpy()
        self._past = known[max(0, len(known) - 2 * self._scorer.reach) :].clone()
        alarms = np.empty(len(scores), dtype=bool)
        for index, above in enumerate((scores >= self._calibration.point).tolist()):
            self._above = self._above + 1 if above else 0
            alarms[index] = self._above >= self._calibration.min_duration
        return scores, alarms

    @property
    def alarm(self) -> bool:
        """Whether the last row is in an alarm."""
        return self._above >= self._calibration.min_duration


def _positions(header: Sequence[str], channel_names: Sequence[str]) -> list[int]:
    missing = [name for name in channel_names if name not in header]
    if missing:
        raise DataError(
            f"input=-: the header lacks the channels {', '.join(missing)}; it has {', '.join(header)}"
        )
    return [header.index(name) for name in channel_names]


def _timestamp_position(header: Sequence[str], channel_names: Sequence[str], asked: str | None) -> int | None:
    if asked is not None and asked in header:
        return header.index(asked)
    return 0 if header[0] not in channel_names else None


def _values(fields: Sequence[str], positions: Sequence[int], number: int) -> np.ndarray:
    texts = [fields[position] for position in positions]
    try:
        return np.array([float(text) if text.strip() else np.nan for text in texts], dtype=np.float32)
    except ValueError as error:
        raise DataError(f"input=-: row {number}: {error}") from error
