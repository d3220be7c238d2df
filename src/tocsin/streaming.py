"""Scores rows as they arrive: one output row per input row, in constant memory.

The last T rows are kept; each new row is scored as the last step of its window. Means over time look back
only, because a score that was given cannot be taken back.
"""

import csv
from collections import deque
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

    Args:
        trained: Detector, scaling and threshold.
    """

    def __init__(self, trained: TrainedDetector) -> None:
        self.trained = trained
        self._calibration = trained.task.calibration
        self._above = 0  # steps in a row with a score above the threshold
        self._rows: deque[np.ndarray] = deque(maxlen=trained.window)
        self._scorer = trained.task.scorer.cpu()
        self._deviations: deque[Tensor] = deque(maxlen=2 * self._scorer.reach + 1)
        self._missing = np.zeros(len(trained.channel_names), dtype=np.int64)

    @torch.inference_mode()
    def push(self, row: np.ndarray) -> float | None:
        """Score of a row (C,) in the data's own units; None until the first window is full."""
        self._rows.append(self._filled(row))
        if len(self._rows) < self.trained.window:
            return None
        task = self.trained.task
        window = self.trained.scaler.transform(np.stack(self._rows))
        self._deviations.append(task.errors(torch.from_numpy(window)[None])[0, -1])  # (K,)
        score = float(self._scorer.score_last(torch.stack(tuple(self._deviations))))
        self._above = self._above + 1 if score >= self._calibration.point else 0
        return score

    @property
    def alarm(self) -> bool:
        """Whether the last row is in an alarm. It begins late by `task.min_duration`: no one knows before."""
        return self._above >= self._calibration.min_duration

    def _filled(self, row: np.ndarray) -> np.ndarray:
        missing = np.isnan(row)
        self._missing = np.where(missing, self._missing + 1, 0)
        if not missing.any():
            return row
        channel = int(self._missing.argmax())
        if not self._rows or self._missing[channel] > self.trained.fill_limit:
            raise DataError(
                f"input=-: channel {self.trained.channel_names[channel]} is missing for {self._missing[channel]} "
                f"rows, and data.fill_limit is {self.trained.fill_limit}"
            )
        return np.where(missing, self._rows[-1], row).astype(np.float32)


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
