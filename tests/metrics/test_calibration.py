"""Temperature and thresholds with a guarantee: against what made the data, by hand, and over many draws."""

import numpy as np
import pytest

from tocsin.errors import ConfigError
from tocsin.metrics.calibration import (
    conformal_threshold,
    fit_temperature,
    miss_rate_threshold,
    tempered,
    unsure,
)
from tocsin.metrics.classification import expected_calibration_error


def draw(seed, N, temperature=1.0, K=4):
    """Logits that are `temperature` times too large, and labels drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(N, K))
    chosen = tempered(logits, 1.0).cumsum(1) > rng.random((N, 1))
    return temperature * logits, chosen.argmax(1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_made_the_data_is_found(temperature):
    logits, labels = draw(0, 4000, temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.06)
    if temperature != 1:
        before, after = (expected_calibration_error(labels, tempered(logits, t)) for t in (1.0, found))
        assert after < before / 3


def test_the_temperature_follows_the_scale_of_logits_and_not_their_level():
    logits, labels = draw(1, 3000)
    found = fit_temperature(logits, labels)
    assert fit_temperature(2 * logits, labels) == pytest.approx(2 * found, rel=0.01)
    assert fit_temperature(logits + 1000, labels) == pytest.approx(found, rel=1e-4)
    changed = tempered(logits, found).argmax(1) != logits.argmax(1)
    assert not changed.any()


@pytest.mark.parametrize("margin", [3.0, 12.0, 300.0])
def test_a_set_without_a_mistake_does_not_drive_the_temperature_to_its_end(margin, recwarn):
    """The likelihood alone has no best temperature there: the lower, the better."""
    labels = np.arange(200) % 3
    logits = margin * np.eye(3)[labels]
    assert 0.3 < fit_temperature(logits, labels) <= 1.001
    assert not recwarn


def test_few_mistakes_are_enough_to_lower_confidence():
    labels = np.arange(200) % 3
    logits = 12 * np.eye(3)[labels]
    labels = np.where(np.arange(200) < 4, (labels + 1) % 3, labels)
    found = fit_temperature(logits, labels)
    assert tempered(logits, found).max(1).mean() == pytest.approx(0.98, abs=0.006)


def test_a_temperature_at_the_end_of_the_search_is_said():
    logits, labels = draw(2, 500, temperature=1000)
    with pytest.warns(UserWarning, match="lies at 100, the end of what is searched"):
        fit_temperature(logits, labels)


def test_probabilities_are_the_softmax():
    logits = np.array([[0.0, 2.0], [1e4, 0.0]])
    expected = [[1 / (1 + np.e), np.e / (1 + np.e)], [1, 0]]
    np.testing.assert_allclose(tempered(logits, 2.0), expected, atol=1e-15)


# --- miss rate ----------------------------------------------------------------------------------------------


def test_threshold_for_a_miss_rate_by_hand():
    scores = np.array([0.9, 0.2, 0.5, 0.8, 0.3, 0.7, 0.4, 0.6, 0.95, 0.99])
    defective = np.array([True] * 9 + [False])
    # Nine defective images: (k + 1) / 10 <= 0.3 allows two misses, so the third lowest score is the threshold.
    assert miss_rate_threshold(scores, defective, 0.3) == 0.4
    assert miss_rate_threshold(scores, defective, 0.29) == 0.3
    assert miss_rate_threshold(scores, defective, 0.1) == 0.2


def test_rounding_takes_no_image_away():
    scores, defective = np.arange(99) / 99, np.ones(99, bool)
    for percent in range(1, 100):  # 0.29 * 100 is 28.999999999999996
        assert miss_rate_threshold(scores, defective, percent / 100) == scores[percent - 1]


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_the_miss_rate_of_new_images_is_kept_and_not_by_far(rate):
    """On average over validation sets; without the correction for few images it would be exceeded."""
    rng = np.random.default_rng(0)
    missed = []
    for _ in range(2000):
        scores = rng.normal(size=25)
        missed.append(np.mean(rng.normal(size=200) < miss_rate_threshold(scores, np.ones(25, bool), rate)))
    assert rate - 0.045 < np.mean(missed) < rate + 0.003


def test_too_few_defective_images_are_said_with_what_they_can_promise():
    scores, defective = np.linspace(0, 1, 30), np.arange(30) < 19
    with pytest.raises(
        ConfigError, match=r"max_miss_rate=0.01 .* 19 defective .* promise is 0.05, .* needs 99 of"
    ):
        miss_rate_threshold(scores, defective, 0.01)
    assert miss_rate_threshold(scores, defective, 0.05) == scores[0]
    with pytest.raises(ConfigError, match="with 0 defective validation images"):
        miss_rate_threshold(scores, np.zeros(30, bool), 0.5)
    with pytest.raises(ConfigError, match="max_miss_rate=0 must lie between 0 and 1"):
        miss_rate_threshold(scores, defective, 0)


# --- sets of classes ----------------------------------------------------------------------------------------


def test_conformal_threshold_by_hand():
    of_truth = np.array([0.9, 0.8, 0.7, 0.35, 0.6, 0.5, 0.95, 0.85, 0.75])
    p = np.stack([of_truth, 1 - of_truth], axis=1)
    assert conformal_threshold(p, np.zeros(9, int), 0.9) == 0.35  # (0 + 1) / 10 may be missed
    assert conformal_threshold(p, np.zeros(9, int), 0.8) == 0.5
    assert conformal_threshold(p[:, ::-1], np.ones(9, int), 0.8) == 0.5


def test_sets_hold_the_true_class_of_new_images_as_often_as_promised():
    rng = np.random.default_rng(0)
    logits, labels = draw(3, 40_000)
    p, covered = tempered(logits, 1.0), []
    for _ in range(1000):
        chosen = rng.integers(0, len(p), 140)
        value = conformal_threshold(p[chosen[:40]], labels[chosen[:40]], 0.9)
        covered.append(np.mean(p[chosen[40:], labels[chosen[40:]]] >= value))
    assert 0.897 < np.mean(covered) < 0.925


def test_images_with_no_class_or_several_are_unsure():
    p = np.array([[0.9, 0.05, 0.05], [0.5, 0.45, 0.05], [0.35, 0.35, 0.3], [0.4, 0.3, 0.3]])
    assert unsure(p, 0.4).tolist() == [False, True, True, False]


def test_coverage_out_of_range_and_too_few_images_are_said():
    p, labels = np.full((9, 2), 0.5), np.zeros(9, int)
    with pytest.raises(
        ConfigError, match=r"coverage=0.99 cannot be promised with 9 validation images: .* 0.1, .* 99"
    ):
        conformal_threshold(p, labels, 0.99)
    with pytest.raises(ConfigError, match="coverage=1 must lie between 0 and 1"):
        conformal_threshold(p, labels, 1)


def test_wrong_arrays_are_named():
    logits, labels = draw(4, 10)
    with pytest.raises(ValueError, match="10 labels, but probabilities of 9"):
        fit_temperature(logits[1:], labels)
    with pytest.raises(ValueError, match="logits hold NaN or infinite"):
        fit_temperature(np.full((10, 4), np.nan), labels)
    with pytest.raises(ValueError, match="temperature=0 is not positive"):
        tempered(logits, 0)
    with pytest.raises(ValueError, match=r"got shape \(10,\)"):
        tempered(logits[:, 0], 1)
