"""What the datamodules for images share: splits, sizes, memory and loaders."""

import hashlib
import logging
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch.utils.data import DataLoader

from tocsin.batch import ImageBatch
from tocsin.data.image_data import ImageSet, ImageSplits, draw_share, join_sets
from tocsin.data.image_files import read_pixels
from tocsin.data.image_loader import ImageCache, ImageDataset, ShuffledPasses
from tocsin.data.image_reader import ImageReader
from tocsin.data.image_resize import ResizeMode
from tocsin.data.module import DataModule
from tocsin.errors import DataError

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False, repr=False)
class ImageDataModule(DataModule):
    """Base of the datamodules for images: a dataclass, so that subclasses inherit the options.

    Training and the validation loss see normal images alone. Scoring walks over a whole set in order.

    Attributes:
        height: Pixels.
        width: Pixels.
        resize: `nearest`, `bilinear` (antialiased), `aspect_padding`, `black_padding` or `noise_padding`.
        batch_size: Images in a training batch.
        score_batch_size: Images in a scoring batch.
        steps_per_epoch: Batches of an epoch, drawn from shuffled passes one after another, so that a schedule means
            the same on 200 images and on 100,000; None for one pass.
        val_fraction: Share of the normal training images that validate, whole groups where groups are known.
        labelled_val_fraction: Share of the test images of every class that are moved to validation, where they serve
            the threshold.
        split_seed: Seed of these shares; not `seed`, so that runs of several seeds are tested on the same images.
        cache: Whether decoded images are kept in memory.
        cache_mb: Most memory for them.
        num_workers: Loader processes; 0 is fastest where the images are in memory.
        seed: Seed of the shuffling.
    """

    kind: ClassVar[str] = "image"

    height: int = 256
    width: int = 256
    resize: ResizeMode = "bilinear"
    batch_size: int = 16
    score_batch_size: int = 32
    steps_per_epoch: int | None = 100
    val_fraction: float = 0.2
    labelled_val_fraction: float = 0.0
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
        if not 0 < self.val_fraction < 1:
            raise DataError(f"data.val_fraction={self.val_fraction} is not between 0 and 1")
        self.check_share("labelled_val_fraction")
        self._read_with(ImageReader(height=self.height, width=self.width, resize=self.resize))

    def check_share(self, name: str) -> None:
        """Raise DataError, naming it, unless this option is in [0, 1)."""
        if not 0 <= getattr(self, name) < 1:
            raise DataError(f"data.{name}={getattr(self, name)} is not in [0, 1)")

    def _read_with(self, reader: ImageReader) -> None:
        self.reader = reader
        self._memory = ImageCache(reader, self.cache_mb if self.cache else 0)

    @abstractmethod
    def load(self) -> tuple[ImageSet, ImageSet]:
        """The train and test images; validation is cut from them."""

    @property
    @abstractmethod
    def source(self) -> str:
        """Data set and part of it, as `set/part`: the column of the tables of a sweep."""

    def targets(self) -> dict[str, ImageSet]:
        """Further test sets by name, such as other domains."""
        return {}

    def setup(self, stage: str | None = None) -> None:
        if self.splits is not None:
            return
        train, test = self.load()
        train = train.subset(train.normal)
        held_out = draw_share(train, self.val_fraction, self.split_seed)
        if not held_out.any():
            groups = len(np.unique(train.groups))
            raise DataError(
                f"there is no more than {groups} normal training image (or group of them); two are needed, one to "
                "learn from and one to validate on"
            )
        labelled = draw_share(test, self.labelled_val_fraction, self.split_seed)
        self.splits = ImageSplits(
            train=train.subset(~held_out),
            val=join_sets(train.subset(held_out), test.subset(labelled)),
            test=test.subset(~labelled),
        )
        _check_disjoint(self.splits)
        if len(self.splits.test) == 0:
            raise DataError("there is no test image; give some, or a smaller data.labelled_val_fraction")

    @property
    def ready(self) -> ImageSplits:
        """The splits, once `setup` has run."""
        if self.splits is None:
            raise RuntimeError("call setup() before using the splits")
        return self.splits

    # --- what the pipeline asks -----------------------------------------------------------------------

    def dims(self) -> dict[str, int]:
        return {"height": self.reader.height, "width": self.reader.width}

    def fingerprint(self) -> str:
        """Hash of the names, contents, labels and splits of all images; another place on disk changes nothing."""
        splits = {"train": self.ready.train, "val": self.ready.val, "test": self.ready.test}
        common = os.path.commonpath([path.parent for images in splits.values() for path in images.paths])
        digest = hashlib.blake2b(digest_size=16)
        for name, images in splits.items():
            for path, anomalous, class_ in zip(images.paths, ~images.normal, images.classes, strict=True):
                content = path.read_bytes()
                relative = path.relative_to(common).as_posix()
                digest.update(f"{name}\n{relative}\n{class_}\n{anomalous}\n{len(content)}\n".encode())
                digest.update(content)
        return digest.hexdigest()

    def summary(self) -> dict[str, Any]:
        splits = self.ready
        labels = splits.test.labels
        return {
            "source": self.source,
            "fingerprint": self.fingerprint(),
            "n_train": len(splits.train),
            "n_val": len(splits.val),
            "n_test": len(splits.test),
            "anomaly_rate": None if labels is None else float(labels.mean()),
            "test_classes": dict(sorted(Counter(splits.test.classes).items())),
            "n_masks": sum(path is not None for path in splits.test.mask_paths),
        }

    def manifest(self) -> pd.DataFrame:
        """Which image is in which split: path, split, label (NaN = not known), class, mask (None = there is none)."""
        splits = {"train": self.ready.train, "val": self.ready.val, "test": self.ready.test, **self.targets()}
        frames = [
            pd.DataFrame(
                {
                    "path": [str(path) for path in images.paths],
                    "split": name,
                    "label": np.nan if images.labels is None else images.labels.astype(int),
                    "class": images.classes,
                    "mask": [None if path is None else str(path) for path in images.mask_paths],
                }
            )
            for name, images in splits.items()
        ]
        return pd.concat(frames, ignore_index=True)

    def restore(self, state: Mapping[str, Any]) -> None:
        self._read_with(ImageReader.from_state(state["reader"]))

    def scoring_state(self) -> dict[str, Any]:
        return {"reader": self.reader.state(), "score_batch_size": self.score_batch_size}

    def single_pass(self) -> None:
        self.steps_per_epoch = None

    # --- loaders --------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        dataset = self._dataset(self.ready.train)
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        steps = self.steps_per_epoch
        sampler = ShuffledPasses(
            dataset,
            n_draws=None if steps is None else steps * self.batch_size * world,
            seed=self.seed,
            world=world,
            rank=rank,
        )
        if (
            self.trainer is not None
        ):  # a resumed run fetches its first batch before the Trainer sets the epoch
            sampler.set_epoch(self.trainer.current_epoch)
        return self._loader(dataset, self.batch_size, sampler)

    def val_dataloader(self) -> DataLoader[ImageBatch]:
        """The normal validation images in order; positions are those in the whole validation split."""
        val = self.ready.val
        return self._loader(self._dataset(val, np.flatnonzero(val.normal)), self.score_batch_size)

    def test_dataloader(self) -> DataLoader[ImageBatch]:
        return self.score_dataloader(self.ready.test)

    def score_dataloader(self, images: ImageSet) -> DataLoader[ImageBatch]:
        """All images of a set in order."""
        return self._loader(self._dataset(images), self.score_batch_size)

    def masks(self, images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
        """Where the anomalies of a set are.

        Args:
            images: N images.

        Returns:
            masks: (N, H, W) bool, true = anomalous.
            known: (N,) bool. A normal image is known to have an empty mask; an anomalous one without a mask file is
                not known, and neither is one without a label.

        Raises:
            DataError: A mask cannot be read, or has another size than its image.
        """
        masks = np.zeros((len(images), *self.reader.size), dtype=bool)
        known = np.zeros(len(images), dtype=bool) if images.labels is None else ~images.labels
        for index, path in enumerate(images.mask_paths):
            if path is not None:
                height, width, _ = read_pixels(images.paths[index]).shape
                masks[index] = self.reader.mask(path, (height, width))
                known[index] = True
        return masks, known

    def pictures(self, images: ImageSet, positions: Sequence[int]) -> np.ndarray:
        """(n, H, W, 3) float32 images at some positions of a set, as a detector sees them."""
        return np.stack([self.reader(images.paths[index]).permute(1, 2, 0).numpy() for index in positions])

    def _dataset(self, images: ImageSet, positions: np.ndarray | None = None) -> ImageDataset:
        return ImageDataset(
            images=images, reader=self.reader, stored=self._memory.get(images.paths), positions=positions
        )

    def _loader(
        self, dataset: ImageDataset, batch_size: int, sampler: ShuffledPasses | None = None
    ) -> DataLoader[ImageBatch]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=_as_is,
        )


def _check_disjoint(splits: ImageSplits) -> None:
    seen: set[object] = set()
    for images in (splits.train, splits.val, splits.test):
        twice = next((path for path in images.paths if path in seen), None)
        if twice is not None:
            raise DataError(f"{twice}: is among the images of two splits; give each folder once")
        seen |= set(images.paths)


def _as_is(batch: Any) -> Any:
    """`__getitems__` has already made the batch."""
    return batch
