import pytest
import torch

from tocsin.models.patch_defence import busy_windows, gradient_size, smooth_local_gradients


def image(rows):
    """(1, 3, H, W) with the same values in all colours."""
    return torch.tensor(rows, dtype=torch.float64).expand(1, 3, -1, -1).clone()


def test_the_gradient_by_hand():
    found = gradient_size(image([[0.0, 0.3, 0.3], [0.4, 0.4, 0.4], [0.4, 0.4, 0.4]]))[0, 0]
    # upper left: (0.3, 0.4) long 0.5, the largest; beside it 0.1 down; the last row and column have one way only
    expected = [[1, 0.2, 0.2], [0, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_each_image_has_its_own_scale_and_one_of_a_single_colour_has_no_gradient():
    busy = torch.rand(1, 3, 9, 9)
    flat = torch.full((1, 3, 9, 9), 0.7)
    found = gradient_size(torch.cat([busy, busy * 0.1, flat]))
    torch.testing.assert_close(found[0], found[1])
    assert found[2].abs().max() == 0
    assert found[0].max() == 1


def test_windows_overlap_and_those_at_the_border_are_averaged_over_what_lies_inside():
    size = torch.zeros(1, 1, 4, 7)
    size[..., 1, 3] = 1.0  # windows of 4 begin at columns 0 and 3 (and rows at 0); both hold it
    found = busy_windows(size, window=4, overlap=1, threshold=1 / 17)
    assert found.all()
    assert not busy_windows(size, window=4, overlap=1, threshold=1 / 15).any()
    # without overlap only the first, columns 0 to 3
    alone = busy_windows(size, window=4, overlap=0, threshold=1 / 17)
    assert alone[0, 0].any(0).tolist() == [True] * 4 + [False] * 3
    # the second window has 12 pixels in the image
    size = torch.zeros(1, 1, 4, 7)
    size[..., 0, 6] = 1.0
    assert (
        busy_windows(size, window=4, overlap=0, threshold=1 / 13)[0, 0].any(0).tolist()
        == [False] * 4 + [True] * 3
    )
    assert not busy_windows(size, window=4, overlap=0, threshold=1 / 11).any()


def test_a_busy_window_is_darkened_by_its_gradient_and_the_rest_left_alone():
    rows = torch.full((8, 16), 0.5)
    rows[2, 2] = 1.0  # gradient 0.5 * sqrt(2) here, 0.5 on its left and above
    found = smooth_local_gradients(image(rows.tolist()), window=8, overlap=0, threshold=0.02, smoothing=0.8)[
        0, 0
    ]
    expected = rows.double()
    expected[2, 2] = 1.0 * (1 - 0.8)
    expected[2, 1] = expected[1, 2] = 0.5 * (1 - 0.8 / 2**0.5)
    torch.testing.assert_close(found, expected)
    # a second edge, weak and alone in its window, stays
    rows[4, 12] = 0.6
    other = smooth_local_gradients(image(rows.tolist()), window=8, overlap=0, threshold=0.02)[0, 0]
    assert other[4, 12] == pytest.approx(0.6)
    assert other[2, 2] == 0  # lambda 2.3 is cut at 1


def test_a_patch_of_noise_fades_and_a_smooth_scene_stays():
    ramp = torch.linspace(0.2, 0.8, 90).expand(2, 3, 90, 90).clone()
    scene = ramp.clone()
    scene[:, :, 30:60, 30:60] = torch.rand(2, 3, 30, 30)
    found = smooth_local_gradients(scene)
    assert found[:, :, 30:60, 30:60].mean() < 0.5 * scene[:, :, 30:60, 30:60].mean()
    torch.testing.assert_close(found[:, :, :15], scene[:, :, :15])
    assert smooth_local_gradients(scene, smoothing=0).equal(scene)
    torch.testing.assert_close(found[1:], smooth_local_gradients(scene[1:]))  # images do not see each other


def test_an_attack_can_be_trained_through_it():
    scene = torch.rand(1, 3, 32, 32, requires_grad=True)
    smooth_local_gradients(scene).sum().backward()
    assert scene.grad.isfinite().all()
    assert scene.grad.abs().max() > 0
    flat = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    smooth_local_gradients(flat).sum().backward()
    assert scene.grad.isfinite().all()
    torch.testing.assert_close(flat.grad, torch.ones_like(flat))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window=0 is not a positive number of pixels"),
        ({"overlap": 15}, "overlap=15 is not from 0 to window - 1 = 14"),
        ({"threshold": 1.1}, r"threshold=1.1 is not in \[0, 1\]"),
        ({"smoothing": -1.0}, "smoothing=-1.0 is not 0 or more"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        smooth_local_gradients(torch.rand(1, 3, 20, 20), **options)
