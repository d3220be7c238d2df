"""What a run on time series leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tocsin.batch import SeriesBatch
from tocsin.data.series_data import SeriesData
from tocsin.evaluation import Calibration
from tocsin.results import Results


@dataclass(frozen=True, kw_only=True)
class SeriesResults(Results):
    """Results of anomaly detection in time series.

    Attributes:
        series: The test split, in its own units.
        scores: (N,) float32, higher = more anomalous.
        errors: (N, K) float32 error of each channel; K = 1 where a detector cannot tell channels apart.
        val_scores: (M,) float32 scores of the validation split.
        calibration: Thresholds from validation data.
        planted: Metrics of the validation split with anomalies planted in it; empty where that was not asked for.
        event_recall: Share of found events by type of anomaly.
        example: One standardised window of the test split around its highest score, as a batch of one.
    """

    series: SeriesData
    scores: np.ndarray
    errors: np.ndarray
    val_scores: np.ndarray
    calibration: Calibration
    planted: Mapping[str, float] = field(default_factory=dict)
    event_recall: Mapping[str, float] = field(default_factory=dict)
    example: SeriesBatch | None = None
    headline = ("vus_pr", "auc_pr", "point_f1", "series_f1")

    @property
    def predicted(self) -> np.ndarray:
        """(N,) bool: the alarms."""
        return self.calibration.alarms(self.scores, self.series.lengths)

    def sections(self) -> dict[str, Any]:
        return {
            "threshold": {
                "method": self.calibration.method,
                "value": self.calibration.point,
                "series_value": self.calibration.sample,
                "split": "validation",
            },
            "val": dict(self.val),
            **({"planted": dict(self.planted)} if self.planted else {}),
            "test": dict(self.test),
            "oracle": dict(self.oracle),
            "baselines": {name: dict(row) for name, row in self.baselines.items()},
            "event_recall": dict(self.event_recall),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "scores": self.scores,
            "lengths": np.asarray(self.series.lengths),
            "val_scores": self.val_scores,
        }
        if self.series.labels is not None:
            arrays["labels"] = self.series.labels
        return arrays

    def ranking(self) -> tuple[np.ndarray, np.ndarray | None]:
        return self.scores, self.series.labels
