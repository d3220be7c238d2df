"""What the datamodules for time series share: splits, scaling, windows and loaders."""

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import DataLoader, DistributedSampler

from tocsin.batch import SeriesBatch
from tocsin.data.cleaning import Scaler, ScalerMethod, fill_missing
from tocsin.data.module import DataModule, as_is
from tocsin.data.series_data import SeriesData
from tocsin.data.splits import Splits, spread_parts
from tocsin.data.windows import WindowDataset, window_starts
from tocsin.errors import DataError

log = logging.getLogger(__name__)

SCALE_STEPS = 20_000  # of the train part, for the scales of the score
CHUNK = 1 << 18  # steps at a time where a whole series is walked over


@dataclass(kw_only=True, eq=False, repr=False)
class SeriesDataModule(DataModule):
    """Base of the datamodules for time series: a dataclass, so that subclasses inherit the options.

    Training draws shuffled windows without labelled anomalies; the validation loss is computed on windows of
    the same kind. Scoring walks over a whole split in order, so that every step gets its score.

    Attributes:
        window: Steps T of a window.
        stride: Steps between training windows.
        passes: Times that an epoch goes through the training windows; more where they are few.
        score_stride: Steps between the windows that score a split; smaller = smoother and slower.
        batch_size: Windows in a training batch, over all processes.
        score_batch_size: Windows in a scoring batch.
        scaling: `standard`, `robust` or `none`; statistics come from the train split alone.
        clip: Standardised values are cut at this many units; None for no cut.
        fill_limit: Longest run of missing steps that is filled forward.
        num_workers: Loader processes; 0 is fastest here, because a batch is one gather.
        seed: Seed of the shuffling.
    """

    kind: ClassVar[str] = "series"

    window: int = 100
    stride: int = 10
    passes: int = 1
    score_stride: int = 10
    batch_size: int = 64
    score_batch_size: int = 256
    scaling: ScalerMethod = "standard"
    clip: float | None = 100.0
    fill_limit: int = 60
    num_workers: int = 0
    seed: int = 42
    scaler: Scaler | None = field(init=False, default=None)
    splits: Splits | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        super().__init__()
        self.check_positive("passes", "window", "stride", "score_stride", "batch_size", "score_batch_size")
        if self.score_stride > self.window:
            raise DataError(
                f"data.score_stride={self.score_stride} is larger than data.window={self.window}: "
                f"steps would get no score; set it to {self.window} or less"
            )

    @abstractmethod
    def load(self) -> Splits:
        """Read or draw the data, cut into splits."""

    def setup(self, stage: str | None = None) -> None:
        if self.splits is not None:
            return
        splits = self.load()
        self.splits = Splits(
            train=self._fill(splits.train, "train"),
            val=self._fill(splits.val, "validation"),
            test=self._fill(splits.test, "test"),
        )
        for name, part in (("train", splits.train), ("validation", splits.val), ("test", splits.test)):
            if len(part.values) < self.window or min(part.lengths) < self.window:
                raise DataError(
                    f"the {name} part has a series of {min(part.lengths, default=0)} steps, fewer than "
                    f"data.window={self.window}; give more data or set a smaller data.window"
                )
        if self.scaler is None:
            self.scaler = Scaler.fit(self.splits.train.values, method=self.scaling, clip=self.clip)
            log.info("%s", self.scaler.describe(splits.train.channel_names))

    def _fill(self, series: SeriesData, part: str) -> SeriesData:
        values, _ = fill_missing(
            series.values, self.fill_limit, series.lengths, series.channel_names, where=f"the {part} part"
        )
        return replace(series, values=values)

    # --- what the pipeline asks -----------------------------------------------------------------------

    def dims(self) -> dict[str, int]:
        return {"window": self.window, "n_channels": self.ready.train.values.shape[1]}

    @property
    def ready(self) -> Splits:
        """The splits, once `setup` has run."""
        if self.splits is None:
            raise RuntimeError("call setup() before using the splits")
        return self.splits

    def abs_z(self, series: SeriesData) -> np.ndarray:
        """(N,) float32 largest standardised deviation over the channels: the simplest score there is."""
        assert self.scaler is not None
        parts = [
            np.abs(self.scaler.transform(series.values[begin : begin + CHUNK])).max(axis=1)
            for begin in range(0, len(series.values), CHUNK)
        ]
        return np.concatenate(parts)

    def fingerprint(self) -> str:
        """Hash of the values and labels of all splits."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.ready.train, self.ready.val, self.ready.test):
            for begin in range(0, len(part.values), CHUNK):
                digest.update(part.values[begin : begin + CHUNK].tobytes())
            if part.labels is not None:
                digest.update(part.labels.tobytes())
        return digest.hexdigest()

    def summary(self) -> dict[str, Any]:
        splits = self.ready
        labels = splits.test.labels
        return {
            "fingerprint": self.fingerprint(),
            "n_train": len(splits.train.values),
            "n_val": len(splits.val.values),
            "n_test": len(splits.test.values),
            "n_series": len(splits.test.lengths),
            "n_channels": splits.train.values.shape[1],
            "anomaly_rate": None if labels is None else float(labels.mean()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.scaler = Scaler.from_state(dict(state["scaler"]))

    def scoring_state(self) -> dict[str, Any]:
        assert self.scaler is not None
        return {
            "scaler": self.scaler.state(),
            "channel_names": list(self.ready.train.channel_names),
            "window": self.window,
            "score_stride": self.score_stride,
            "score_batch_size": self.score_batch_size,
            "fill_limit": self.fill_limit,
        }

    def single_pass(self) -> None:
        self.passes = 1

    # --- loaders --------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[SeriesBatch]:
        windows = self._normal_windows(self.ready.train, "train", self.stride, self.passes)
        # Shuffled by (seed, epoch), so that a resumed run sees the same order as an uninterrupted one.
        sampler: DistributedSampler[SeriesBatch] = DistributedSampler(
            windows, num_replicas=1, rank=0, seed=self.seed
        )
        if (
            self.trainer is not None
        ):  # a resumed run fetches its first batch before the Trainer sets the epoch
            sampler.set_epoch(self.trainer.current_epoch)
        return self._loader(windows, self.batch_size, sampler=sampler)

    def val_dataloader(self) -> DataLoader[SeriesBatch]:
        # Windows that do not overlap: more of them would tell the same, slower.
        windows = self._normal_windows(self.ready.val, "validation", self.window)
        return self._loader(windows, self.score_batch_size)

    def test_dataloader(self) -> DataLoader[SeriesBatch]:
        return self.score_dataloader(self.ready.test)

    def calibration_dataloader(self) -> DataLoader[SeriesBatch]:
        """All of the validation split in order, for score statistics and thresholds."""
        return self.score_dataloader(self.ready.val)

    def train_sample(self) -> SeriesData:
        """Pieces from all of the train part: the short validation part has not seen all that is normal."""
        return spread_parts(self.ready.train, steps=SCALE_STEPS, piece=10 * self.window)

    def score_dataloader(self, series: SeriesData) -> DataLoader[SeriesBatch]:
        """Windows that cover every step of a series, in order."""
        assert self.scaler is not None
        return score_loader(
            series.values,
            series.lengths,
            scaler=self.scaler,
            window=self.window,
            stride=self.score_stride,
            batch_size=self.score_batch_size,
        )

    def window_around(self, series: SeriesData, step: int) -> SeriesBatch:
        """The window with a step in its middle, or as near to it as the borders of its series allow."""
        own = int(np.searchsorted(series.offsets, step, side="right")) - 1
        low, high = series.offsets[own], series.offsets[own + 1] - self.window
        start = int(np.clip(step - self.window // 2, low, high))
        return self._windows(series, np.array([start]))[0]

    def _normal_windows(self, series: SeriesData, name: str, stride: int, passes: int = 1) -> WindowDataset:
        starts = window_starts(series.lengths, self.window, stride)
        if series.labels is not None:
            anomalies = np.concatenate([[0], np.cumsum(series.labels)])
            starts = starts[anomalies[starts + self.window] == anomalies[starts]]
        if len(starts) == 0:
            raise DataError(
                f"the {name} part has no window of {self.window} steps without a labelled anomaly; "
                "give more normal data or set a smaller data.window"
            )
        return self._windows(series, np.tile(starts, passes))

    def _windows(self, series: SeriesData, starts: np.ndarray) -> WindowDataset:
        assert self.scaler is not None
        return WindowDataset(
            values=series.values,
            starts=starts,
            window=self.window,
            transform=self.scaler.transform,
            labels=series.labels,
        )


def score_loader(
    values: np.ndarray,
    lengths: Sequence[int],
    *,
    scaler: Scaler,
    window: int,
    stride: int,
    batch_size: int,
) -> DataLoader[SeriesBatch]:
    """Batches of windows in order that cover every step of series laid end to end."""
    starts = window_starts(lengths, window, stride, cover=True)
    windows = WindowDataset(values=values, starts=starts, window=window, transform=scaler.transform)
    return DataLoader(windows, batch_size=batch_size, collate_fn=as_is)
