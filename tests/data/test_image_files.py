"""Images keep the depth of their files, and a bad file is one line that names it."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from tocsin.data.image_files import image_files, read_image, read_mask, read_pixels
from tocsin.errors import DataError

RNG = np.random.default_rng(0)
GRAY8 = RNG.integers(0, 256, (12, 17), dtype=np.uint8)
GRAY16 = RNG.integers(0, 65536, (12, 17), dtype=np.uint16)
RGB8 = RNG.integers(0, 256, (12, 17, 3), dtype=np.uint8)


def write(path: Path, pixels: np.ndarray, *options: int) -> Path:
    """An image from pixels in the order of RGB or RGBA, by another way than the one that reads it."""
    if pixels.ndim == 3:
        pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    assert cv2.imwrite(str(path), pixels, list(options))
    return path


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_eight_bits_are_scaled_to_one(tmp_path: Path, suffix: str) -> None:
    image = read_image(write(tmp_path / f"a{suffix}", GRAY8))
    assert image.dtype == np.float32
    assert image.shape == (12, 17, 1)
    np.testing.assert_array_equal(image[:, :, 0], GRAY8.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_keep_their_low_byte(tmp_path: Path, suffix: str) -> None:
    image = read_image(write(tmp_path / f"a{suffix}", GRAY16))
    np.testing.assert_array_equal(np.rint(image[:, :, 0] * 65535).astype(np.uint16), GRAY16)
    assert len(np.unique(image)) > 190  # of 204 pixels: 8 bits would leave fewer


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_stay_as_they_are(tmp_path: Path, dtype: type) -> None:
    stored = (RNG.normal(size=(12, 17)) * 3).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tiff", stored)
    image = read_image(tmp_path / "a.tiff")
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[:, :, 0], stored.astype(np.float32))
    assert image.max() > 1
    assert image.min() < 0


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tiff"])
def test_colours_come_as_red_green_blue(tmp_path: Path, suffix: str) -> None:
    red = np.zeros((12, 17, 3), dtype=np.uint8)
    red[..., 0] = 255
    image = read_image(write(tmp_path / f"a{suffix}", red))
    assert image.shape == (12, 17, 3)
    np.testing.assert_allclose(image.mean(axis=(0, 1)), [1, 0, 0], atol=0.02)


def test_alpha_is_dropped(tmp_path: Path) -> None:
    transparent = np.concatenate([RGB8, RNG.integers(0, 256, (12, 17, 1), dtype=np.uint8)], axis=2)
    packed = [write(tmp_path / name, transparent) for name in ("a.png", "a.tiff")]
    tifffile.imwrite(tmp_path / "plain.tiff", transparent, photometric="rgb", extrasamples=["unassalpha"])
    for path in (*packed, tmp_path / "plain.tiff"):
        np.testing.assert_array_equal(read_pixels(path), RGB8)


def test_alpha_of_gray_is_dropped(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GRAY8, 255 - GRAY8], axis=-1), photometric="minisblack")
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.tif"), GRAY8[:, :, None])


@pytest.mark.parametrize("stored", [GRAY16, GRAY16.astype(np.float32)])
def test_order_of_bytes_does_not_matter(tmp_path: Path, stored: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tiff", stored, byteorder=">")
    assert (tmp_path / "a.tiff").read_bytes().startswith(b"MM")
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.tiff")[:, :, 0], stored)


def test_packed_and_inverted_tiffs_are_read_too(tmp_path: Path) -> None:
    lzw = write(tmp_path / "lzw.tiff", GRAY16, cv2.IMWRITE_TIFF_COMPRESSION, 5)
    np.testing.assert_array_equal(read_pixels(lzw)[:, :, 0], GRAY16)
    tifffile.imwrite(tmp_path / "white.tiff", GRAY8, photometric="miniswhite")
    np.testing.assert_array_equal(read_pixels(tmp_path / "white.tiff")[:, :, 0], 255 - GRAY8)


def test_mask_is_true_above_zero_in_any_channel(tmp_path: Path) -> None:
    mask = np.zeros((12, 17, 3), dtype=np.uint8)
    mask[2, 3, 0] = 1
    mask[4, 5, 2] = 255
    found = read_mask(write(tmp_path / "a.png", mask))
    assert found.dtype == bool
    assert np.argwhere(found).tolist() == [[2, 3], [4, 5]]


# --- bad files ----------------------------------------------------------------------------------------------


def encoded(suffix: str) -> bytes:
    if suffix == ".tiff":
        file = io.BytesIO()
        tifffile.imwrite(file, GRAY16)
        return file.getvalue()
    return bytes(cv2.imencode(suffix, RGB8)[1])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_half_a_file_is_refused(tmp_path: Path, suffix: str, part: float) -> None:
    data = encoded(suffix)
    path = tmp_path / f"torn{suffix}"
    path.write_bytes(data)
    read_image(path)  # the whole file can be read
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DataError, match=rf"torn\{suffix}: is damaged or no"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tiff"])
@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty; copy it again"), (b"<html>", "is damaged or no")]
)
def test_what_is_no_image_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: {message}"):
        read_image(tmp_path / name)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: cannot be read: No such file"):
        read_image(tmp_path / "gone.png")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    stored = np.zeros((5, 6))
    stored[3, 4] = value
    tifffile.imwrite(tmp_path / "a.tiff", stored)
    with pytest.raises(DataError, match=r"a\.tiff: pixel \(row 3, column 4\) is NaN or infinite"):
        read_image(tmp_path / "a.tiff")


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.zeros((5, 6), np.int32), "holds int32 pixels; write uint8, uint16 or float32"),
        (np.zeros((7, 5, 6), np.uint8), r"shape \(7, 5, 6\); one gray or colour image"),
        (np.zeros((2, 3, 5, 6), np.uint8), r"shape \(2, 3, 5, 6\); one gray or colour image"),
    ],
)
def test_what_is_not_one_image_is_refused(tmp_path: Path, stored: np.ndarray, message: str) -> None:
    tifffile.imwrite(tmp_path / "a.tiff", stored, photometric="minisblack")
    with pytest.raises(DataError, match=rf"a\.tiff: holds .*{message}|a\.tiff: {message}"):
        read_image(tmp_path / "a.tiff")


def test_only_image_files_are_listed(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", ".hidden.png", "notes.txt", "Thumbs.db"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.jpeg", "b.PNG"]
