"""Images of any shape in a square: scaled to fit, padded with gray, and boxes brought there and back.

Source: image specification, section 7.7. As detectors of the YOLO family are fed: scale r = min(S / W, S / H), the
image in the middle, gray 114 around it. Sizes are rounded to whole pixels, so each axis keeps a scale of its own,
with which boxes stay exactly on what they hold.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from tocsin.data.image_files import FULL_SCALE, read_pixels
from tocsin.errors import ConfigError, DataError

GRAY = 114  # of 255
MIN_SIZE = 32  # the coarsest grid of a detector has cells of this size


class Placement(NamedTuple):
    """Where images of N sizes come to lie in squares.

    Attributes:
        inner: (N, 2) int64, width and height of the scaled image.
        scale: (N, 2) float64, pixels of the square per pixel of the image, along x and y.
        offset: (N, 2) int64, x and y of the scaled image's upper left corner in the square.
    """

    inner: np.ndarray
    scale: np.ndarray
    offset: np.ndarray


def placement(sizes: np.ndarray, size: int) -> Placement:
    """Place images in squares.

    Args:
        sizes: (N, 2) height and width of each image.
        size: S, pixels of a side of the square.
    """
    extent = np.asarray(sizes, np.int64).reshape(-1, 2)[:, ::-1]  # (N, 2): width, height
    ratio = size / extent.max(1, keepdims=True)
    inner = np.maximum(1, np.round(extent * ratio)).astype(np.int64)
    return Placement(inner=inner, scale=inner / extent, offset=(size - inner) // 2)


def to_square(boxes: np.ndarray, owner: np.ndarray, placed: Placement) -> np.ndarray:
    """Boxes in pixels of the square, from boxes in pixels of their images.

    Args:
        boxes: (M, 4), left, top, right, bottom.
        owner: (M,) index among the placed images of each.
        placed: Of `placement`.

    Returns:
        (M, 4) float64.
    """
    corners = np.asarray(boxes, np.float64).reshape(-1, 2, 2) * placed.scale[owner][:, None]
    moved: np.ndarray = corners + placed.offset[owner][:, None]
    return moved.reshape(-1, 4)  # (M, 2, 2) -> (M, 4)


def from_square(boxes: np.ndarray, owner: np.ndarray, placed: Placement) -> np.ndarray:
    """The inverse of `to_square`: boxes in pixels of their images."""
    corners = np.asarray(boxes, np.float64).reshape(-1, 2, 2) - placed.offset[owner][:, None]
    moved: np.ndarray = corners / placed.scale[owner][:, None]
    return moved.reshape(-1, 4)  # (M, 2, 2) -> (M, 4)


def letterbox(image: np.ndarray, size: int) -> np.ndarray:
    """Put an image in a square: what shrinks is averaged over areas, what grows is interpolated.

    Args:
        image: (H, W, 3) uint8.
        size: S, pixels of a side.

    Returns:
        (S, S, 3) uint8, where `placement` says, gray 114 around it.
    """
    placed = placement(np.array([image.shape[:2]]), size)
    (width, height), (x, y) = placed.inner[0].tolist(), placed.offset[0].tolist()
    if image.shape[:2] != (height, width):
        shrinks = placed.scale[0].max() < 1
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, (width, height), interpolation=how)
    square = np.full((size, size, 3), GRAY, np.uint8)
    square[y : y + height, x : x + width] = image
    return square


class SquareReader:
    """Reads files of any size and depth as squares of 8 bits.

    Args:
        size: S, pixels of a side, a multiple of 32.

    Raises:
        ConfigError: The size is no such number.
    """

    def __init__(self, *, size: int) -> None:
        if size < MIN_SIZE or size % MIN_SIZE:
            raise ConfigError(
                f"data.size={size} is not a multiple of {MIN_SIZE}, as the grids of a detector need it"
            )
        self.side = size

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what it gives."""
        return self.side, self.side

    def __call__(self, path: str | Path) -> Tensor:
        """Read an image as (3, S, S) float32 in [0, 1]."""
        return torch.from_numpy(self.pixels(path)).float() / 255

    def pixels(self, path: str | Path) -> np.ndarray:
        """Read an image.

        Returns:
            (3, S, S) uint8, RGB; gray is repeated, 16 bits are cut to 8.

        Raises:
            DataError: The file cannot be read, or holds floats, whose range is not known.
        """
        return np.ascontiguousarray(letterbox(_eight_bits(path), self.side).transpose(2, 0, 1))  # (3, S, S)


def _eight_bits(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 pixels of a file."""
    pixels = read_pixels(path)
    if pixels.dtype not in FULL_SCALE:
        raise DataError(
            f"{path}: holds {pixels.dtype} pixels, whose range is not known; write uint8 or uint16 ones"
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
