"""The user's own series: one file, a folder of entities, or a train and a test file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tocsin.data.base import SeriesDataModule
from tocsin.data.readers import holds_train_and_test, read_series, read_train_and_test
from tocsin.data.series_data import SeriesData
from tocsin.data.splits import Splits, split_in_time
from tocsin.data.traces import as_traces, split_rows
from tocsin.errors import ConfigError

Layout = Literal["steps", "traces"]


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
        layout: What a row of a file is: `steps`: a step of a series; `traces`: a whole trace of one sensor, with one
            column for each step; the window is then a whole trace.
        val_fraction: Last part of train that is kept for validation.
        test_fraction: Last part of a series that is the test split, where the files hold none.
    """

    path: str | None = None
    train: str | None = None
    test: str | None = None
    timestamp_column: str | None = None
    label_column: str | None = None
    channels: Sequence[str] | None = None
    layout: Layout = "steps"
    val_fraction: float = 0.15
    test_fraction: float = 0.3

    def load(self) -> Splits:
        columns = {
            "timestamp_column": self.timestamp_column,
            "label_column": self.label_column,
            "channels": self.channels,
        }
        if self.layout not in get_args(Layout):
            raise ConfigError(f"data.layout={self.layout!r} is not one of 'steps', 'traces'")
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
        fit, val = self._parts(train, (1 - self.val_fraction, self.val_fraction))
        return Splits(train=fit, val=val, test=self._whole(test))

    def summary(self) -> dict[str, Any]:
        """As in the base, and which file it was, by the end of its path."""
        tested = Path(self.path or self.test or "").absolute()
        return {**super().summary(), "source": "/".join(tested.parts[-2:])}

    def _cut(self, series: SeriesData) -> Splits:
        val = (1 - self.test_fraction) * self.val_fraction
        train, val_part, test = self._parts(series, (1 - self.test_fraction - val, val, self.test_fraction))
        return Splits(train=train, val=val_part, test=test)

    def _parts(self, series: SeriesData, fractions: Sequence[float]) -> list[SeriesData]:
        """Consecutive parts: in time with a gap, or row by row."""
        if self.layout == "steps":
            return split_in_time(series, fractions, gap=self.window)
        return split_rows(self._whole(series), fractions, where=str(self.path or self.train))

    def _whole(self, series: SeriesData) -> SeriesData:
        """The series; rows become traces where they are, and their length the window."""
        if self.layout == "steps":
            return series
        traces = as_traces(series, where=str(self.path or self.test))
        self.window = self.score_stride = traces.lengths[0]
        return traces
