"""From calibration scores to an alarm threshold: one plain class per method.

Calibrate on validation scores, never on scores of the data a detector was trained on, and never on the test
split. An alarm is `score >= threshold`, higher = more anomalous. A threshold found without labels lies just
above a calibration score or quantile, so that tied or constant scores do not all raise an alarm.

Sources: `Pot`, Siffer et al., "Anomaly Detection in Streams with Extreme Value Theory" (KDD 2017);
`Conformal`, Laxhammar and Falkman, "Conformal Prediction for Distribution-Independent Anomaly Detection"
(SAM 2010).
"""

import warnings
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np

from tocsin.errors import ConfigError
from tocsin.metrics.autocorrelation import decorrelation_length
from tocsin.metrics.calibration import miss_rate_threshold
from tocsin.metrics.functional import best_f1, check_scores, finite_scores

MAD_TO_SD = 1.4826  # of a normal distribution
POT_MIN_SCORES = 10_000
POT_MIN_PEAKS = 100
POT_SHAPE_LIMIT = 0.5


class Threshold(ABC):
    """Base of all methods.

    Attributes:
        name: The method, as in `threshold=<name>`.
        reads_labels: Whether it needs, or can use, anomalous scores. All others want normal ones alone.
    """

    name: ClassVar[str]
    reads_labels: ClassVar[bool] = False

    @property
    def chosen(self) -> str:
        """Name of the method that gave the last threshold; only `Auto` differs from `name`."""
        return self.name

    @abstractmethod
    def fit(self, scores: np.ndarray, labels: np.ndarray | None = None) -> float:
        """Threshold from calibration scores.

        Args:
            scores: (N,) finite, in time order, higher = more anomalous.
            labels: (N,) bool or 0/1, true = anomalous. Only `BestF1` and `Auto` read them.

        Returns:
            The threshold, on the scale of the scores; alarm where `score >= threshold`.

        Raises:
            ValueError: If the scores are empty or not finite, or the method cannot use them.
        """

    def fit_samples(self, scores: np.ndarray, labels: np.ndarray | None = None) -> float:
        """Threshold for the scores of whole samples; arguments as in `fit`."""
        return self.fit(scores, labels)


class BestF1(Threshold):
    """The cut with the best F1 on labelled validation data, exact over every cut."""

    name = "best_f1"
    reads_labels = True

    def fit(self, scores: np.ndarray, labels: np.ndarray | None = None) -> float:
        """See `Threshold.fit`; raises ValueError unless `labels` hold both classes."""
        if labels is None:
            raise ConfigError(
                "threshold best_f1 needs labelled validation data, but there are no labels: "
                "use pot, quantile, conformal or mad"
            )
        scores, labels = check_scores(scores, labels)
        if not _has_both_classes(labels):
            only = "anomalous" if labels[0] else "normal"
            raise ConfigError(
                f"threshold best_f1 needs both classes in the validation labels, but all {len(labels)} "
                f"points are {only}: use pot, quantile, conformal or mad"
            )
        return best_f1(scores, labels).threshold


class Quantile(Threshold):
    """The score that a share `level` of calibration points does not exceed.

    Args:
        level: Share in (0, 1).
    """

    name = "quantile"

    def __init__(self, *, level: float = 0.99) -> None:
        _check_open("level", level)
        self.level = level

    def fit(self, scores: np.ndarray, labels: np.ndarray | None = None) -> float:
        """See `Threshold.fit`."""
        scores = finite_scores(scores)
        return _just_above(np.quantile(scores, self.level), scores)


