"""Images of any size come to one size, their masks with them, and everyone reads files in the same way."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tocsin.data.image_reader import ImageReader, to_image
from tocsin.data.image_resize import RESIZE_MODES, Placement, place, resize_image, resize_mask
from tocsin.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


# --- geometry -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "frame", "mode", "expected"),
    [
        ((31, 95), (32, 96), "black_padding", (31, 95, 0, 0)),
        ((10, 20), (16, 30), "noise_padding", (10, 20, 3, 5)),
        ((10, 20), (40, 40), "aspect_padding", (20, 40, 10, 0)),
        ((200, 100), (40, 40), "aspect_padding", (40, 20, 0, 10)),
        ((1000, 1), (10, 10), "aspect_padding", (10, 1, 0, 4)),
        ((10, 20), (7, 9), "bilinear", (7, 9, 0, 0)),
    ],
)
def test_place(size: tuple[int, int], frame: tuple[int, int], mode: str, expected: tuple[int, ...]) -> None:
    assert place(size, frame, mode) == Placement(*expected)


@pytest.mark.parametrize("mode", ["black_padding", "noise_padding"])
@pytest.mark.parametrize("size", [(33, 20), (20, 97)])
def test_too_large_an_image_is_not_cut(mode: str, size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=rf"image of {size[0]} x {size[1]} is larger.*aspect_padding"):
        resize_image(np.zeros((*size, 1), np.uint8), (32, 96), mode)


@pytest.mark.parametrize("mode", ["black_padding", "noise_padding"])
def test_padding_does_not_touch_a_pixel(mode: str) -> None:
    pixels = RNG.random((31, 95, 1)).astype(np.float32) * 3
    padded = resize_image(pixels, (37, 101), mode)
    np.testing.assert_array_equal(padded[3:34, 3:98], pixels)
    border = np.ones((37, 101), dtype=bool)
    border[3:34, 3:98] = False
    if mode == "black_padding":
        assert not padded[border].any()
    else:
        assert np.isin(padded[border], pixels).all()
        assert len(np.unique(padded[border])) > 100


def test_noise_belongs_to_the_image() -> None:
    one = RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    other = one.copy()
    other[4, 4] += 1
    noise = [resize_image(pixels, (20, 20), "noise_padding")[0] for pixels in (one, one.copy(), other)]
    np.testing.assert_array_equal(noise[0], noise[1])
    assert (noise[0] != noise[2]).mean() > 0.5  # another draw, not the same one from other pixels


def test_nearest_takes_the_pixel_under_each_centre() -> None:
    pixels = np.arange(8 * 12).reshape(8, 12, 1)
    np.testing.assert_array_equal(
        resize_image(pixels, (16, 36), "nearest"), np.kron(pixels, np.ones((2, 3, 1), int))
    )
    np.testing.assert_array_equal(resize_image(pixels, (4, 4), "nearest")[:, :, 0], pixels[1::2, 1::3, 0])


@pytest.mark.parametrize("size", [(7, 11), (20, 50), (50, 20)])
def test_bilinear_is_that_of_pillow(size: tuple[int, int]) -> None:
    pixels = RNG.random((31, 23, 1)).astype(np.float32) * 5
    expected = np.asarray(Image.fromarray(pixels[:, :, 0]).resize(size[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_allclose(resize_image(pixels, size, "bilinear")[:, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32])
@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_type_of_the_file_is_kept(dtype: type, mode: str) -> None:
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 4
    pixels = np.full((5, 6, 3), top, dtype)
    resized = resize_image(pixels, (8, 8), mode)
    assert resized.dtype == dtype
    assert resized.shape == (8, 8, 3)
    assert resized.max() == top  # neither wrapped round nor clipped


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("frame", [(64, 96), (61, 90)])
def test_mask_lies_where_the_image_does(mode: str, frame: tuple[int, int]) -> None:
    mask = np.zeros((30, 45), dtype=bool)
    mask[10:20, 6:27] = True
    found = resize_mask(mask, frame, mode)
    image = resize_image(mask[:, :, None].astype(np.float32), frame, mode.replace("noise", "black"))[:, :, 0]
    assert found.dtype == bool
    assert found.any()
    interpolated = mode in ("bilinear", "aspect_padding")
    corners = 4 if interpolated else 0  # which interpolation rounds
    assert (found != (image >= 0.5)).sum() <= corners


# --- reader -------------------------------------------------------------------------------------------------


def test_reader_repeats_a_single_channel(tmp_path: Path) -> None:
    stored = RNG.random((31, 95)).astype(np.float32) * 2
    tifffile.imwrite(tmp_path / "a.tiff", stored)
    image = ImageReader(height=32, width=96, resize="black_padding")(tmp_path / "a.tiff")
    assert image.shape == (3, 32, 96)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    for channel in image.numpy():
        np.testing.assert_array_equal(channel[:31, :95], stored)


def test_reader_keeps_the_channels_of_a_colour_image(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (10, 20, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels[:, :, ::-1])
    image = ImageReader(height=10, width=20)(tmp_path / "a.png")
    np.testing.assert_array_equal(image.numpy(), pixels.transpose(2, 0, 1) / np.float32(255))


def test_batches_of_pixels_are_images(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 65536, (4, 1, 5, 6), dtype=np.uint16)
    images = to_image(pixels)
    assert images.shape == (4, 3, 5, 6)
    np.testing.assert_array_equal(images[:, 2].numpy(), pixels[:, 0] / np.float32(65535))


def test_reader_says_which_image_is_too_large(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "big.png"), np.zeros((40, 96), np.uint8))
    with pytest.raises(DataError, match=r"big\.png: an image of 40 x 96 is larger"):
        ImageReader(height=32, width=96, resize="black_padding")(tmp_path / "big.png")


def test_mask_of_another_size_than_its_image(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a_mask.png"), np.zeros((20, 30), np.uint8))
    with pytest.raises(DataError, match=r"a_mask\.png: the mask is 20 x 30, but its image is 30 x 20"):
        ImageReader().mask(tmp_path / "a_mask.png", (30, 20))
    assert ImageReader(height=8, width=9).mask(tmp_path / "a_mask.png", (20, 30)).shape == (8, 9)


def test_state_goes_through_a_checkpoint() -> None:
    reader = ImageReader(height=32, width=96, resize="aspect_padding")
    buffer = io.BytesIO()
    torch.save(reader.state(), buffer)
    buffer.seek(0)
    assert ImageReader.from_state(torch.load(buffer, weights_only=True)) == reader


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"height": 0}, "data.height=0 is not a positive number"),
        ({"width": -1}, "data.width=-1 is not a positive number"),
        ({"resize": "crop"}, "data.resize='crop' is not one of 'nearest', 'bilinear'"),
    ],
)
def test_bad_options_are_named(option: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageReader(**option)
