"""What all datamodules made of image files share: how files are read and kept in memory, and their splits."""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tocsin.data.image_data import ImageSet, ImageSplits
from tocsin.data.image_loader import ImageCache
from tocsin.data.image_reader import ImageReader
from tocsin.data.image_resize import ResizeMode
from tocsin.data.module import DataModule
from tocsin.errors import DataError


@dataclass(kw_only=True, eq=False, repr=False)
class ImageSetModule(DataModule):
    """Base of the datamodules for images, whatever their labels are for.

    Attributes:
        height: Pixels.
        width: Pixels.
        resize: `nearest`, `bilinear` (antialiased), `aspect_padding`, `black_padding` or `noise_padding`.
        batch_size: Images in a training batch, over all processes.
        score_batch_size: Images in a scoring batch.
        steps_per_epoch: Batches of an epoch, drawn from shuffled passes one after another, so that a schedule means
            the same on 200 images and on 100,000; None for one pass.
        split_seed: Seed of the splits; not `seed`, so that runs of several seeds are tested on the same images.
        cache: Whether decoded images are kept in memory.
        cache_mb: Most memory for them.
        num_workers: Loader processes; 0 is fastest where the images are in memory.
        seed: Seed of the shuffling.
    """

    height: int = 256
    width: int = 256
    resize: ResizeMode = "bilinear"
    batch_size: int = 16
    score_batch_size: int = 32
    steps_per_epoch: int | None = 100
    split_seed: int = 42
    cache: bool = True
    cache_mb: int = 4096
    num_workers: int = 0
    seed: int = 42
    reader: ImageReader = field(init=False)
    splits: ImageSplits | None = field(init=False, default=None)
    _memory: ImageCache = field(init=False)

    def __post_init__(self) -> None:
        super().__init__()
        self.check_positive("batch_size", "score_batch_size", "cache_mb")
        if self.steps_per_epoch is not None:
            self.check_positive("steps_per_epoch")
        self._read_with(ImageReader(height=self.height, width=self.width, resize=self.resize))

    def check_share(self, name: str, *, zero: bool = False) -> None:
        """Raise DataError, naming it, unless this option is between 0 and 1; `zero` lets 0 pass."""
        value = getattr(self, name)
        if not 0 <= value < 1 or (value == 0 and not zero):
            raise DataError(f"data.{name}={value} is not {'in [0, 1)' if zero else 'between 0 and 1'}")

    def _read_with(self, reader: ImageReader) -> None:
        self.reader = reader
        self._memory = ImageCache(reader, self.cache_mb if self.cache else 0)

    @property
    @abstractmethod
    def source(self) -> str:
        """Data set and part of it, as `set/part`: the column of the tables of a sweep."""

    @property
    def ready(self) -> ImageSplits:
        """The splits, once `setup` has run."""
        if self.splits is None:
            raise RuntimeError("call setup() before using the splits")
        return self.splits

    @property
    def parts(self) -> dict[str, ImageSet]:
        """The splits by name."""
        return {"train": self.ready.train, "val": self.ready.val, "test": self.ready.test}

    def dims(self) -> dict[str, Any]:
        return {"height": self.reader.height, "width": self.reader.width}

    def fingerprint(self) -> str:
        """Hash of the names, contents, labels and splits of all images; another place on disk changes nothing."""
        common = os.path.commonpath([path.parent for images in self.parts.values() for path in images.paths])
        digest = hashlib.blake2b(digest_size=16)
        for name, images in self.parts.items():
            for path, anomalous, class_ in zip(images.paths, ~images.normal, images.classes, strict=True):
                content = path.read_bytes()
                relative = path.relative_to(common).as_posix()
                digest.update(f"{name}\n{relative}\n{class_}\n{anomalous}\n{len(content)}\n".encode())
                digest.update(content)
        return digest.hexdigest()

    def summary(self) -> dict[str, Any]:
        labels = self.ready.test.labels
        return {
            "source": self.source,
            "fingerprint": self.fingerprint(),
            **{f"n_{name}": len(images) for name, images in self.parts.items()},
            "anomaly_rate": None if labels is None else float(labels.mean()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._read_with(ImageReader.from_state(state["reader"]))

    def scoring_state(self) -> dict[str, Any]:
        return {"reader": self.reader.state(), "score_batch_size": self.score_batch_size}

    def single_pass(self) -> None:
        self.steps_per_epoch = None

    def pictures(self, images: ImageSet, positions: Sequence[int]) -> np.ndarray:
        """(n, H, W, 3) float32 images at some positions of a set, as a detector sees them."""
        return np.stack([self.reader(images.paths[index]).permute(1, 2, 0).numpy() for index in positions])