class Pot(Threshold):
    """Peaks over threshold: the tail of the scores as a generalised Pareto distribution.

    With fewer than 10 000 scores and fewer than 100 peaks the tail cannot be fitted; the threshold is
    then the empirical quantile at 1 - `risk`.

    Args:
        level: Share of scores below the peaks, in (0, 1).
        risk: Wanted false-alarm rate per point, in (0, 1 - level); q in the paper.
        sample_risk: Wanted false-alarm rate per sample, in (0, 0.1). Higher than `risk`, because a sample holds
            many points, and because a few hundred validation samples cannot tell a smaller one.
    """

    name = "pot"

    def __init__(self, *, level: float = 0.98, risk: float = 1e-3, sample_risk: float = 0.01) -> None:
        _check_open("level", level)
        if not 0 < sample_risk < 0.1:
            raise ConfigError(f"sample_risk must lie between 0 and 0.1, got {sample_risk}")
        _check_open("risk", risk)
        if risk >= 1 - level:
            raise ConfigError(
                f"risk must be below 1 - level = {1 - level:g}, the share of peaks among the scores, "
                f"got {risk}"
            )
        self.level = level
        self.risk = risk
        self.sample_risk = sample_risk

    def fit_samples(self, scores: np.ndarray, labels: np.ndarray | None = None) -> float:
        return Pot(level=0.9, risk=self.sample_risk).fit(scores)

    def fit(self, scores: np.ndarray, labels: np.ndarray | None = None) -> float:
        """See `Threshold.fit`."""
        scores = finite_scores(scores)
        start = np.quantile(scores, self.level)  # t
        excess = scores[scores > start] - start  # Y
        too_few = len(excess) < POT_MIN_PEAKS and len(scores) < POT_MIN_SCORES
        tied = len(excess) < 2 or np.ptp(excess) == 0
        ratio = self.risk * len(scores) / max(len(excess), 1)  # r = q n / N_t
        if too_few or tied or ratio >= 1:
            return _just_above(np.quantile(scores, 1 - self.risk), scores)
        shape, scale = fit_pareto(excess)
        log_ratio = np.log(ratio)
        factor = -log_ratio if abs(shape) < 1e-8 else np.expm1(-shape * log_ratio) / shape
        return _just_above(start + scale * factor, scores)


class Conformal(Threshold):
    """Split conformal: at most a share `alpha` of exchangeable normal points raises an alarm.

    The guarantee is marginal (over calibration sets), not conditional on this one. Neighbouring scores of a
    series are not exchangeable, so only every `thin`-th score is used.

    Args:
        alpha: Wanted false-alarm rate per point, in (0, 1). Needs at least 1 / alpha - 1 scores.
        thin: Step between the scores used; `auto` is the lag at which their autocorrelation falls below 1/e.
    """

    name = "conformal"

    def __init__(self, *, alpha: float = 0.01, thin: int | Literal["auto"] = "auto") -> None:
        _check_open("alpha", alpha)
        if thin != "auto" and thin < 1:
            raise ConfigError(f"thin must be 'auto' or a step of at least 1, got {thin}")
        self.alpha = alpha
        self.thin = thin

    def fit(self, scores: np.ndarray, labels: np.ndarray | None = None) -> float:
        """See `Threshold.fit`; raises ValueError with too few scores for `alpha`."""
        scores = finite_scores(scores)
        kept = np.sort(scores[:: self._step(scores)])
        return _just_above(kept[self._rank(len(kept)) - 1], scores)

    def _rank(self, n: int) -> int:
        """Rank of the threshold among n scores, from 1; n + 1 if there is none for this `alpha`."""
        return n + 1 - int(np.floor((n + 1) * self.alpha * (1 + 1e-12)))

    def _step(self, scores: np.ndarray) -> int:
        n = len(scores)
        needed = int(np.ceil(1 / self.alpha * (1 - 1e-12))) - 1
        if n < needed:
            raise ConfigError(
                f"threshold conformal needs at least {needed} scores for alpha={self.alpha:g}, got {n}: "
                "raise alpha or use mad"
            )
        wanted = decorrelation_length(scores) if self.thin == "auto" else self.thin
        largest = (n - 1) // (needed - 1) if needed > 1 else n  # ceil(n / step) scores remain
        if wanted > largest:
            warnings.warn(
                f"conformal threshold: scores should be {wanted} steps apart, but of {n} scores "
                f"alpha={self.alpha:g} needs {needed}, so they are {largest} apart: expect more false alarms",
                stacklevel=3,
            )
        return min(wanted, largest)


class Mad(Threshold):
    """Median plus `k` robust standard deviations (1.4826 times the median absolute deviation).

    Args:
        k: Number of standard deviations, > 0.
    """

    name = "mad"

    def __init__(self, *, k: float = 6.0) -> None:
        if not k > 0:
            raise ConfigError(f"k must be above 0, got {k}")
        self.k = k

    def fit(self, scores: np.ndarray, labels: np.ndarray | None = None) -> float:
        """See `Threshold.fit`."""
        scores = finite_scores(scores)
        median = np.median(scores)
        deviation = np.median(np.abs(scores - median))
        return _just_above(median + self.k * MAD_TO_SD * deviation, scores)


