"""Many short synthetic series, each normal or with one anomaly of a known type."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tocsin.data.base import SeriesDataModule
from tocsin.data.series_data import SeriesData
from tocsin.data.splits import Splits
from tocsin.data.synthetic.balanced_univariate import BalancedUnivariate, balanced_univariate
from tocsin.metrics.events import segments


@dataclass(kw_only=True, eq=False, repr=False)
class SyntheticSamples(SeriesDataModule):
    """One sample is one series and one window.

    Training and validation take normal samples only; the test split takes the other normal ones and all
    anomalous ones.

    Attributes:
        n_samples: Number of series.
        seq_len: Steps of each; the window is a whole series.
        normal_ratio: Share of normal samples; None makes all classes equally frequent.
        noise: Least standard deviation of the noise.
        data_seed: Seed of the generator.
        train_fraction: Share of the normal samples to learn from.
        val_fraction: Share of the normal samples to validate on.
    """

    n_samples: int = 800
    seq_len: int = 128
    normal_ratio: float | None = 0.75
    noise: float = 0.01
    data_seed: int = 42
    train_fraction: float = 0.6
    val_fraction: float = 0.15

    def __post_init__(self) -> None:
        self.window = self.score_stride = self.seq_len
        super().__post_init__()

    def load(self) -> Splits:
        drawn = balanced_univariate(
            n_samples=self.n_samples,
            seq_len=self.seq_len,
            normal_ratio=self.normal_ratio,
            noise=self.noise,
            seed=self.data_seed,
        )
        normal = np.flatnonzero(drawn.sample_labels == 0)  # the generator has shuffled them
        n_train = round(self.train_fraction * len(normal))
        n_val = round(self.val_fraction * len(normal))
        rest = np.setdiff1d(np.arange(self.n_samples), normal[: n_train + n_val])
        return Splits(
            train=lay_end_to_end(drawn, normal[:n_train]),
            val=lay_end_to_end(drawn, normal[n_train : n_train + n_val]),
            test=lay_end_to_end(drawn, rest),
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
