import numpy as np
import pytest
from matplotlib.colors import to_hex

from tocsin.plots.comparison import BETTER, COLORS, WORSE, Curves, Measured, comparison
from tocsin.plots.style import MUTED

METRICS = {
    "accuracy": Measured(0.7, 0.9, True),
    "ece": Measured(0.05, 0.1, False),
    "auroc": Measured(0.5, 0.5, None),
}
CURVES = Curves(np.array([[0.5, 0.0], [1.0, 0.3]]), np.array([[1.0, 0.1]]), "kept", "errors")


def test_each_metric_has_both_values_and_the_colour_of_its_change():
    (axes,) = comparison(("a", "b"), METRICS).axes
    rows = [axes.lines[start : start + 3] for start in (0, 3, 6)]
    for (line, first, second), measured in zip(rows, METRICS.values(), strict=True):
        assert list(line.get_xdata()) == [measured.first, measured.second]
        assert (first.get_xdata()[0], second.get_xdata()[0]) == measured[:2]
        assert (first.get_color(), second.get_color()) == COLORS
    assert [to_hex(line.get_color()).upper() for line, *_ in rows] == [BETTER, WORSE, MUTED]
    assert [text.get_text() for text in axes.texts] == ["+0.200", "+0.050", "+0.000"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["accuracy", "ece", "auroc"]


def test_matrices_stand_above_metrics_and_curves():
    matrices = np.array([[3, 1], [0, 4]]), np.array([[4, 0], [0, 4]])
    figure = comparison(("a", "b"), METRICS, matrices, ["ok", "crack"], CURVES)
    first, second, _, curves = figure.axes
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("a", "b")
    assert first.texts[1].get_text() == "1\n25.0%"
    assert second.texts[1].get_text() == "0\n0.0%"
    for line, points, color in zip(curves.lines, CURVES[:2], COLORS, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), points)
        assert line.get_color() == color
    assert (curves.get_xlabel(), curves.get_ylabel()) == ("kept", "errors")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "better", "worse"]


def test_nothing_measured_is_refused():
    with pytest.raises(ValueError, match="no metric to draw"):
        comparison(("a", "b"), {})
