import numpy as np
import pytest
import torch
from scipy import ndimage

from tocsin.data.corruptions import blur, brightness, corrupt, jpeg
from tocsin.errors import ConfigError


def pictures(B=3, H=40, W=48):
    """Smooth colours, each image and channel of its own."""
    across, down = torch.linspace(0, 1, W), torch.linspace(0, 1, H)[:, None]
    channels = torch.stack([across.expand(H, W), down.expand(H, W), (across * down)])
    return torch.stack([channels.roll(shift, 0) * (1 - shift / 5) for shift in range(B)])


def test_jpeg_keeps_colours_in_their_places_and_loses_more_at_lower_quality():
    images = pictures()
    errors = [(jpeg(images, quality=quality) - images).abs().mean().item() for quality in (95, 50, 5)]
    assert errors[0] < 0.01 < errors[2]
    assert errors == sorted(errors)
    coarse = jpeg(images, quality=30)
    assert coarse.shape == images.shape
    assert (coarse * 255 - (coarse * 255).round()).abs().max() < 1e-4
    assert (images == pictures()).all()


def test_jpeg_halves_the_resolution_of_colours_but_not_of_light():
    stripes = (torch.arange(32) % 2).float().expand(1, 32, 32)
    light = stripes.expand(3, -1, -1)[None]
    colour = torch.cat([stripes, 1 - stripes, torch.full_like(stripes, 0.5)])[None]
    assert (jpeg(light, quality=95) - light).abs().mean() < 0.02
    assert (jpeg(colour, quality=95) - colour).abs().mean() > 0.1


def test_jpeg_is_of_single_images_and_cuts_what_is_no_picture():
    images = pictures()
    torch.testing.assert_close(jpeg(images, quality=40)[1:2], jpeg(images[1:2], quality=40))
    assert jpeg(images * 3 - 1, quality=90).aminmax() == (0, 1)
    assert jpeg(images.bfloat16(), quality=90).dtype == torch.bfloat16


def test_blur_is_the_gaussian_of_scipy():
    images = torch.rand(2, 3, 30, 26, dtype=torch.float64)
    expected = ndimage.gaussian_filter(images.numpy(), (0, 0, 1.7, 1.7), mode="mirror", truncate=4)
    np.testing.assert_allclose(blur(images, sigma=1.7).numpy(), expected, atol=1e-12)
    assert blur(images, sigma=0) is images


def test_blur_lets_a_gradient_through():
    images = torch.rand(1, 3, 20, 20, requires_grad=True)
    blur(images, sigma=1.0)[0, 0, 10, 10].backward()
    assert images.grad[0, 0].sum() == pytest.approx(1)
    assert images.grad[0, 1:].abs().max() == 0


def test_brightness_is_a_factor_cut_at_white():
    images = torch.tensor([0.0, 0.2, 0.8]).reshape(1, 3, 1, 1)
    assert brightness(images, factor=1.5).flatten().tolist() == pytest.approx([0, 0.3, 1])
    assert brightness(images, factor=0.5).flatten().tolist() == pytest.approx([0, 0.1, 0.4])


@pytest.mark.parametrize(("kind", "strength"), [("jpeg", 30.0), ("blur", 2.0), ("brightness", 0.5)])
def test_a_corruption_can_be_named(kind, strength):
    images = pictures()
    expected = {
        "jpeg": lambda: jpeg(images, quality=30),
        "blur": lambda: blur(images, sigma=2.0),
        "brightness": lambda: brightness(images, factor=0.5),
    }[kind]()
    found = corrupt(images, kind=kind, strength=strength)
    torch.testing.assert_close(found, expected)
    assert (found - images).abs().max() > 0.05


@pytest.mark.parametrize(
    ("kind", "strength", "message"),
    [
        ("jpeg", 0, "JPEG quality 0 is not in 1 to 100"),
        ("jpeg", 101, "JPEG quality 101 is not in 1 to 100"),
        ("blur", -1.0, "blur of -1.0 pixels is negative"),
        ("blur", 11.0, "blur of 11.0 pixels is too strong for images of 40 x 48"),
        ("brightness", -0.1, "brightness factor -0.1 is negative"),
        ("fog", 1, "corruption 'fog' is not one of jpeg, blur, brightness"),
    ],
)
def test_a_strength_out_of_range_is_named(kind, strength, message):
    with pytest.raises(ConfigError, match=message):
        corrupt(pictures(), kind=kind, strength=strength)
