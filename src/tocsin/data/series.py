"""The user's own series: one file, a folder of entities, or a train and a test file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tocsin.data.base import SeriesDataModule
from tocsin.data.readers import holds_train_and_test, read_series, read_train_and_test
from tocsin.data.series_data import SeriesData
from tocsin.data.splits import Splits, split_in_time
from tocsin.errors import ConfigError


@dataclass(kw_only=True, eq=False, repr=False)
class UserSeries(SeriesDataModule):
    """Reads CSV, Parquet, NPY and NPZ.

    Attributes:
        path: A file or a folder of entities. Where the files hold `train` and `test` arrays, these are used;
            otherwise each series is cut in time into train, validation and test.
        train: Instead of `path`: what to learn from.
        test: And what to test on.
        timestamp_column: Column of the timestamps; None finds it.
        label_column: Column of the labels, 0 or 1; None = no labels.
        channels: Columns to use; None = all numeric ones.
        val_fraction: Last part of train that is kept for validation.
        test_fraction: Last part of a series that is the test split, where the files hold none.
    """

    path: str | None = None
    train: str | None = None
    test: str | None = None
    timestamp_column: str | None = None
    label_column: str | None = None
    channels: Sequence[str] | None = None
    val_fraction: float = 0.15
    test_fraction: float = 0.3

    def load(self) -> Splits:
        columns = {
            "timestamp_column": self.timestamp_column,
            "label_column": self.label_column,
            "channels": self.channels,
        }
        if self.path is not None and self.train is None and self.test is None:
            if not holds_train_and_test(self.path):
                return self._cut(read_series(self.path, **columns))  # type: ignore[arg-type]
            train, test = read_train_and_test(self.path, **columns)  # type: ignore[arg-type]
        elif self.path is None and self.train is not None and self.test is not None:
            train, test = read_train_and_test(self.train, self.test, **columns)  # type: ignore[arg-type]
        else:
            raise ConfigError(
                "data=series needs either data.path=<file or folder>, or data.train=<file> and data.test=<file>"
            )
        fit, val = split_in_time(train, (1 - self.val_fraction, self.val_fraction), gap=self.window)
        return Splits(train=fit, val=val, test=test)

    def summary(self) -> dict[str, Any]:
        """As in the base, and which file it was, by the end of its path."""
        tested = Path(self.path or self.test or "").absolute()
        return {**super().summary(), "source": "/".join(tested.parts[-2:])}

    def _cut(self, series: SeriesData) -> Splits:
        val = (1 - self.test_fraction) * self.val_fraction
        fractions = (1 - self.test_fraction - val, val, self.test_fraction)
        train, val_part, test = split_in_time(series, fractions, gap=self.window)
        return Splits(train=train, val=val_part, test=test)
