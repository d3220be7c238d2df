"""Anomalies in time series: training, scoring, calibration and test of a `SeriesDetector`.

The way of a score: the detector gives errors per window, step and channel; `OverlapFold` makes them errors per
step and channel; the scorer, fitted on validation errors, makes them one score per step; the threshold, fitted
on validation scores, makes them alarms. Everything after the detector is the same for every method.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import lightning.pytorch as L
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from tocsin.batch import SeriesBatch
from tocsin.data.base import SeriesDataModule
from tocsin.data.module import DataModule
from tocsin.data.series_data import SeriesData
from tocsin.data.windows import REDUCTIONS, OverlapFold, fill_unscored
from tocsin.errors import ConfigError
from tocsin.evaluation import (
    AGGREGATIONS,
    Calibration,
    calibrate,
    evaluate,
    event_recall_by_type,
    oracle,
)
from tocsin.metrics.thresholds import Threshold
from tocsin.models.base import SeriesDetector
from tocsin.scoring import Scorer
from tocsin.tasks.base import OptimizerFactory, SchedulerFactory, Task
from tocsin.tasks.planted import plant
from tocsin.tasks.series_figures import series_figures
from tocsin.tasks.series_results import SeriesResults


@dataclass(frozen=True)
class Scored:
    """A split with its folded errors.

    Attributes:
        series: The split, in its own units.
        errors: (N, K) float32 errors of the detector; NaN = not scored.
        abs_z: (N,) largest standardised deviation over the channels: the score of a baseline.
    """

    series: SeriesData
    errors: np.ndarray
    abs_z: np.ndarray


class SeriesAnomaly(Task):
    """Task of the detectors for time series.

    Args:
        detector: Gives errors per window.
        optimizer: Called with the trainable parameters.
        scheduler: Called with the optimizer; None for a constant rate.
        threshold: Finds the thresholds on validation scores.
        scorer: Makes one score of the errors of all channels.
        fold: How overlapping windows share a step: `mean`, `max` or `last`.
        series_agg: How point scores become the score of a sample: `topk_mean`, `mean` or `max`.
        min_duration: Steps that a score must stay above the threshold for an alarm; 1 = every step counts.
        tta: Test-time augmentation: average over so many noisy copies of each window; 0 for none.
        tta_sigma: Standard deviation of that noise, in standardised units.
        vus_buffer: Widest buffer of VUS, in steps.
        planted: Also measure how well anomalies are found that are planted in the validation split (section `planted`
            of metrics.json): what a search can choose by, whatever the losses.
        monitor: The logged value to follow.
        seed: Seed of training and of the test-time noise.
    """

    accepts = "series"
    point_threshold: Tensor
    sample_threshold: Tensor

    def __init__(
        self,
        *,
        detector: SeriesDetector,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        threshold: Threshold,
        scorer: Scorer,
        fold: str = "mean",
        series_agg: str = "topk_mean",
        min_duration: int = 1,
        tta: int = 0,
        tta_sigma: float = 0.01,
        vus_buffer: int = 100,
        planted: bool = False,
        monitor: str = "val_loss",
        seed: int = 42,
    ) -> None:
        super().__init__(
            detector=detector, optimizer=optimizer, scheduler=scheduler, monitor=monitor, seed=seed
        )
        self.detector: SeriesDetector
        if min_duration < 1:
            raise ConfigError(f"task.min_duration={min_duration} is not a positive number of steps")
        if tta < 0 or tta_sigma < 0:
            raise ConfigError(f"task.tta={tta} or task.tta_sigma={tta_sigma} is negative")
        for name, value, known in (("fold", fold, REDUCTIONS), ("series_agg", series_agg, AGGREGATIONS)):
            if value not in known:  # now, and not when the training is over
                raise ConfigError(f"task.{name}={value!r} is not one of {', '.join(known)}")
        self.threshold = threshold
        self.scorer = scorer
        self.fold = fold
        self.series_agg = series_agg
        self.min_duration = min_duration
        self.tta = tta
        self.tta_sigma = tta_sigma
        self.vus_buffer = vus_buffer
        self.planted = planted
        # Part of the state, so that a checkpoint is enough to raise alarms on new data.
        self.register_buffer("point_threshold", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("sample_threshold", torch.tensor(torch.nan, dtype=torch.float64))
        self._folding: OverlapFold | None = None

    # --- errors ---------------------------------------------------------------------------------------

    def errors(self, x: Tensor) -> Tensor:
        """Errors of each step and channel, averaged over noisy copies if asked for.

        Args:
            x: (B, T, C) standardised.

        Returns:
            (B, T, K) float32, NaN = not scored; K = C, or 1 where a detector cannot tell channels apart.
        """
        if self.tta == 0:
            return self.detector.deviations(x).float()
        noise = torch.Generator(device="cpu").manual_seed(self.seed)
        total = torch.zeros(())
        for _ in range(self.tta):
            # The same noise for every window: a score does not depend on the batch it came in.
            copy = x + self.tta_sigma * torch.randn(x.shape[1:], generator=noise).to(x)
            total = total.to(x) + self.detector.deviations(copy).float()
        return total / self.tta

    def predict_step(self, batch: SeriesBatch, batch_idx: int) -> np.ndarray:
        """(M, K) errors of the steps that this batch completes."""
        if batch_idx == 0:
            windows = self.trainer.predict_dataloaders.dataset  # type: ignore[union-attr]
            self._folding = OverlapFold(n_steps=windows.n_steps, window=windows.window, reduce=self.fold)
        assert self._folding is not None
        return self._folding.push(self.everywhere(self.errors(batch.x)), self.everywhere(batch.start))

    def figures(self, results: SeriesResults) -> Iterable[tuple[str, Figure]]:
        return series_figures(results, self.detector)

    # --- scores, thresholds, metrics --------------------------------------------------------------------

    def assess(self, trainer: L.Trainer, datamodule: DataModule) -> SeriesResults:
        """Calibrate on validation data and a sample of train, then measure the test split, with baselines beside it.

        Args:
            trainer: Runs the detector over all of them.
            datamodule: Set up.
        """
        assert isinstance(datamodule, SeriesDataModule)
        splits = datamodule.ready
        seen = self._score(trainer, datamodule, datamodule.train_sample())
        val = self._score(trainer, datamodule, splits.val)
        begin = time.monotonic()
        test = self._score(trainer, datamodule, splits.test)
        seconds = time.monotonic() - begin
        calibration, val_scores = self.calibrate(seen, val, datamodule.window)
        scores = self.scores(test)
        results = SeriesResults(
            calibration=calibration,
            items_per_s=len(test.series.values) / datamodule.score_stride / seconds,
            series=test.series,
            scores=scores,
            errors=test.errors,
            val_scores=val_scores,
            planted=self._planted(trainer, datamodule, calibration) if self.planted else {},
            example=datamodule.window_around(test.series, _most_telling(scores, test.series.labels)),
        )
        if test.series.labels is None:
            return results
        return self._measured(results, val, test, datamodule.window)

    def _score(self, trainer: L.Trainer, datamodule: SeriesDataModule, series: SeriesData) -> Scored:
        pieces = trainer.predict(self, datamodule.score_dataloader(series))
        assert pieces is not None
        return Scored(series, np.concatenate(pieces), datamodule.abs_z(series))

    def _planted(
        self, trainer: L.Trainer, datamodule: SeriesDataModule, calibration: Calibration
    ) -> dict[str, float]:
        assert datamodule.scaler is not None
        planted = self._score(trainer, datamodule, plant(datamodule.ready.val, datamodule.scaler))
        return self._metrics(self.scores(planted), planted.series, datamodule.window, calibration)

    def scores(self, scored: Scored) -> np.ndarray:
        """(N,) float32 scores of a split."""
        errors = torch.from_numpy(fill_unscored(scored.errors, scored.series.offsets))
        scores: Tensor = self.scorer.cpu()(errors, scored.series.lengths)
        return scores.numpy()

    def calibrate(self, seen: Scored, val: Scored, window: int) -> tuple[Calibration, np.ndarray]:
        """Fit the scorer on normal steps of both, the thresholds on the validation split alone.

        Args:
            seen: Parts of the train split.
            val: The validation split.
            window: Steps of a window.

        Returns:
            The thresholds, and (M,) validation scores.
        """
        parts = [part for scored in (seen, val) for part in _normal_parts(scored)]
        self.scorer.cpu().fit(torch.cat(parts), [len(part) for part in parts])
        scores = self.scores(val)
        found = self._thresholds(scores, val.series, window)
        self.point_threshold.fill_(found.point)
        self.sample_threshold.fill_(found.sample)
        return found, scores

    @property
    def calibration(self) -> Calibration:
        """What the checkpoint knows of where an alarm begins."""
        return Calibration(
            method=self.threshold.chosen,
            point=float(self.point_threshold),
            sample=float(self.sample_threshold),
            min_duration=self.min_duration,
        )

    def _thresholds(self, scores: np.ndarray, series: SeriesData, window: int) -> Calibration:
        return calibrate(
            scores,
            series.labels,
            lengths=series.lengths,
            window=window,
            threshold=self.threshold,
            aggregation=self.series_agg,
            min_duration=self.min_duration,
        )

    def _metrics(
        self, scores: np.ndarray, series: SeriesData, window: int, calibration: Calibration
    ) -> dict[str, float]:
        assert series.labels is not None
        return evaluate(
            scores,
            series.labels,
            lengths=series.lengths,
            window=window,
            calibration=calibration,
            aggregation=self.series_agg,
            buffer=self.vus_buffer,
        )

    def _measured(self, results: SeriesResults, val: Scored, test: Scored, window: int) -> SeriesResults:
        """The results with all that needs labels."""
        labels, lengths = test.series.labels, test.series.lengths
        assert labels is not None
        rng = np.random.default_rng(self.seed)
        baselines = {
            "random": (rng.random(len(val.abs_z)), rng.random(len(labels))),
            "abs_z": (val.abs_z, test.abs_z),
        }
        val_is_labelled = val.series.labels is not None and bool(val.series.labels.any())
        events = test.series.events
        return replace(
            results,
            val=self._metrics(results.val_scores, val.series, window, results.calibration)
            if val_is_labelled
            else {},
            test=self._metrics(results.scores, test.series, window, results.calibration),
            oracle=oracle(
                results.scores, labels, lengths=lengths, window=window, aggregation=self.series_agg
            ),
            baselines={
                name: self._metrics(
                    on_test, test.series, window, self._thresholds(on_val, val.series, window)
                )
                for name, (on_val, on_test) in baselines.items()
            },
            event_recall={} if events is None else event_recall_by_type(results.predicted, events),
        )


def _normal_parts(scored: Scored) -> list[torch.Tensor]:
    """(M, K) errors of the normal steps of each series that has some."""
    filled = torch.from_numpy(fill_unscored(scored.errors, scored.series.offsets))
    parts = torch.split(filled, list(scored.series.lengths))
    if scored.series.labels is not None:
        kept = torch.split(~torch.from_numpy(scored.series.labels), list(scored.series.lengths))
        parts = tuple(part[normal] for part, normal in zip(parts, kept, strict=True))
    return [part for part in parts if len(part)]


def _most_telling(scores: np.ndarray, labels: np.ndarray | None) -> int:
    """Step of the highest score, among the true anomalies if there are any."""
    if labels is None or not labels.any():
        return int(scores.argmax())
    return int(np.where(labels, scores, -np.inf).argmax())
