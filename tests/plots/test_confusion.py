import numpy as np
import pytest
from matplotlib.colors import to_hex

from tocsin.metrics.classification import confusion
from tocsin.plots.confusion import class_scores, confusion_matrix
from tocsin.plots.style import PREDICTED, TRUE


def cells_of(figure):
    return {text.get_position(): text for text in figure.axes[0].texts}  # (column, row)


def test_counts_and_shares_of_rows_are_written():
    labels = np.array([0] * 8 + [1] * 4 + [2] * 1000)
    predicted = labels.copy()
    predicted[:2] = 1
    predicted[8] = 2
    figure = confusion_matrix(confusion(labels, predicted, 3), ["a", "b", "c"], "of a run")
    cells = {place: text.get_text() for place, text in cells_of(figure).items()}
    assert cells[0, 0] == "6\n75.0%"
    assert cells[1, 0] == "2\n25.0%"  # true a, predicted b
    assert cells[2, 1] == "1\n25.0%"
    assert cells[2, 2] == "1,000\n100.0%"
    assert len(cells) == 9
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a\n(8)", "b\n(4)", "c\n(1,000)"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b", "c"]
    np.testing.assert_allclose(axes.images[0].get_array()[0], [0.75, 0.25, 0])
    assert figure.get_suptitle() == "of a run"


def test_an_absent_class_is_zero_and_not_nan():
    figure = confusion_matrix(np.array([[1, 0], [0, 0]]), ["normal", "anomalous"])
    assert [text.get_text() for text in figure.axes[0].texts] == [
        "1\n100.0%",
        "0\n0.0%",
        "0\n0.0%",
        "0\n0.0%",
    ]


def test_numbers_are_light_on_dark_cells_and_of_many_classes_empty_cells_stay_blank():
    counts = 7 * np.eye(15, dtype=int)
    counts[0, 3], counts[9, 9] = 2, 0
    cells = cells_of(confusion_matrix(counts, [f"defect {k}" for k in range(15)]))
    assert set(cells) == {(k, k) for k in range(15)} | {(3, 0)}
    assert cells[3, 0].get_text() == "2\n22%"
    assert cells[9, 9].get_text() == "0\n0%"
    assert cells[0, 0].get_color() == "white" != cells[3, 0].get_color()


@pytest.mark.parametrize("K", [2, 7, 15])
def test_numbers_stay_within_their_cells(K):
    figure = confusion_matrix(np.full((K, K), 1234), [f"surface defect {k}" for k in range(K)])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / K
    assert max(text.get_window_extent().width for text in axes.texts) < cell
    assert max(text.get_window_extent().height for text in axes.texts) < axes.get_window_extent().height / K


def test_counts_that_do_not_fit_the_names_are_refused():
    with pytest.raises(ValueError, match=r"counts has shape \(2, 3\) for 2 names"):
        confusion_matrix(np.zeros((2, 3)), ["a", "b"])
    with pytest.raises(ValueError, match="for 0 names"):
        confusion_matrix(np.zeros((0, 0)), [])


# --- classes ------------------------------------------------------------------------------------------------

SCORES = {
    "good": {"precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 1200},
    "none": {"precision": np.nan, "recall": np.nan, "f1": np.nan, "support": 0},
    "bad": {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 7},
}


def test_the_worst_class_stands_on_top_with_its_interval():
    figure = class_scores(SCORES, np.array([[0.8, 0.9], [np.nan, np.nan], [0.1, 0.6]]))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["bad (7)", "good (1,200)", "none (0)"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first is on top
    assert [bar.get_width() for bar in axes.patches] == [1 / 3, 0.85, 0]
    assert [text.get_text() for text in axes.texts] == ["0.333", "0.850", "n/a"]
    marks = {to_hex(line.get_color()).upper(): line.get_xdata()[:2].tolist() for line in axes.lines}
    assert marks == {PREDICTED: [0.5, 0.9], TRUE: [0.25, 0.8]}  # precision, recall
    ends = [path.vertices[:, 0].tolist() for path in axes.collections[0].get_paths()]
    assert ends[:2] == [[0.1, 0.6], [0.8, 0.9]]
    assert "95 % interval of F1" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_without_intervals_none_is_promised():
    texts = [text.get_text() for text in class_scores(SCORES).legends[0].get_texts()]
    assert not any("interval" in text for text in texts)
    with pytest.raises(ValueError, match=r"intervals has shape \(2, 2\) for 3 classes"):
        class_scores(SCORES, np.zeros((2, 2)))
