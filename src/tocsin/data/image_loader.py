"""Batches of images: made by one gather where they are kept in memory, in an order that a resumed run repeats."""

import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from tocsin.batch import ImageBatch
from tocsin.data.image_data import ImageSet
from tocsin.data.image_reader import ImageReader, to_image

log = logging.getLogger(__name__)

MIB = 1 << 20


class PixelReader(Protocol):
    """Reads files of any size as images of one size, as `ImageReader` does."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""

    def pixels(self, path: str | Path) -> np.ndarray:
        """(C, H, W) an image in the type of its file."""

    def __call__(self, path: str | Path) -> Tensor:
        """(3, H, W) float32 an image as a batch has it."""


@dataclass(eq=False)
class ImageCache:
    """Decoded and resized images in memory, in the type of their files: 8 bits take a twelfth of what a batch takes.

    Attributes:
        reader: Reads the images.
        limit_mb: Most memory of all sets together; 0 keeps nothing. A set that does not fit is left on disk.
    """

    reader: PixelReader
    limit_mb: int
    used: int = field(init=False, default=0)  # bytes
    _kept: dict[tuple[Path, ...], np.ndarray | None] = field(init=False, default_factory=dict)

    def get(self, paths: tuple[Path, ...]) -> np.ndarray | None:
        """All images of a set, read when first asked for.

        Returns:
            (N, C, H, W) in the type of the files; (N, 3, H, W) float32, as a batch has them, where files differ in
            type or channels; None where they do not fit.
        """
        if paths not in self._kept:
            self._kept[paths] = self._read(paths)
        return self._kept[paths]

    def _read(self, paths: tuple[Path, ...]) -> np.ndarray | None:
        if not paths or self.limit_mb == 0:
            return None
        first = self.reader.pixels(paths[0])
        images = self._reserve((len(paths), *first.shape), first.dtype)
        if images is None:
            return None

        def keep(index: int) -> bool:
            pixels = self.reader.pixels(paths[index])
            alike = pixels.shape == first.shape and pixels.dtype == first.dtype
            if alike:
                images[index] = pixels
            return alike

        with ThreadPoolExecutor() as pool:
            if all(pool.map(keep, range(len(paths)))):
                self.used += images.nbytes
                return images
        return self._read_mixed(paths)

    def _read_mixed(self, paths: tuple[Path, ...]) -> np.ndarray | None:
        images = self._reserve((len(paths), 3, *self.reader.size), np.dtype(np.float32))
        if images is None:
            return None

        def keep(index: int) -> None:
            images[index] = self.reader(paths[index]).numpy()

        with ThreadPoolExecutor() as pool:
            list(pool.map(keep, range(len(paths))))  # a list, so that errors come through
        self.used += images.nbytes
        return images

    def _reserve(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
        needed = math.prod(shape) * dtype.itemsize
        if self.used + needed <= self.limit_mb * MIB:
            return np.empty(shape, dtype)
        log.info(
            "%d images need %d MB beside the %d MB in use, more than data.cache_mb=%d, and are read from their files "
            "in every epoch; enlarge it, or set data.num_workers",
            shape[0],
            math.ceil(needed / MIB),
            math.ceil(self.used / MIB),
            self.limit_mb,
        )
        return None


class ImageDataset(Dataset[ImageBatch]):
    """Some images of a set; `__getitems__` makes a whole batch at once.

    Args:
        images: N images.
        reader: Reads those that are not in memory.
        stored: (N, C, H, W) pixels in memory, see `ImageCache`; None to read from files.
        positions: (M,) places in the set of the images to show; all N if None.
    """

    def __init__(
        self,
        *,
        images: ImageSet,
        reader: ImageReader,
        stored: np.ndarray | None,
        positions: np.ndarray | None = None,
    ) -> None:
        self.images = images
        self.reader = reader
        self.positions = np.arange(len(images)) if positions is None else positions
        self._stored = stored

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> ImageBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        """Gather a batch.

        Args:
            indices: B places among `positions`.

        Returns:
            image (B, 3, H, W) float32, position (B,) in the set, label (B,) or None.
        """
        chosen = self.positions[np.asarray(indices)]
        if self._stored is not None:
            image = to_image(self._stored[chosen])
        else:
            image = torch.stack([self.reader(self.images.paths[position]) for position in chosen])
        labels = self.images.labels
        return ImageBatch(
            image=image,
            position=torch.from_numpy(chosen),
            label=None if labels is None else torch.from_numpy(labels[chosen]),
        )


class ShuffledPasses(DistributedSampler[Any]):
    """Draws from shuffled passes one after another, so many an epoch as asked, whatever the size of the set.

    Which items an epoch shows depends on the seed and its number alone, so a resumed run sees what an uninterrupted
    one would have seen.

    Args:
        dataset: N items.
        n_draws: Items of an epoch; None for one pass.
        seed: Seed of the shuffling.
    """

    def __init__(self, dataset: Dataset[Any], *, n_draws: int | None, seed: int) -> None:
        super().__init__(dataset, num_replicas=1, rank=0, seed=seed)
        self.num_samples = len(self.dataset) if n_draws is None else n_draws  # type: ignore[arg-type]

    @property
    def pass_length(self) -> int:
        """Draws of a pass."""
        return len(self.dataset)  # type: ignore[arg-type]

    def one_pass(self, number: int) -> np.ndarray:
        """(pass_length,) items of a pass, by its number since the start of training."""
        return np.random.default_rng((self.seed, number)).permutation(self.pass_length)

    def draws(self) -> tuple[np.ndarray, np.ndarray]:
        """What an epoch shows: items (n,) and their numbers (n,) since the start of training."""
        numbers = self.epoch * self.num_samples + np.arange(self.num_samples)
        first, last = numbers[[0, -1]] // self.pass_length
        passes = np.concatenate([self.one_pass(number) for number in range(first, last + 1)])
        return passes[numbers - first * self.pass_length], numbers

    def __iter__(self) -> Iterator[Any]:
        items, _ = self.draws()
        return iter(items.tolist())

    def __len__(self) -> int:
        return self.num_samples
