"""Random changes of training images: a list of albumentations transforms, seeded draw by draw.

Source: image specification, section 6.3 (albumentations 2.0.8). What differs from its own `set_random_seed`: that
gives every transform a generator of the same seed, so that their coins fall alike. Here all share one generator,
seeded anew for every draw.
"""

import copy
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tocsin.data.image_files import scaled
from tocsin.errors import ConfigError, DataError

PROBE = 64  # pixels


class Augmentation:
    """Changes images by transforms one after the other.

    Args:
        transforms: Of albumentations; none leaves the images as they are. They must keep the size.
        seed: With the number of a draw, it decides what happens.

    Raises:
        ConfigError: Something in the list is no transform, or was given an argument that it does not know.
    """

    def __init__(self, transforms: Sequence[Any], *, seed: int) -> None:
        self.seed = seed
        self._compose = _composed(transforms) if transforms else None

    def __call__(self, pixels: np.ndarray, draw: int) -> np.ndarray:
        """Change an image.

        Args:
            pixels: (C, H, W), C = 1 or 3. uint8 stays uint8; uint16 and floats become float32 in [0, 1].
            draw: Number of the draw; the same one does the same to the same image.

        Returns:
            (C, H, W) uint8 or float32.

        Raises:
            DataError: A float image leaves [0, 1].
        """
        if self._compose is None:
            return pixels
        rng = np.random.default_rng((self.seed, draw))
        self._compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        image = np.ascontiguousarray(_as_taken(pixels).transpose(1, 2, 0))  # (H, W, C)
        changed: np.ndarray = self._compose(image=image)["image"]
        return np.ascontiguousarray(changed.transpose(2, 0, 1))  # (C, H, W)

    def check(self, pixels: np.ndarray) -> None:
        """Try every transform on one image of the set, so that what does not fit is refused before training.

        Args:
            pixels: (C, H, W) as for a call.

        Raises:
            ConfigError: A transform changes the size, or cuts an image of more than 8 bits down to 8.
        """
        image = np.ascontiguousarray(_as_taken(pixels).transpose(1, 2, 0))  # (H, W, C)
        for transform in _leaves(self._compose):
            name = type(transform).__name__
            if (shape := _certain(transform)(image=image)["image"].shape) != image.shape:
                raise ConfigError(
                    f"data.augment: {name} makes {shape} of {image.shape} (height, width, channels); images keep "
                    "their size here, which data.height and data.width set: leave it out"
                )
            if pixels.dtype != np.uint8 and _cuts_to_8_bits(transform):
                raise ConfigError(
                    f"data.augment: {name} works on 8 bits alone, but these images hold {pixels.dtype}; take "
                    "augment=light or leave it out, or store the images with 8 bits"
                )


def _composed(transforms: Sequence[Any]) -> Any:
    import albumentations as A  # here, as it takes seconds

    for index, transform in enumerate(transforms):
        if not isinstance(transform, A.BasicTransform | A.BaseCompose):
            raise ConfigError(
                f"data.augment[{index}]={transform} is no transform; give nodes such as "
                "{_target_: albumentations.HorizontalFlip, p: 0.5}, or choose augment=none, light or manufacturing"
            )
    try:
        return A.Compose(list(transforms), strict=True)
    except ValueError as error:
        raise ConfigError(f"data.augment: {error}") from error


def _as_taken(pixels: np.ndarray) -> np.ndarray:
    """Pixels of a type that all transforms know: uint8, or float32 in [0, 1]."""
    if pixels.dtype == np.uint8:
        return pixels
    values = scaled(pixels)
    if values.min() < 0 or values.max() > 1:
        raise DataError(
            f"an image holds values from {values.min():.4g} to {values.max():.4g}, but augmentation needs floats "
            "between 0 and 1: scale them, or set augment=none"
        )
    return values


def _leaves(transform: Any) -> Iterator[Any]:
    """All single transforms; those of a choice, too."""
    if hasattr(transform, "transforms"):
        for inner in transform.transforms:
            yield from _leaves(inner)
    elif transform is not None:
        yield transform


def _certain(transform: Any) -> Any:
    """A copy of a transform that is always applied."""
    certain = copy.deepcopy(transform)
    certain.p = 1.0
    certain.set_random_state(np.random.default_rng(0), random.Random(0))
    return certain


def _cuts_to_8_bits(transform: Any) -> bool:
    """Whether it makes of a float image one of 256 levels; albumentations does so without a word."""
    probe = np.random.default_rng(0).random((PROBE, PROBE, 1), dtype=np.float32)
    levels = _certain(transform)(image=probe)["image"] * 255
    return bool(np.abs(levels - levels.round()).max() < 1e-3)
