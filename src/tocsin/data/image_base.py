"""What the datamodules for anomalies in images share: splits, masks and loaders."""

from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch.utils.data import DataLoader

from tocsin.batch import ImageBatch
from tocsin.data.image_data import ImageSet, ImageSplits, draw_share, join_sets
from tocsin.data.image_files import read_pixels
from tocsin.data.image_loader import ImageDataset, ShuffledPasses
from tocsin.data.image_module import ImageSetModule
from tocsin.errors import DataError


@dataclass(kw_only=True, eq=False, repr=False)
class ImageDataModule(ImageSetModule):
    """Base of the datamodules for anomalies in images: a dataclass, so that subclasses inherit the options.

    Training and the validation loss see normal images alone. Scoring walks over a whole set in order.

    Attributes:
        val_fraction: Share of the normal training images that validate, whole groups where groups are known.
        labelled_val_fraction: Share of the test images of every class that are moved to validation, where they serve
            the threshold.
    """

    kind: ClassVar[str] = "image"

    val_fraction: float = 0.2
    labelled_val_fraction: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_share("val_fraction")
        self.check_share("labelled_val_fraction", zero=True)

    @abstractmethod
    def load(self) -> tuple[ImageSet, ImageSet]:
        """The train and test images; validation is cut from them."""

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

    # --- what the pipeline asks -----------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        test = self.ready.test
        return {
            **super().summary(),
            "test_classes": dict(sorted(Counter(test.classes).items())),
            "n_masks": sum(path is not None for path in test.mask_paths),
        }

    def manifest(self) -> pd.DataFrame:
        """Which image is in which split: path, split, label (NaN = not known), class, mask (None = there is none)."""
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
            for name, images in {**self.parts, **self.targets()}.items()
        ]
        return pd.concat(frames, ignore_index=True)

    # --- loaders --------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        dataset = self._dataset(self.ready.train)
        steps = self.steps_per_epoch
        sampler = ShuffledPasses(
            dataset, n_draws=None if steps is None else steps * self.batch_size, seed=self.seed
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

    def _dataset(self, images: ImageSet, positions: np.ndarray | None = None) -> ImageDataset:
        return ImageDataset(
            images=images, reader=self.reader, stored=self._memory.get(images.paths), positions=positions
        )


def _check_disjoint(splits: ImageSplits) -> None:
    seen: set[object] = set()
    for images in (splits.train, splits.val, splits.test):
        twice = next((path for path in images.paths if path in seen), None)
        if twice is not None:
            raise DataError(f"{twice}: is among the images of two splits; give each folder once")
        seen |= set(images.paths)
