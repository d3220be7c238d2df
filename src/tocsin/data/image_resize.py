"""Bringing images and their masks to one size: the same geometry for both.

Source: image specification, section 5.1 (the reader's resize methods). What differs: bilinear is antialiased, padding
is centred, and the padded modes without scaling refuse an image that is too large instead of cutting it.
"""

import zlib
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch.nn import functional as F

from tocsin.errors import DataError

ResizeMode = Literal["nearest", "bilinear", "aspect_padding", "black_padding", "noise_padding"]
RESIZE_MODES: tuple[str, ...] = get_args(ResizeMode)


class Placement(NamedTuple):
    """Where an image comes to lie in the frame, in pixels of the frame."""

    height: int
    width: int
    top: int
    left: int


def place(size: tuple[int, int], frame: tuple[int, int], mode: str) -> Placement:
    """Size and place of an image in a frame.

    Args:
        size: Height and width of the image.
        frame: Height and width of the result.
        mode: `nearest` and `bilinear` fill the frame; `aspect_padding` scales until one side fits, and pads;
            `black_padding` and `noise_padding` do not scale, only pad.

    Raises:
        DataError: The image is not to be scaled and larger than the frame.
    """
    if mode in ("nearest", "bilinear"):
        return Placement(*frame, 0, 0)
    height, width = size
    if mode == "aspect_padding":
        scale = min(frame[0] / height, frame[1] / width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    if height > frame[0] or width > frame[1]:
        raise DataError(
            f"an image of {height} x {width} is larger than data.height={frame[0]}, data.width={frame[1]}, and "
            f"data.resize={mode} does not scale; enlarge them, or set data.resize=aspect_padding"
        )
    return Placement(height, width, (frame[0] - height) // 2, (frame[1] - width) // 2)


def resize_image(pixels: np.ndarray, frame: tuple[int, int], mode: str) -> np.ndarray:
    """Bring an image to the size of a frame.

    Args:
        pixels: (H, W, C) of any dtype; where it scales, integers are rounded.
        frame: Height and width of the result.
        mode: One of `RESIZE_MODES`. Padding is black, or drawn from the pixels of the image itself: the same image
            always gets the same noise.

    Returns:
        (height, width, C) of the same dtype.

    Raises:
        DataError: As for `place`.
    """
    placement = place(pixels.shape[:2], frame, mode)
    scale = _nearest if mode == "nearest" else _bilinear
    inner = scale(pixels, placement.height, placement.width)
    if inner.shape[:2] == frame:
        return inner
    padded = (
        _noise(pixels, frame)
        if mode == "noise_padding"
        else np.zeros((*frame, pixels.shape[2]), pixels.dtype)
    )
    padded[
        placement.top : placement.top + placement.height, placement.left : placement.left + placement.width
    ] = inner
    return padded


def resize_mask(mask: np.ndarray, frame: tuple[int, int], mode: str) -> np.ndarray:
    """Bring a mask to the size of a frame by nearest neighbour; padding is not anomalous.

    Args:
        mask: (H, W) bool.
        frame: Height and width of the result.
        mode: That of the image.

    Returns:
        (height, width) bool.

    Raises:
        DataError: As for `place`.
    """
    height, width, top, left = place((mask.shape[0], mask.shape[1]), frame, mode)
    padded = np.zeros(frame, dtype=bool)
    padded[top : top + height, left : left + width] = _nearest(mask, height, width)
    return padded


def _nearest(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each pixel takes the one that its centre falls into; whole numbers, so nothing is left to rounding."""
    rows = (2 * np.arange(height) + 1) * pixels.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * pixels.shape[1] // (2 * width)
    picked: np.ndarray = pixels[rows[:, None], columns]
    return picked


def _bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    if pixels.shape[:2] == (height, width):
        return pixels
    image = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]  # (1, C, H, W)
    scaled = F.interpolate(image, (height, width), mode="bilinear", antialias=True)
    values: np.ndarray = scaled[0].permute(1, 2, 0).numpy()  # (height, width, C)
    if pixels.dtype.kind == "f":
        return values.astype(pixels.dtype)
    rounded: np.ndarray = np.rint(values).clip(0, np.iinfo(pixels.dtype).max)
    return rounded.astype(pixels.dtype)


def _noise(pixels: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(pixels.tobytes()))
    drawn = rng.integers(pixels.shape[0] * pixels.shape[1], size=frame)
    noise: np.ndarray = pixels.reshape(-1, pixels.shape[2])[drawn]  # (height, width, C)
    return noise
