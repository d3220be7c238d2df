import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from tocsin.metrics.functional import auc_roc, roc_curve
from tocsin.plots.distributions import precision_recall, roc, score_histogram


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    labels = rng.uniform(size=4000) < 0.05
    return rng.normal(size=4000) + 2.5 * labels, labels


def test_histogram_shares_bins_and_each_class_sums_to_one(scored):
    scores, labels = scored
    axes = score_histogram(scores, labels, 1.5).axes[0]
    normal, _, anomalous, _ = (patch.get_data() for patch in axes.patches)
    np.testing.assert_array_equal(normal.edges, anomalous.edges)
    assert normal.values.sum() == pytest.approx(1)
    assert anomalous.values.sum() == pytest.approx(1)
    centres = (normal.edges[1:] + normal.edges[:-1]) / 2
    assert (normal.values * centres).sum() == pytest.approx(0, abs=0.1)
    assert (anomalous.values * centres).sum() == pytest.approx(2.5, abs=0.2)
    assert list(axes.lines[0].get_xdata()) == [1.5, 1.5]
    assert axes.get_xscale() == "linear"


def test_histogram_of_heavy_tails_is_logarithmic_and_leaves_no_score_out(scored):
    scores, labels = scored
    figure = score_histogram(np.exp(2 * scores), labels, 30.0, unit="images")
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    ratios = np.diff(np.log(axes.patches[0].get_data().edges))
    np.testing.assert_allclose(ratios, ratios[0])
    assert axes.patches[0].get_data().values.sum() == pytest.approx(1)
    assert legend_of(figure) == [
        f"normal ({(~labels).sum():,} images)",
        f"anomalous ({labels.sum()} images)",
        "threshold 30",
    ]


def test_histogram_without_labels_draws_one_class(scored):
    figure = score_histogram(np.append(scored[0], np.nan), None, 2.0)
    assert legend_of(figure) == ["all, unlabelled (4,000 steps)", "threshold 2"]


def test_histogram_of_one_constant_score_is_drawn():
    counts = score_histogram(np.full(5, 3.0), None, 3.0).axes[0].patches[0].get_data().values
    assert counts.max() == 1.0


def test_histogram_refuses_what_cannot_be_drawn():
    with pytest.raises(ValueError, match=r"labels has shape \(2,\), but scores has \(3,\)"):
        score_histogram(np.zeros(3), np.zeros(2), 0.0)
    with pytest.raises(ValueError, match="none of 2 scores is finite"):
        score_histogram(np.full(2, np.nan), None, 0.0)


@pytest.mark.parametrize("order", [1, -1])
def test_precision_recall_agrees_with_scikit_learn_in_either_order(scored, order):
    scores, labels = scored
    precision, recall, _ = precision_recall_curve(labels, scores)
    figure = precision_recall(precision[::order], recall[::order], labels.mean(), (0.7, 0.4))
    axes = figure.axes[0]
    curve, base, point = axes.lines
    assert len(curve.get_xdata()) < len(recall)
    assert list(base.get_ydata()) == [labels.mean()] * 2
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (0.7, 0.4)
    expected = average_precision_score(labels, scores)
    assert legend_of(figure) == [
        f"detector, average precision {expected:.3f}",
        f"random score, base rate {labels.mean():.3g}",
        "chosen threshold, recall 0.700, precision 0.400",
    ]


def test_precision_recall_refuses_wrong_arrays():
    with pytest.raises(ValueError, match=r"precision has shape \(2,\) and recall \(3,\)"):
        precision_recall(np.ones(2), np.ones(3), 0.1)
    with pytest.raises(ValueError, match="point must lie in"):
        precision_recall(np.ones(2), np.array([1, 0]), 0.1, (1.2, 0.3))
    with pytest.raises(ValueError, match="recall must lie in"):
        precision_recall(np.ones(2), np.array([np.nan, 0]), 0.1)


def test_roc_draws_each_curve_with_the_area_given(scored):
    scores, labels = scored
    curves = {"images": roc_curve(scores, labels), "pixels": roc_curve(-scores, labels, max_points=50)}
    areas = {"images": auc_roc(scores, labels), "pixels": auc_roc(-scores, labels)}
    figure = roc(curves, areas, (0.25, 0.8))
    images, pixels, random, point = figure.axes[0].lines
    for line, curve in zip((images, pixels), curves.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), curve.false_positive_rate)
        np.testing.assert_array_equal(line.get_ydata(), curve.true_positive_rate)
    assert images.get_color() != pixels.get_color()
    np.testing.assert_array_equal(random.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(point.get_xydata(), [[0.25, 0.8]])
    assert legend_of(figure) == [
        f"images, area {areas['images']:.3f}",
        f"pixels, area {areas['pixels']:.3f}",
        "random score, area 0.5",
        "chosen threshold, 25 % false alarms, 80 % found",
    ]


def test_roc_refuses_what_cannot_be_drawn(scored):
    curve = roc_curve(*scored)
    with pytest.raises(ValueError, match=r"curves are \['a'\] and areas \['b'\]"):
        roc({"a": curve}, {"b": 0.5})
    with pytest.raises(ValueError, match="give both for at least one name"):
        roc({}, {})
    with pytest.raises(ValueError, match="the curve of images is undefined"):
        roc({"images": roc_curve(scored[0], np.zeros(4000))}, {"images": np.nan})
