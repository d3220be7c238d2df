import numpy as np
import pytest
from matplotlib.colors import to_hex

from tocsin.plots.patch_growth import patch_growth
from tocsin.plots.style import PREDICTED


def grown(K):
    return np.linspace(0, 1, K)[:, None, None, None] * np.ones((K, 8, 8, 3))


def texts(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_each_patch_stands_with_its_epoch_and_loss_and_the_best_has_a_frame():
    figure = patch_growth(grown(4), [0, 5, 10, 15], [0.9, 0.3, np.nan, 0.4])
    assert [texts(axes) for axes in figure.axes] == [
        ["epoch 0", "val_loss 0.900"],
        ["epoch 5, best", "val_loss 0.300"],
        ["epoch 10", "val_loss nan"],
        ["epoch 15", "val_loss 0.400"],
    ]
    for axes, patch in zip(figure.axes, grown(4), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), patch)  # no contrast of its own
    framed = [to_hex(axes.spines["left"].get_edgecolor()).upper() == PREDICTED for axes in figure.axes]
    assert framed == [False, True, False, False]


def test_of_many_the_first_the_last_and_the_best_stay():
    losses = np.ones(101)
    losses[31] = 0.5
    figure = patch_growth(grown(101), range(101), losses)
    shown = [texts(axes)[0] for axes in figure.axes if axes.images]
    assert len(shown) == 12
    assert shown[0] == "epoch 0"
    assert shown[-1] == "epoch 100"
    assert "epoch 31, best" in shown
    epochs = [int(text.split()[1].strip(",")) for text in shown]
    assert epochs == sorted(epochs)
    assert max(np.diff(epochs)) <= 15


def test_without_losses_no_best_is_claimed():
    figure = patch_growth(grown(3), [0, 1, 2])
    assert [texts(axes) for axes in figure.axes] == [["epoch 0"], ["epoch 1"], ["epoch 2"]]


def test_wrong_arrays_are_named():
    with pytest.raises(ValueError, match=r"patches has shape \(3, 8, 8\)"):
        patch_growth(grown(3)[..., 0], [0, 1, 2])
    with pytest.raises(ValueError, match="2 epochs for 3 patches"):
        patch_growth(grown(3), [0, 1])
    with pytest.raises(ValueError, match="1 losses for 3 patches"):
        patch_growth(grown(3), [0, 1, 2], [0.1])
