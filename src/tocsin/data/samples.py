"""Many short synthetic series, each normal or with one anomaly of a known type."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tocsin.data.base import SeriesDataModule
from tocsin.data.series_data import SeriesData
from tocsin.data.splits import Splits
from tocsin.data.synthetic.balanced_univariate import BalancedUnivariate, balanced_univariate
from tocsin.errors import ConfigError
from tocsin.metrics.events import segments


@dataclass(kw_only=True, eq=False, repr=False)
class SyntheticSamples(SeriesDataModule):
    """One sample is one series and one window.

    The samples are cut into three parts in the order they were drawn, which is random, so that validation and test
    hold anomalies as often as the data do. Those of the train part are left out of training. Labels of validation
    samples serve the threshold alone: the loss and the score statistics use its normal samples.

    Attributes:
        n_samples: Number of series.
        seq_len: Steps of each; the window is a whole series.
        normal_ratio: Share of normal samples; None makes all classes equally frequent.
        noise: Least standard deviation of the noise.
        data_seed: Seed of the generator.
        train_fraction: Share of the samples in the train part.
        val_fraction: Share of the samples in the validation part.
    """

    n_samples: int = 800
    seq_len: int = 128
    normal_ratio: float | None = 0.75
    noise: float = 0.01
    data_seed: int = 42
    train_fraction: float = 0.55
    val_fraction: float = 0.2

    def __post_init__(self) -> None:
        self.check_positive("n_samples", "seq_len")
        self.window = self.score_stride = self.seq_len
        super().__post_init__()

    def load(self) -> Splits:
        try:
            drawn = balanced_univariate(
                n_samples=self.n_samples,
                seq_len=self.seq_len,
                normal_ratio=self.normal_ratio,
                noise=self.noise,
                seed=self.data_seed,
            )
        except ValueError as error:  # an option out of its range
            raise ConfigError(f"data=synthetic: {error}") from error
        ends = [
            round(share * self.n_samples)
            for share in (self.train_fraction, self.train_fraction + self.val_fraction)
        ]
        train, val, test = np.split(np.arange(self.n_samples), ends)  # the generator has shuffled them
        return Splits(
            train=lay_end_to_end(drawn, train[drawn.sample_labels[train] == 0]),
            val=lay_end_to_end(drawn, val),
            test=lay_end_to_end(drawn, test),
        )


def lay_end_to_end(drawn: BalancedUnivariate, chosen: np.ndarray) -> SeriesData:
    """The chosen samples as series on one time axis.

    Args:
        drawn: All samples.
        chosen: (S,) sample numbers.
    """
    n_steps = drawn.data.shape[1]
    types = drawn.point_labels[chosen].reshape(-1)  # (S * L,)
    lengths = (n_steps,) * len(chosen)
    runs = segments(types > 0, lengths)
    events = pd.DataFrame(
        {
            "start": runs[:, 0],
            "end": runs[:, 1],
            "type": [drawn.type_names[types[start]] for start in runs[:, 0]],
            "channels": [(0,)] * len(runs),
            "severity": [f"{drawn.severity[chosen[start // n_steps]]:.1f} sd" for start in runs[:, 0]],
        }
    )
    return SeriesData(
        values=drawn.data[chosen].reshape(-1, 1),  # (S * L, 1)
        channel_names=("value",),
        labels=types > 0,
        lengths=lengths,
        names=tuple(f"sample_{index}" for index in chosen),
        events=events,
    )
