import numpy as np

from tocsin.plots.gap import gap_pairs
from tocsin.plots.training import loss_curves, training_curves


def curve(*values, start=1):
    return [(start + number, value) for number, value in enumerate(values)]


HISTORY = {
    "train_loss": curve(1.0, 0.8, 0.6, 0.5),
    "val_loss": curve(1.0, 0.5, 0.6, 0.7),
    "train_probe_loss": curve(0.9, 0.4, 0.3, 0.2),
    "train_probe_macro_f1": curve(0.5, 0.8, 0.95, 0.99),
    "val_macro_f1": curve(0.45, 0.7, 0.8, 0.75),
    "train_probe_accuracy": curve(0.6, 0.9, 0.97, 1.0),
    "val_accuracy": curve(0.6, 0.85, 0.9, 0.91),
    "train_val_gap": curve(0.05, 0.1, 0.15, 0.24),
    "lr": curve(1e-3, 1e-3, 1e-4, 1e-4),
}


def test_metrics_of_probe_and_validation_are_paired_and_losses_left_out():
    arrays = {name: np.array(points) for name, points in HISTORY.items()}
    pairs = gap_pairs(arrays | {"train_probe_ece": arrays["lr"]})
    assert list(pairs) == ["macro_f1", "accuracy"]
    assert pairs["macro_f1"][1] is arrays["val_macro_f1"]


def test_each_metric_has_a_panel_with_the_gap_at_the_epoch_of_the_best_macro_f1():
    losses, macro_f1, accuracy, rates = training_curves(HISTORY).axes
    assert [axes.get_ylabel() for axes in (macro_f1, accuracy, rates)] == [
        "macro f1",
        "accuracy",
        "learning rate",
    ]
    probe, validation, star = macro_f1.lines
    np.testing.assert_array_equal(probe.get_ydata(), [0.5, 0.8, 0.95, 0.99])
    np.testing.assert_array_equal(validation.get_ydata(), [0.45, 0.7, 0.8, 0.75])
    assert star.get_xydata().tolist() == [[3, 0.8]]
    assert macro_f1.get_title(loc="left") == "gap at the best epoch 3: +0.150"
    assert accuracy.get_title(loc="left") == "gap at the best epoch 3: +0.070"
    shaded = macro_f1.collections[0].get_paths()[0].vertices
    for epoch, (upper, lower) in {2: (0.8, 0.7), 4: (0.99, 0.75)}.items():
        assert set(shaded[shaded[:, 0] == epoch][:, 1]) == {upper, lower}
    (best,) = [line for line in losses.lines if str(line.get_label()).startswith("best")]
    assert best.get_xydata().tolist() == [
        [3, 0.6]
    ]  # not the lowest loss: the checkpoint kept has the best macro-F1


def test_the_legend_names_the_curves_of_all_panels_once():
    texts = [text.get_text() for text in training_curves(HISTORY).legends[0].get_texts()]
    assert len(texts) == len(set(texts)) == 6
    assert {"train_probe_loss", "validation images"} <= set(texts)


def test_an_epoch_given_is_marked_and_the_best_of_an_earlier_stage_is_not():
    assert training_curves(HISTORY, best_epoch=2).axes[1].get_title(loc="left").endswith("epoch 2: +0.100")
    staged = training_curves(HISTORY, stages=[(1, "head"), (4, "all")]).axes[1]
    assert staged.get_title(loc="left") == "gap at the best epoch 4: +0.240"


def test_of_equal_epochs_the_last_is_marked_as_its_checkpoint_is_kept():
    tied = HISTORY | {"val_macro_f1": curve(0.45, 0.8, 0.8, 0.75)}
    assert training_curves(tied).axes[1].get_title(loc="left").startswith("gap at the best epoch 3:")
    losses = {"train_loss": HISTORY["train_loss"], "val_loss": curve(0.9, 0.5, 0.5, 0.7)}
    (best,) = [line for line in loss_curves(losses).axes[0].lines if str(line.get_label()).startswith("best")]
    assert best.get_xydata().tolist() == [[3, 0.5]]


def test_only_epochs_measured_on_both_have_a_gap():
    history = HISTORY | {"train_probe_macro_f1": [(1, 0.5), (3, 0.9)]}
    shaded = training_curves(history).axes[1].collections[0].get_paths()[0].vertices
    assert set(shaded[:, 0]) == {1, 3}


def test_without_macro_f1_the_lowest_loss_stays_the_best():
    history = {name: HISTORY[name] for name in ("train_loss", "val_loss")}
    (best,) = [
        line for line in loss_curves(history).axes[0].lines if str(line.get_label()).startswith("best")
    ]
    assert best.get_xdata()[0] == 2
    pair = history | {name: HISTORY[name] for name in ("train_probe_accuracy", "val_accuracy")}
    assert training_curves(pair).axes[1].get_title(loc="left") == "gap at the last epoch 4: +0.090"
    assert len(training_curves(pair).axes) == 2  # no learning rate, no panel of it
