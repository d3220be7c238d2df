import numpy as np
import pytest

from tocsin.metrics.calibration import tempered
from tocsin.metrics.classification import calibration_bins, expected_calibration_error
from tocsin.plots.reliability import reliability_diagram


@pytest.fixture
def classified():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(600, 3))
    labels = (tempered(logits, 1).cumsum(1) > rng.random((600, 1))).argmax(1)
    return labels, tempered(logits, 1), tempered(logits, 0.3)


def test_accuracy_over_confidence_before_and_after(classified):
    labels, after, before = classified
    figure = reliability_diagram(labels, after, before)
    upper, lower = figure.axes
    diagonal, first, second = upper.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    for line, shares in ((first, before), (second, after)):
        bins = calibration_bins(labels, shares)
        np.testing.assert_array_equal(line.get_xydata(), np.stack([bins.confidence, bins.accuracy], 1))
    errors = [expected_calibration_error(labels, shares) for shares in (before, after)]
    assert errors[0] > 2 * errors[1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "as right as it says",
        f"before temperature, expected calibration error {errors[0]:.3f}",
        f"after, expected calibration error {errors[1]:.3f}",
        f"accuracy of all 600 images, {(after.argmax(1) == labels).mean():.3f}",
    ]
    for patch in lower.patches:
        assert patch.get_data().values.sum() == pytest.approx(100)


def test_every_bin_lies_within_the_axes(classified):
    labels, after, _ = classified
    upper = reliability_diagram(labels, after).axes[0]
    (low, high), (left, right) = upper.get_ylim(), upper.get_xlim()
    points = upper.lines[1].get_xydata()
    assert (points > [left, low]).all()
    assert (points < [right, high]).all()
    assert len(upper.lines) == 2


def test_wrong_arrays_are_refused(classified):
    with pytest.raises(ValueError, match="600 labels, but probabilities of 599"):
        reliability_diagram(classified[0], classified[1][1:])
