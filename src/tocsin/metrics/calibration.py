"""Probabilities that can be believed, and decisions with a guarantee, both from validation data.

Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), section 4.2: one temperature for all logits, which
changes no prediction. What differs: log T has a weak normal prior (see `fit_temperature`).
Angelopoulos et al., "Conformal Risk Control" (ICLR 2024), for the miss rate. Sadinle, Lei and Wasserman, "Least
Ambiguous Set-Valued Classifiers with Bounded Error Levels" (JASA 2019), in its split conformal form, for sets.

Guarantees hold for images drawn as the validation images were, on average over validation sets: use those of the
natural prior, never re-balanced ones, and none that the classifier was trained on.
"""

import math
import warnings

import numpy as np

from tocsin.errors import ConfigError
from tocsin.metrics.classification import check_classes
from tocsin.metrics.functional import check_scores

PRIOR_SD = 0.5  # of log T: before seeing data, T lies between 0.6 and 1.65 in two of three cases
LIMITS = (0.01, 100.0)  # of T


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature under which the labels are most likely: divide logits by it.

    Where every image is classified right, each lower temperature makes the labels more likely, down to 0. Therefore
    log T has a normal prior around 0 that weighs as little as a handful of images: without mistakes there is no
    evidence of wrong confidence, and T stays near 1; with some, their likelihood decides.

    Args:
        logits: (N, K) finite, of validation images.
        labels: (N,) int, in [0, K).

    Returns:
        T > 0; above 1 for an overconfident classifier.

    Raises:
        ValueError: If the arrays do not fit each other, or a logit is not finite.
    """
    from scipy.optimize import minimize_scalar

    logits = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinite values: check the classifier for non-finite outputs")
    labels, _ = check_classes(labels, tempered(logits, 1.0))
    of_truth = logits[np.arange(len(labels)), labels]

    def cost(log_t: float) -> float:
        """Negative log posterior."""
        scaled = (logits - of_truth[:, None]) / math.exp(log_t)
        largest = scaled.max(1)
        nll = largest + np.log(np.exp(scaled - largest[:, None]).sum(1))
        return float(nll.sum()) + (log_t / PRIOR_SD) ** 2 / 2

    low, high = (math.log(limit) for limit in LIMITS)
    found = minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    if min(found.x - low, high - found.x) < 1e-2:
        warnings.warn(
            f"the temperature that fits the validation data lies at {math.exp(found.x):.3g}, the end of what is "
            "searched: logits of this size are no sound basis for probabilities",
            stacklevel=2,
        )
    return math.exp(found.x)


def tempered(logits: np.ndarray, temperature: float) -> np.ndarray:
    """(N, K) float64 probabilities: the softmax of the logits (N, K) divided by a temperature.

    Raises:
        ValueError: Logits are not (N, K), or the temperature is not positive.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2:
        raise ValueError(f"logits must be (images, classes), got shape {logits.shape}")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} is not positive")
    powers = np.exp((logits - logits.max(1, keepdims=True)) / temperature)
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares


def miss_rate_threshold(defect_probability: np.ndarray, defective: np.ndarray, max_miss_rate: float) -> float:
    """The largest threshold at which a defect is missed at most so often, new images included.

    With k of n defective validation images missed, a new one is with a chance of at most (k + 1) / (n + 1).

    Args:
        defect_probability: (N,) any scores, higher = more anomalous.
        defective: (N,) bool.
        max_miss_rate: In (0, 1).

    Returns:
        The threshold, one of the scores: alarm where `defect_probability >= threshold`.

    Raises:
        ConfigError: `max_miss_rate` is out of range, or cannot be promised with so few defective images.
        ValueError: If the arrays do not fit each other.
    """
    scores, defective = check_scores(defect_probability, defective)
    name = f"max_miss_rate={max_miss_rate:g}"
    return _lower_bound(scores[defective], max_miss_rate, name, "defective validation images")


def conformal_threshold(probabilities: np.ndarray, labels: np.ndarray, coverage: float) -> float:
    """From which probability on a class belongs to an image's set, so that the true one does so often enough.

    The promise is for all images together; the share of a rare class may be lower. A coverage below the accuracy of
    the classifier leaves images without any class, so ask for more.

    Args:
        probabilities: (N, K) in [0, 1], of validation images.
        labels: (N,) int, in [0, K).
        coverage: Wanted share of images whose set holds their true class, in (0, 1).

    Returns:
        The value: class k belongs to the set if `probability[k] >= value`.

    Raises:
        ConfigError: `coverage` is out of range, or cannot be promised with so few images.
        ValueError: If the arrays do not fit each other.
    """
    labels, probabilities = check_classes(labels, probabilities)
    of_truth = probabilities[np.arange(len(labels)), labels]
    return _lower_bound(of_truth, 1 - coverage, f"coverage={coverage:g}", "validation images")


def unsure(probabilities: np.ndarray, value: float) -> np.ndarray:
    """(N,) bool: images of which not exactly one class has at least the probability `value`."""
    several_or_none: np.ndarray = (np.asarray(probabilities) >= value).sum(1) != 1
    return several_or_none


def _lower_bound(scores: np.ndarray, rate: float, name: str, what: str) -> float:
    """The largest of some scores below which a new one lies with at most a chance of `rate`.

    Raises:
        ConfigError: It is not in (0, 1), or n scores cannot promise it.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"{name} must lie between 0 and 1")
    n = len(scores)
    below = math.floor((n + 1) * rate * (1 + 1e-12)) - 1  # k, of (k + 1) / (n + 1) <= rate
    if below < 0:
        needed = math.ceil(1 / rate * (1 - 1e-12)) - 1
        raise ConfigError(
            f"{name} cannot be promised with {n} {what}: the lowest error rate they can promise is "
            f"{1 / (n + 1):.3g}, and {rate:.3g} needs {needed} of them; give more, or ask for less"
        )
    return float(np.sort(scores)[below])
