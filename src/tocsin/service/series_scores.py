"""Scores series for several requests at once, as `predict.py` does for one file.

The windows of all requests of a pass go through the detector as one batch. What comes after it (folding windows to
steps, and the scorer) is done together, too, for requests of the same length; a request that needs several passes
has its own fold, which holds a window's worth of steps and no more.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tocsin.data.cleaning import fill_missing
from tocsin.data.series_data import SeriesData
from tocsin.data.windows import OverlapFold, WindowDataset, fill_unscored, window_starts
from tocsin.errors import DataError
from tocsin.evaluation import Samples
from tocsin.scoring import ErrorScorer
from tocsin.series_prediction import ScoreBuilder, Trained, largest_views
from tocsin.streaming import RowScorer

UNITS = {"cpu": 64, "cuda": 1024}  # windows in a pass: more bring nothing but longer waits
WHERE = "the request"


class SeriesWork:
    """A series to score.

    Args:
        series: One series, with the channels of training in their order.
        trained: Detector, scaling and thresholds.
        contributions: Whether it is also asked how unusual each channel is.

    Raises:
        DataError: It is shorter than a window, or a gap is too long to be filled.
    """

    def __init__(self, series: SeriesData, trained: Trained, *, contributions: bool) -> None:
        self.series = series
        self.contributions = contributions
        self.n_steps = len(series.values)
        if self.n_steps < trained.window:
            raise DataError(
                f"{WHERE} has {self.n_steps} rows, fewer than the {trained.window} of a window; give more rows"
            )
        values, _ = fill_missing(
            series.values, trained.fill_limit, series.lengths, series.channel_names, where=WHERE
        )
        self.starts = window_starts(series.lengths, trained.window, trained.score_stride, cover=True)
        self._windows = WindowDataset(
            values=values, starts=self.starts, window=trained.window, transform=trained.scaler.transform
        )
        self._trained = trained
        self._taken = 0
        self._fold: OverlapFold | None = None
        self._builder: ScoreBuilder | None = None
        self.scores = np.empty(0, dtype=np.float32)  # (N,) when it is done
        self.channels: dict[str, np.ndarray] = {}  # (N,) how unusual each channel is, where asked for

    @property
    def remaining(self) -> int:
        """Windows that are still to be scored."""
        return len(self.starts) - self._taken

    def take(self, n: int) -> Tensor:
        """The next n windows (n, T, C) float32, standardised."""
        indices = range(self._taken, self._taken + n)
        self._taken += n
        return self._windows.__getitems__(indices).x

    def add(self, errors: np.ndarray) -> None:
        """Take the errors (n, T, K) of the windows that were taken last."""
        if self._fold is None or self._builder is None:
            task = self._trained.task
            self._fold = OverlapFold(n_steps=self.n_steps, window=self._trained.window, reduce=task.fold)
            self._builder = ScoreBuilder(task, self.series.lengths, contributions=self.contributions)
        starts = self.starts[self._taken - len(errors) : self._taken]
        self._builder.add(self._fold.push(errors, starts))
        if self.remaining == 0:
            self.scores = self._builder.scores()
            found = self._builder.contributions(self.series.channel_names)
            self.channels = {name.removeprefix("contribution_"): values for name, values in found.items()}


class StreamWork:
    """The next rows of a stream.

    Args:
        rows: (N, C) float32, filled.
        scorer: Of the stream; keeps what it needs of earlier rows.
    """

    def __init__(self, rows: np.ndarray, scorer: RowScorer) -> None:
        self._windows = scorer.windows(rows)
        self._scorer = scorer
        self._taken = 0
        self.scores: list[float] = []  # of the rows with a full window
        self.alarms: list[bool] = []

    @property
    def remaining(self) -> int:
        """Windows that are still to be scored."""
        return len(self._windows) - self._taken

    def take(self, n: int) -> Tensor:
        """The next n windows (n, T, C) float32, standardised."""
        self._taken += n
        return self._windows[self._taken - n : self._taken]

    def add(self, errors: np.ndarray) -> None:
        """Take the errors (n, T, K) of the windows that were taken last."""
        scores, alarms = self._scorer.scores(torch.from_numpy(errors[:, -1]))
        self.scores += scores.tolist()
        self.alarms += alarms.tolist()


class SeriesModel:
    """A trained detector for series that serves several requests at once.

    Args:
        trained: Detector, scaling and thresholds.
    """

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        self.units = UNITS.get(trained.task.device.type, UNITS["cuda"])
        self._scorer = trained.task.scorer.cpu()

    @torch.inference_mode()
    def step(self, shares: Sequence[tuple[SeriesWork | StreamWork, int]]) -> None:
        """Score the next windows of some works."""
        task = self.trained.task
        x = torch.cat([work.take(n) for work, n in shares])  # (B, T, C)
        errors = task.errors(x.to(task.device)).cpu().numpy()  # (B, T, K)
        ends = np.cumsum([n for _, n in shares])
        whole: dict[tuple[int, bool], list[tuple[SeriesWork, np.ndarray]]] = defaultdict(list)
        for (work, n), part in zip(shares, np.split(errors, ends[:-1]), strict=True):
            if isinstance(work, SeriesWork) and n == len(work.starts):
                whole[work.n_steps, work.contributions].append((work, part))
            else:
                work.add(part)
        for group in whole.values():
            works, parts = zip(*group, strict=True)
            self._finish(works, np.stack(parts))

    def _finish(self, works: Sequence[SeriesWork], errors: np.ndarray) -> None:
        """Scores of R requests of one length from the errors (R, W, T, K) of all their windows."""
        n_requests, _, window, n_errors = errors.shape
        n_steps = works[0].n_steps
        folding = OverlapFold(n_steps=n_steps, window=window, reduce=self.trained.task.fold)
        side_by_side = np.moveaxis(errors, 0, 2).reshape(-1, window, n_requests * n_errors)  # (W, T, R * K)
        steps = folding.push(side_by_side, works[0].starts).reshape(
            n_steps, n_requests, n_errors
        )  # (N, R, K)
        ends = np.array([0, n_steps])
        known = torch.from_numpy(np.stack([fill_unscored(steps[:, i], ends) for i in range(n_requests)]))
        for work, own in zip(works, self._scores(known).numpy(), strict=True):
            work.scores = own
        names = works[0].series.channel_names
        if works[0].contributions and n_errors % len(names) == 0:
            for work, deviations in zip(works, known, strict=True):
                largest = largest_views(self._scorer.normalised(deviations).numpy(), len(names))
                work.channels = {name: largest[:, i] for i, name in enumerate(names)}

    def _scores(self, deviations: Tensor) -> Tensor:
        """Scores (R, N) of R series of one length, from (R, N, K)."""
        if isinstance(
            self._scorer, ErrorScorer
        ):  # nothing in it depends on values, so R series cost hardly more
            return torch.vmap(self._scorer.score)(deviations)
        return torch.stack([self._scorer.score(one) for one in deviations])

    def answer(self, work: SeriesWork) -> dict[str, Any]:
        """What a request is told: arrays stay arrays."""
        task, window = self.trained.task, self.trained.window
        calibration, lengths = task.calibration, work.series.lengths
        samples = Samples.of(lengths, window)
        sample_scores = samples.scores(work.scores, task.series_agg)
        answer: dict[str, Any] = {
            "scores": work.scores,
            "threshold": calibration.point,
            "verdicts": calibration.alarms(work.scores, lengths),
            "samples": {
                "begin": samples.begin,
                "end": samples.end,
                "scores": sample_scores,
                "threshold": calibration.sample,
                "verdicts": sample_scores >= calibration.sample,
            },
        }
        if work.series.timestamps is not None:
            answer["timestamps"] = work.series.timestamps
        return {**answer, "contributions": work.channels} if work.contributions else answer

    def table(self, answer: Mapping[str, Any]) -> bytes:
        """The part of an answer that has a value per row, as CSV in the columns of predict.py."""
        stamps = {"timestamp": answer["timestamps"]} if "timestamps" in answer else {}
        columns = {
            **stamps,
            "score": answer["scores"],
            "is_anomaly": answer["verdicts"].astype(np.int8),
            **{f"contribution_{name}": values for name, values in answer.get("contributions", {}).items()},
        }
        text: str = pd.DataFrame(columns).to_csv(index=False, float_format="%.6g")
        return text.encode()
