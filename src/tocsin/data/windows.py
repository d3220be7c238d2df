"""Windows of long series without copies, and the inverse: one score per time step.

A batch is one gather of its windows, not a loop over samples and a collate. Windows overlap, so values in
memory are standardised once, not once per window; a memory map stays on disk, and each batch of it is
standardised on the way. `OverlapFold` turns the scores of overlapping windows back into one score per time
step, as a stream: it holds a window's worth of partial sums, whatever the length of the series.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch.utils.data import Dataset

from tocsin.batch import SeriesBatch
from tocsin.errors import ConfigError

REDUCTIONS = ("mean", "max", "last")


def window_starts(lengths: Sequence[int], window: int, stride: int, *, cover: bool = False) -> np.ndarray:
    """First steps of all windows that fit into each series.

    Args:
        lengths: Steps of each series on the common time axis.
        window: Steps of a window.
        stride: Steps from one window to the next.
        cover: Add a window that ends on the last step of a series where the stride leaves a rest, so
            that every step lies in a window.

    Returns:
        (W,) int64, ascending.

    Raises:
        ValueError: A series is shorter than the window.
    """
    starts, offset = [], 0
    for index, length in enumerate(lengths):
        if length < window:
            raise ConfigError(
                f"series {index} has {length} steps, fewer than data.window={window}; "
                f"set data.window to {length} or less"
            )
        own = np.arange(0, length - window + 1, stride, dtype=np.int64)
        if cover and own[-1] != length - window:
            own = np.append(own, length - window)
        starts.append(own + offset)
        offset += length
    return np.concatenate(starts)


class WindowDataset(Dataset[SeriesBatch]):
    """The windows of a split; `__getitems__` gathers a whole batch at once.

    Args:
        values: (N, C) float32 in the data's own units; may be a memory map, in C order.
        starts: (W,) first step of each window.
        window: Steps T of a window.
        transform: Standardises a (..., C) array, each value on its own. Applied to all values at once, or to
            each batch where they are a memory map.
        labels: (N,) bool or None.
    """

    def __init__(
        self,
        *,
        values: np.ndarray,
        starts: np.ndarray,
        window: int,
        transform: Callable[[np.ndarray], np.ndarray],
        labels: np.ndarray | None = None,
    ) -> None:
        self.starts = starts
        self.window = window
        self.n_steps = len(values)
        mapped = isinstance(values, np.memmap)
        self._transform = transform if mapped else None
        if not mapped:
            values = transform(values)
        # A window is one contiguous run of T * C numbers: this view costs nothing, and picking rows of it
        # copies whole windows.
        n_channels = values.shape[1]
        self._windows = np.lib.stride_tricks.sliding_window_view(values.reshape(-1), window * n_channels)
        self._windows = self._windows[::n_channels]  # (N - T + 1, T * C)
        self._labels = None if labels is None else np.lib.stride_tricks.sliding_window_view(labels, window)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> SeriesBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> SeriesBatch:
        """Gather a batch.

        Args:
            indices: B window numbers.

        Returns:
            x (B, T, C) float32 standardised, start (B,), labels (B, T) or None.
        """
        starts = self.starts[np.asarray(indices)]
        x = self._windows[starts].reshape(len(starts), self.window, -1)  # (B, T, C), a copy
        if self._transform is not None:
            x = self._transform(x)
        labels = None if self._labels is None else torch.from_numpy(self._labels[starts])
        return SeriesBatch(x=torch.from_numpy(x), start=torch.from_numpy(starts), labels=labels)


class OverlapFold:
    """Folds window scores back to one score per time step, as a stream.

    Windows come in ascending order. `push` returns the steps that no later window can reach, so memory
    does not grow with the series. A NaN says "this window does not score this step" and is left out.

    Args:
        n_steps: Steps N of the time axis. The last window must end there.
        window: Steps T of a window.
        reduce: `mean` over the windows that cover a step, `max`, or `last`: the score of the window in which
            the step lies nearest to the end, which is what a streaming detector would have said.
    """

    def __init__(self, *, n_steps: int, window: int, reduce: str = "mean") -> None:
        if reduce not in REDUCTIONS:
            raise ConfigError(f"reduce={reduce!r} is not one of {', '.join(REDUCTIONS)}")
        self.n_steps = n_steps
        self.window = window
        self.reduce = reduce
        self._done = 0  # steps already returned
        self._value = np.empty((0, 0), dtype=np.float64)  # (open steps, K)
        self._count = np.empty((0, 0), dtype=np.int32)  # (open steps, K)

    def push(self, scores: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Add a batch of windows.

        Args:
            scores: (B, T, K) float; NaN = not scored.
            starts: (B,) int64, ascending, none before the last batch's.

        Returns:
            (M, K) float32, the next M finished steps; NaN where no window scored a step.
        """
        self._grow(int(starts[-1]) + self.window - self._done, scores.shape[-1])
        scored = ~np.isnan(scores)
        # Windows never start twice at a step, so each slice has no repeats. From the end, for `last`.
        for step in reversed(range(self.window)):
            at = starts + (step - self._done)
            self._merge(at, scores[:, step], scored[:, step])
        last = int(starts[-1]) + self.window == self.n_steps
        return self._finish(self.n_steps if last else int(starts[-1]))

    def _grow(self, n_open: int, n_scores: int) -> None:
        more = n_open - len(self._value)
        fill = -np.inf if self.reduce == "max" else 0.0
        self._value = np.concatenate([self._value.reshape(-1, n_scores), np.full((more, n_scores), fill)])
        self._count = np.concatenate(
            [self._count.reshape(-1, n_scores), np.zeros((more, n_scores), dtype=np.int32)]
        )

    def _merge(self, at: np.ndarray, scores: np.ndarray, scored: np.ndarray) -> None:
        if self.reduce == "mean":
            self._value[at] += np.where(scored, scores, 0.0)
        elif self.reduce == "max":
            self._value[at] = np.fmax(self._value[at], scores)
        else:  # the first to score a step has it nearest to its end
            fresh = scored & (self._count[at] == 0)
            self._value[at] = np.where(fresh, scores, self._value[at])
        self._count[at] += scored

    def _finish(self, until: int) -> np.ndarray:
        n = until - self._done
        value, count = self._value[:n], self._count[:n]
        self._value, self._count, self._done = self._value[n:], self._count[n:], until
        divisor = np.maximum(count, 1) if self.reduce == "mean" else 1
        return np.where(count > 0, value / divisor, np.nan).astype(np.float32)


def fill_unscored(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Give steps that no window scored the nearest score: the first one of their series at its head.

    Args:
        scores: (N, K) float, NaN = not scored.
        offsets: (S + 1,) borders of the series.

    Returns:
        (N, K) without NaN, unless a series has no score at all.
    """
    missing = np.isnan(scores[:, 0])
    if not missing.any():
        return scores
    filled = scores.copy()
    for begin, end in pairwise(offsets):
        valid = np.flatnonzero(~missing[begin:end])
        if len(valid) == 0:
            continue
        steps = np.arange(end - begin)
        # The last scored step at or before each step; the first scored one for the head.
        source = valid[np.maximum(np.searchsorted(valid, steps, side="right") - 1, 0)]
        filled[begin:end] = scores[begin:end][source]
    return filled