class Fixed(Threshold):
    """A threshold the user knows; it fits nothing.

    Args:
        value: The threshold, on the scale of the scores.
    """

    name = "fixed"

    def __init__(self, *, value: float) -> None:
        if not np.isfinite(value):
            raise ConfigError(f"value must be finite, got {value}")
        self.value = float(value)

    def fit(self, scores: np.ndarray, labels: np.ndarray | None = None) -> float:
        """The given value, whatever the scores."""
        return self.value


class MissRate(Threshold):
    """The highest threshold that misses no more than a wanted share of the anomalies, as far as validation can tell.

    Args:
        max_miss_rate: Share in (0, 1) that an anomaly from the same source may be missed with.
    """

    name = "miss_rate"
    reads_labels = True

    def __init__(self, *, max_miss_rate: float = 0.02) -> None:
        _check_open("max_miss_rate", max_miss_rate)
        self.max_miss_rate = max_miss_rate

    def fit(self, scores: np.ndarray, labels: np.ndarray | None = None) -> float:
        """See `Threshold.fit`; raises ConfigError without labels."""
        if labels is None:
            raise ConfigError(
                "threshold miss_rate needs labelled anomalies in the validation data, but there are no labels: use "
                "pot, quantile, conformal or mad"
            )
        scores, labels = check_scores(scores, labels)
        return miss_rate_threshold(scores, labels, self.max_miss_rate)


class Auto(Threshold):
    """`BestF1` where validation labels hold both classes, else `Pot`; `chosen` tells which."""

    name = "auto"
    reads_labels = True

    def __init__(self) -> None:
        self._method: Threshold | None = None

    @property
    def chosen(self) -> str:
        """Name of the method that gave the last threshold; `auto` before the first `fit`."""
        return self.name if self._method is None else self._method.name

    def fit(self, scores: np.ndarray, labels: np.ndarray | None = None) -> float:
        """See `Threshold.fit`."""
        return self._choose(labels).fit(scores, labels)

    def fit_samples(self, scores: np.ndarray, labels: np.ndarray | None = None) -> float:
        return self._choose(labels).fit_samples(scores, labels)

    def _choose(self, labels: np.ndarray | None) -> Threshold:
        self._method = BestF1() if labels is not None and _has_both_classes(labels) else Pot()
        return self._method


def fit_pareto(excess: np.ndarray) -> tuple[float, float]:
    """Generalised Pareto distribution of excesses by maximum likelihood, or else by moments.

    Args:
        excess: (N_t,) float64, > 0, not all equal.

    Returns:
        Shape g, held within [-0.5, 0.5], and scale b > 0; z has the survival (1 + g z / b)^(-1/g).
    """
    from scipy.stats import FitError, genpareto

    mean = excess.mean()
    unit = excess / mean  # the fit is then the same for every scale of the scores
    try:
        shape, _, scale = genpareto.fit(unit, floc=0)
        if abs(shape) > POT_SHAPE_LIMIT:
            shape = np.copysign(POT_SHAPE_LIMIT, shape)
            _, _, scale = genpareto.fit(unit, f0=shape, floc=0)
    except FitError:
        shape, scale = np.nan, np.nan
    if np.isfinite(shape) and np.isfinite(scale) and scale > 0:
        return float(shape), float(scale * mean)
    moments = 1 / unit.var()  # m^2 / v
    shape = np.clip((1 - moments) / 2, -POT_SHAPE_LIMIT, POT_SHAPE_LIMIT)
    return float(shape), float(mean * (1 - shape))  # the capped shape keeps the mean b / (1 - g)


def _has_both_classes(labels: np.ndarray) -> bool:
    labels = np.asarray(labels, dtype=bool)
    return bool(labels.any() and not labels.all())


def _just_above(value: float, scores: np.ndarray) -> float:
    """The next number above `value` in the precision of the scores, so that a tie with it is no alarm.

    Scores that all are float32 numbers count as float32, as they may be compared in that precision.
    """
    with np.errstate(over="ignore"):
        single = scores.astype(np.float32)
    kind = np.float32 if np.array_equal(single, scores) else np.float64
    return float(np.nextafter(kind(value), kind(np.inf)))


def _check_open(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name} must lie between 0 and 1, got {value}")
