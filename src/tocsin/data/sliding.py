"""Sliding windows over one long, synthetic series of server metrics with labelled anomalies."""

from dataclasses import dataclass
from pathlib import Path

from tocsin.data.base import SeriesDataModule
from tocsin.data.cache import Arguments, cached_series
from tocsin.data.series_data import SeriesData
from tocsin.data.splits import Splits, split_in_time
from tocsin.data.synthetic import server_metrics as generator
from tocsin.errors import ConfigError


@dataclass(kw_only=True, eq=False, repr=False)
class SlidingServerMetrics(SeriesDataModule):
    """Eight server metrics, twelve kinds of anomaly, all of them in the test part.

    Attributes:
        total_length: Steps (minutes) of the whole series.
        severity: `easy`, `medium` or `hard`.
        train_fraction: First part of the series.
        val_fraction: Part between train and test; free of anomalies.
        contamination: Share of anomalous steps in the train part, 0 to 0.02.
        anomaly_ratio: Anomalous steps of the whole series, 0.01 to 0.05.
        data_seed: Seed of the generator.
        cache_dir: Where the drawn series is kept; None draws it anew.
    """

    total_length: int = 440_000
    severity: str = "medium"
    train_fraction: float = 0.4
    val_fraction: float = 0.1
    contamination: float = 0.0
    anomaly_ratio: float = 0.05
    data_seed: int = 42
    cache_dir: str | Path | None = None

    def load(self) -> Splits:
        arguments: Arguments = {
            "total_length": self.total_length,
            "train_fraction": self.train_fraction,
            "val_fraction": self.val_fraction,
            "severity": self.severity,
            "contamination": self.contamination,
            "anomaly_ratio": self.anomaly_ratio,
            "seed": self.data_seed,
        }
        series = cached_series(
            lambda: _draw(arguments),
            name=generator.__name__,
            arguments=arguments,
            cache_dir=self.cache_dir,
        )
        rest = 1 - self.train_fraction - self.val_fraction
        fractions = (self.train_fraction, self.val_fraction, rest)
        train, val, test = split_in_time(series, fractions, gap=self.window)
        return Splits(train=train, val=val, test=test)


def _draw(arguments: Arguments) -> SeriesData:
    try:
        return generator.server_metrics(**arguments).series  # type: ignore[arg-type]
    except ValueError as error:  # an option out of its range
        raise ConfigError(f"data=sliding: {error}") from error
