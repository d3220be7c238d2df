import numpy as np
import pytest

from tocsin.plots.training import learning_rate, loss_curves, training_curves


def curve(*values, start=0):
    return [(start + number, value) for number, value in enumerate(values)]


def line_named(axes, name):
    (line,) = [line for line in axes.lines if str(line.get_label()).startswith(name)]
    return line


HISTORY = {
    "train_loss": curve(1.0, 0.8, 0.6, 1.1, 0.9, 0.8),
    "val_loss": curve(1.1, 0.9, 0.1, 1.2, 0.7, 0.95),
    "lr-AdamW": curve(1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 5e-4),
    "auc": curve(0.5, 0.6),
}


def test_losses_are_drawn_and_the_lowest_validation_loss_is_marked():
    axes = loss_curves(HISTORY).axes[0]
    np.testing.assert_array_equal(line_named(axes, "train_loss").get_ydata(), [1.0, 0.8, 0.6, 1.1, 0.9, 0.8])
    best = line_named(axes, "best epoch 2")
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (2, 0.1)
    assert axes.get_yscale() == "linear"
    assert not [line for line in axes.lines if line.get_label() == "auc"]


def test_stages_have_a_line_a_name_and_break_the_curves_and_the_last_one_has_the_best_epoch():
    axes = loss_curves(HISTORY, stages=[(0, "teacher"), (3, "student")]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["teacher", "student"]
    assert [text.get_position()[0] for text in axes.texts] == [1.0, 4.0]
    borders = [line.get_xdata()[0] for line in axes.lines if str(line.get_label()).startswith("_")]
    assert borders == [2.5]
    assert np.isnan(line_named(axes, "val_loss").get_ydata()).tolist() == [False] * 3 + [True] + [False] * 3
    assert line_named(axes, "best").get_xdata()[0] == 4


def test_the_best_epoch_can_be_given():
    assert line_named(loss_curves(HISTORY, best_epoch=5).axes[0], "best").get_ydata()[0] == 0.95


def test_a_large_range_is_logarithmic_and_what_is_not_finite_is_left_out():
    axes = loss_curves({"train_loss": [(2, 0.01), (0, 3.0), (1, float("nan")), (3, float("inf"))]}).axes[0]
    assert axes.get_yscale() == "log"
    np.testing.assert_array_equal(line_named(axes, "train_loss").get_xdata(), [0, 2])


def test_training_curves_show_losses_above_the_learning_rate():
    upper, lower = training_curves(HISTORY).axes
    assert line_named(upper, "val_loss")
    np.testing.assert_array_equal(line_named(lower, "lr-AdamW").get_ydata(), [1e-3] * 3 + [5e-4] * 3)
    assert (upper.get_ylabel(), lower.get_ylabel(), lower.get_xlabel()) == ("loss", "learning rate", "epoch")
    assert lower.get_ylim()[0] == 0
    assert lower.get_ylim()[1] > 1.05e-3  # the highest marker is not cut
    assert len(training_curves({"val_loss": curve(1.0)}).axes) == 1


def test_learning_rates_of_several_decades_are_logarithmic():
    figure = learning_rate({"lr-a": curve(1e-3, 1e-3), "lr-b": curve(1e-5, 1e-5, 1e-5)})
    assert figure.axes[0].get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lr-a", "lr-b"]
    assert learning_rate(HISTORY).axes[0].get_yscale() == "linear"


def test_a_history_without_what_is_asked_for_says_what_it_holds():
    with pytest.raises(ValueError, match="no finite loss in the history: it holds auc"):
        loss_curves({"auc": curve(0.5)})
    with pytest.raises(ValueError, match="no finite loss"):
        loss_curves({"val_loss": [(0, float("nan"))]})
    with pytest.raises(ValueError, match="no learning rate in the history: it holds nothing"):
        learning_rate({})
