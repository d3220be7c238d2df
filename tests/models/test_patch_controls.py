import pytest
import torch

from tocsin.models.patch_controls import control_patches, mosaic, noise, plain, shuffled


def test_controls_are_patches_of_the_same_size_and_repeatable():
    patch = torch.rand(3, 24, 24)
    controls = control_patches(patch, seed=3)
    assert list(controls) == ["gray", "white", "noise", "mosaic", "shuffled"]
    again, other = control_patches(patch, seed=3), control_patches(patch, seed=4)
    for name, control in controls.items():
        assert control.shape == (3, 24, 24)
        assert control.min() >= 0
        assert control.max() <= 1
        assert torch.equal(control, again[name])
        assert torch.equal(control, other[name]) == (name in ("gray", "white"))
    assert controls["gray"].unique().tolist() == [0.5]
    assert controls["white"].unique().tolist() == [1.0]
    assert control_patches(patch.bfloat16(), seed=3)["noise"].dtype == torch.bfloat16


def test_noise_is_gray_once_it_is_small_and_a_mosaic_is_not():
    small = [
        torch.nn.functional.interpolate(control[None], size=(8, 8), mode="area").std()
        for control in (noise(256, seed=0), mosaic(256, seed=0))
    ]
    assert small[0] < 0.02
    assert small[1] > 0.2


def test_a_mosaic_has_squares_of_one_colour_each():
    patch = mosaic(24, seed=0, cells=3)
    squares = patch.unfold(1, 8, 8).unfold(2, 8, 8).reshape(3, 9, 64)
    assert (squares == squares[..., :1]).all()
    assert len(squares[..., 0].T.unique(dim=0)) == 9


def test_shuffling_keeps_whole_pixels_and_nothing_of_their_order():
    patch = torch.arange(3 * 400.0).reshape(3, 20, 20) / 1200
    mixed = shuffled(patch, seed=0)
    colours = [pixels.flatten(1).T for pixels in (patch, mixed)]
    assert torch.equal(colours[1][colours[1][:, 0].argsort()], colours[0])
    moved = (mixed - patch).abs().mean()
    assert moved == pytest.approx(400 / 1200 / 3, rel=0.1)  # as of two independent draws


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plain(0, value=0.5), "size=0 is not a positive number of pixels"),
        (lambda: plain(4, value=1.5), r"value=1.5 is not in \[0, 1\]"),
        (lambda: noise(0, seed=0), "size=0 is not a positive number of pixels"),
        (lambda: mosaic(4, seed=0, cells=0), "cells=0 is not a positive number"),
    ],
)
def test_what_is_no_patch_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
