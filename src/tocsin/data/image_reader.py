"""From an image file to what a detector sees, in training, testing and on new files alike."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tocsin.data.image_files import decode_pixels, read_mask, read_pixels, scaled
from tocsin.data.image_resize import RESIZE_MODES, ResizeMode, resize_image, resize_mask
from tocsin.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class ImageReader:
    """Reads files of any size as images of one size.

    Attributes:
        height: Of the images it gives.
        width: Of the images it gives.
        resize: How they come to that size, see `image_resize`.
    """

    height: int = 256
    width: int = 256
    resize: ResizeMode = "bilinear"

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"data.{name}={getattr(self, name)} is not a positive number")
        if self.resize not in RESIZE_MODES:
            raise ConfigError(
                f"data.resize={self.resize!r} is not one of {', '.join(map(repr, RESIZE_MODES))}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def __call__(self, path: str | Path) -> Tensor:
        """Read an image.

        Returns:
            (3, H, W) float32: files of 8 or 16 bits in [0, 1], floats as stored; a single channel is repeated.

        Raises:
            DataError: The file cannot be read, or does not fit the size.
        """
        return to_image(self.pixels(path))

    def pixels(self, path: str | Path) -> np.ndarray:
        """Read an image in the type of its file: `to_image` makes of it what `__call__` gives, bit for bit.

        Returns:
            (C, H, W), C = 1 or 3, of the dtype of the file.
        """
        return self._fitted(read_pixels(path), path)

    def decode(self, data: bytes, name: str) -> Tensor:
        """Decode the bytes of an image file, as `__call__` reads a file.

        Args:
            data: Of the file.
            name: Of the file; its suffix tells a TIFF.

        Raises:
            DataError: As for `__call__`.
        """
        return to_image(self._fitted(decode_pixels(data, Path(name)), name))

    def _fitted(self, pixels: np.ndarray, path: str | Path) -> np.ndarray:
        """(C, H, W) of the size that the reader gives, from (h, w, C)."""
        try:
            resized = resize_image(pixels, self.size, self.resize)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        return np.ascontiguousarray(resized.transpose(2, 0, 1))  # (C, H, W)

    def mask(self, path: str | Path, image_size: tuple[int, int]) -> np.ndarray:
        """Read the mask of an image.

        Args:
            path: Of the mask.
            image_size: Height and width of the image as it was stored.

        Returns:
            (H, W) bool, true = anomalous.

        Raises:
            DataError: The mask cannot be read, or has another size than its image.
        """
        mask = read_mask(path)
        if mask.shape != image_size:
            raise DataError(
                f"{path}: the mask is {mask.shape[0]} x {mask.shape[1]}, but its image is {image_size[0]} x "
                f"{image_size[1]} (height x width); give a mask of the image's size"
            )
        return resize_mask(mask, self.size, self.resize)

    def state(self) -> dict[str, Any]:
        """The options as plain data."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "ImageReader":
        """The reader that a trained run used."""
        return cls(**state)


def to_image(pixels: np.ndarray) -> Tensor:
    """Images of three channels from stored pixels.

    Args:
        pixels: (..., C, H, W), C = 1 or 3, of the dtype of a file.

    Returns:
        (..., 3, H, W) float32; integers in [0, 1], floats as they are.
    """
    image = torch.from_numpy(scaled(pixels))
    return image if image.shape[-3] == 3 else image.expand(*image.shape[:-3], 3, -1, -1).contiguous()
