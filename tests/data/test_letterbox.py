"""Letterboxes: where images come to lie, boxes there and back, and no aliasing."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tocsin.data.letterbox import GRAY, SquareReader, from_square, letterbox, placement, to_square
from tocsin.errors import ConfigError, DataError

SIZES = np.array([(480, 640), (640, 480), (100, 37), (64, 64), (333, 500)])  # height, width


def test_image_fits_and_lies_in_the_middle() -> None:
    placed = placement(SIZES, 320)
    assert placed.inner.tolist() == [[320, 240], [240, 320], [118, 320], [320, 320], [320, 213]]
    assert placed.offset.tolist() == [[0, 40], [40, 0], [101, 0], [0, 0], [0, 53]]


def test_boxes_by_hand() -> None:
    boxes = np.array([[0, 0, 640, 480], [100, 200, 300, 400], [0, 0, 480, 640], [0, 0, 500, 333]])
    moved = to_square(boxes, np.array([0, 0, 1, 4]), placement(SIZES, 320))
    assert moved[:3].tolist() == [[0, 40, 320, 280], [50, 140, 150, 240], [40, 0, 280, 320]]
    assert moved[3] == pytest.approx([0, 53, 320, 266])  # all of an image, whose height is rounded


def test_boxes_come_back_exactly() -> None:
    rng = np.random.default_rng(0)
    owner = rng.integers(len(SIZES), size=500)
    boxes = rng.uniform(0, 1, (500, 4)) * np.tile(SIZES[owner][:, ::-1], 2)
    placed = placement(SIZES, 224)
    assert np.abs(from_square(to_square(boxes, owner, placed), owner, placed) - boxes).max() < 1e-10


@pytest.mark.parametrize(("height", "width"), [(333, 500), (500, 333), (50, 37), (64, 64)])
def test_a_box_stays_on_what_it_holds(height: int, width: int) -> None:
    """A white block is found again where its box went, to within the blur of half a pixel."""
    image = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = width // 4, height // 3, width // 2 + 3, height - 5
    image[top:bottom, left:right] = 255
    square = letterbox(image, 128)
    box = to_square(
        np.array([[left, top, right, bottom]]), np.array([0]), placement(np.array([[height, width]]), 128)
    )
    bright = square[:, :, 0].astype(float) > 128
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    assert np.abs(found - box[0]).max() <= 0.51 * max(1, 128 / max(height, width))


def test_padding_is_gray_and_an_image_of_that_size_is_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 40, 3), dtype=np.uint8)
    square = letterbox(image, 64)
    assert (square[:, 12:52] == image).all()
    assert (square[:, :12] == GRAY).all()
    assert (square[:, 52:] == GRAY).all()


def test_fine_patterns_are_averaged_not_sampled() -> None:
    board = np.indices((640, 640)).sum(0) % 2 * 255
    square = letterbox(np.repeat(board[:, :, None], 3, 2).astype(np.uint8), 160)
    assert np.abs(square.astype(int) - 127.5).max() <= 1


# --- files --------------------------------------------------------------------------------------------------


def written(path: Path, pixels: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), pixels)
    return path


def test_gray_16_bit_file(tmp_path: Path) -> None:
    pixels = SquareReader(size=64).pixels(written(tmp_path / "a.png", np.full((64, 64), 0x1234, np.uint16)))
    assert pixels.shape == (3, 64, 64)
    assert pixels.dtype == np.uint8
    assert (pixels == 0x12).all()


def test_colours_are_in_the_order_of_rgb(tmp_path: Path) -> None:
    bgr = np.full((32, 32, 3), (10, 20, 30), np.uint8)
    image = SquareReader(size=32)(written(tmp_path / "a.png", bgr))
    assert torch.equal(image[:, 0, 0], torch.tensor([30, 20, 10]) / 255)


def test_floats_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tiff", np.zeros((8, 8), np.float32))
    with pytest.raises(
        DataError, match=r"a\.tiff: holds float32 pixels, whose range is not known; write uint8"
    ):
        SquareReader(size=64).pixels(path)


@pytest.mark.parametrize("size", [0, 16, 100])
def test_size_off_the_grid_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"data.size={size} is not a multiple of 32"):
        SquareReader(size=size)
