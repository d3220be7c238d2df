"""Images of parts by class of defect: folders or a table, splits that keep copies together, balance, augmentation.

Source: image specification, section 6. Published sets hold several images of one part; with `group_by` they stay on
one side of every split.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import cv2
import numpy as np
import pandas as pd
from torch.utils.data import DataLoader

from tocsin.batch import ClassBatch
from tocsin.data.augmentation import Augmentation
from tocsin.data.cache import Arguments, cached_folder
from tocsin.data.checks import listed
from tocsin.data.class_balance import check_balance, effective_number, inverse_frequency, log_shares
from tocsin.data.class_loader import AugmentedDataset, BalancedPasses, ClassDataset, NumberedPasses
from tocsin.data.class_sets import find_ok_class, read_class_folders, read_class_table, readable
from tocsin.data.class_split import SPLITS, deal_groups, joined_groups, stratified_sample
from tocsin.data.image_data import ImageSet, ImageSplits
from tocsin.data.image_folders import with_groups
from tocsin.data.image_module import ImageSetModule
from tocsin.data.near_duplicates import near_duplicate_groups
from tocsin.data.synthetic import castings as generator
from tocsin.errors import ConfigError, DataError

log = logging.getLogger(__name__)

TABLE = "images.csv"  # of the drawn set


@dataclass(kw_only=True, eq=False, repr=False)
class Defects(ImageSetModule):
    """Learns which class an image is of; without `root`, on a drawn set of castings.

    Attributes:
        root: Folder of folders, each a class, or a CSV file with the columns path,label[,group]; None draws castings.
        ok_class: The class without defects; None takes the one that is called ok, good, normal or the like, if any.
        group_by: What images stay together in a split, beside those of one `group` in a CSV file: `phash` for those
            that look like one part, or a regular expression, which finds a part's name in the stem of a file.
        phash_distance: Bits of 64 by which hashes may differ for a pair to be compared, see `near_duplicates`.
        duplicate_correlation: How alike the two images of a pair must be to show one part.
        val_fraction: Share of each class that validates.
        test_fraction: Share of each class that is for testing.
        balance: What makes up for classes of unequal size: `none`, `sampler` (batches with equal shares), `loss`
            (weights), `logit_adjust` or `effective_number`. Validation and test keep their shares.
        effective_beta: For `effective_number`; the nearer to 1, the more a rare class weighs.
        augment: Transforms of albumentations; a training image goes through them each time it is drawn.
        skip_corrupt: Whether images that cannot be read are left out; else they are an error.
        n_defective: Drawn castings with a defect.
        n_ok: Drawn castings without.
        data_seed: Seed of the drawn castings.
        cache_dir: Where these are kept; None draws them anew.
    """

    kind: ClassVar[str] = "classification"

    height: int = 224
    width: int = 224
    batch_size: int = 32
    score_batch_size: int = 64
    steps_per_epoch: int | None = None

    root: str | Path | None = None
    ok_class: str | None = None
    group_by: str | None = None
    phash_distance: int = 16
    duplicate_correlation: float = 0.95
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    balance: str | list[str] = "none"
    effective_beta: float = 0.999
    augment: list[Any] = field(default_factory=list)
    skip_corrupt: bool = False
    n_defective: int = 480
    n_ok: int = 320
    data_seed: int = 42
    cache_dir: str | Path | None = None
    classes: tuple[str, ...] = field(init=False, default=())
    _augmentation: Augmentation = field(init=False)
    _n_near_duplicates: int | None = field(init=False, default=None)
    _drawn: list[TemporaryDirectory[str]] = field(init=False, default_factory=list)  # gone with this object

    def __post_init__(self) -> None:
        super().__post_init__()
        check_balance(self.balance)
        self.check_share("val_fraction")
        self.check_share("test_fraction")
        if self.val_fraction + self.test_fraction >= 1:
            raise ConfigError(
                f"data.val_fraction={self.val_fraction} and data.test_fraction={self.test_fraction} leave nothing to "
                "learn from; their sum must be below 1"
            )
        self.check_share("effective_beta")
        if not 0 <= self.phash_distance <= 64:
            raise ConfigError(f"data.phash_distance={self.phash_distance} is not in 0 to 64")
        if not 0 < self.duplicate_correlation <= 1:
            raise ConfigError(f"data.duplicate_correlation={self.duplicate_correlation} is not in (0, 1]")
        try:
            re.compile(self.group_by or "")
        except re.error as error:
            raise ConfigError(
                f"data.group_by={self.group_by} is neither phash nor a regular expression: {error}"
            ) from error
        self._augmentation = Augmentation(self.augment, seed=self.seed)

    # --- reading ----------------------------------------------------------------------------------------------

    @property
    def source(self) -> str:
        return (
            "castings"
            if self.root is None
            else "/".join(Path(str(self.root)).absolute().with_suffix("").parts[-2:])
        )

    def setup(self, stage: str | None = None) -> None:
        if self.splits is not None:
            return
        images = self._grouped(self._without_corrupt(self._read()))
        self._name_classes(images)
        if self.ok_class is not None:
            images = replace(images, labels=np.array([name != self.ok_class for name in images.classes]))
        else:
            images = replace(images, labels=None)
        shares = (1 - self.val_fraction - self.test_fraction, self.val_fraction, self.test_fraction)
        dealt = deal_groups(images.classes, images.groups, shares, seed=self.split_seed)
        train, val, test = (images.subset(dealt == index) for index in range(len(SPLITS)))
        self.splits = ImageSplits(train=train, val=val, test=test)
        self._augmentation.check(self.reader.pixels(train.paths[0]))
        self._tell()

    def _read(self) -> ImageSet:
        if self.root is None:
            log.info(
                "data=defects: the castings are drawn; data.root=<folder or CSV file> reads your own images"
            )
            return read_class_table(self._draw() / TABLE)
        root = Path(self.root).expanduser()
        if root.is_dir():
            return read_class_folders(root)
        if root.is_file():
            return read_class_table(root)
        raise DataError(f"data.root={root} is neither a folder nor a CSV file")

    def _without_corrupt(self, images: ImageSet) -> ImageSet:
        good, faults = readable(images)
        if faults and not self.skip_corrupt:
            more = f" ({len(faults)} such files: {listed(_names(images, ~good))})" if len(faults) > 1 else ""
            raise DataError(f"{faults[0]}{more}; or set data.skip_corrupt=true to leave them out")
        if faults:
            log.warning("data.skip_corrupt: %d images are left out: %s", len(faults), listed(faults))
        return images.subset(good)

    def _grouped(self, images: ImageSet) -> ImageSet:
        """The images with a column `group`: those that one of the criteria connects are one group."""
        if self.group_by is None:
            return images
        if self.group_by != "phash":
            found = with_groups(images, self.group_by, option="group_by").groups
        else:
            found = near_duplicate_groups(
                images.paths, distance=self.phash_distance, correlation=self.duplicate_correlation
            )
            sizes = np.bincount(found)
            self._n_near_duplicates = int(sizes[sizes > 1].sum())
        return replace(images, metadata=pd.DataFrame({"group": joined_groups(images.groups, found)}))

    def _name_classes(self, images: ImageSet) -> None:
        """Note the classes, or hold them against those of the trained run."""
        found = sorted(set(images.classes))
        if not self.classes:
            self.classes = tuple(found)
            self.ok_class = find_ok_class(self.classes, self.ok_class)
        if unknown := [name for name in found if name not in self.classes]:
            raise DataError(
                f"{self.source}: the trained model does not know the class {listed(unknown)}; it knows "
                f"{listed(self.classes)}: rename it, leave it out, or train anew"
            )

    def _draw(self) -> Path:
        """Folder of the drawn castings."""
        arguments: Arguments = {"n_defective": self.n_defective, "n_ok": self.n_ok, "seed": self.data_seed}

        def write(folder: Path) -> None:
            try:
                drawn = generator.castings(n_defective=self.n_defective, n_ok=self.n_ok, seed=self.data_seed)
            except ValueError as error:  # an option out of its range
                raise ConfigError(f"data=defects: {error}") from error
            write_castings(drawn, folder)

        if self.cache_dir is not None:
            return cached_folder(
                write, name=generator.__name__, arguments=arguments, cache_dir=self.cache_dir
            )
        self._drawn.append(TemporaryDirectory(prefix="castings-"))
        folder = Path(self._drawn[-1].name)
        write(folder)
        return folder

    # --- what the pipeline asks -------------------------------------------------------------------------------

    def labels(self, images: ImageSet) -> np.ndarray:
        """(N,) int64 class of each image of a set, an index into `classes`."""
        return np.array([self.classes.index(name) for name in images.classes], dtype=np.int64)

    @property
    def ok_index(self) -> int | None:
        """Index of the class without defects; None where there is none."""
        return None if self.ok_class is None else self.classes.index(self.ok_class)

    def dims(self) -> dict[str, Any]:
        """Size, number of classes and, if the balance needs them, `class_weights` or `log_priors` of the classes."""
        counts = np.bincount(self.labels(self.ready.train), minlength=len(self.classes))
        weights = priors = None
        if self.balance == "loss":
            weights = inverse_frequency(counts).tolist()
        elif self.balance == "effective_number":
            weights = effective_number(counts, self.effective_beta).tolist()
        elif self.balance == "logit_adjust":
            priors = log_shares(counts).tolist()
        return {
            **super().dims(),
            "n_classes": len(self.classes),
            "class_weights": weights,
            "log_priors": priors,
        }

    def _tell(self) -> None:
        """Log the classes of the training images, with what balances them."""
        dims = self.dims()
        counts = Counter(self.ready.train.classes)
        values = dims["class_weights"] or dims["log_priors"] or [None] * len(self.classes)
        what = {"loss": "weight", "effective_number": "weight", "logit_adjust": "logit"}.get(
            str(self.balance)
        )
        log.info(
            "data.balance=%s: %s",
            self.balance,
            ", ".join(
                f"{name} {counts[name]} images" + (f", {what} {value:.3f}" if value is not None else "")
                for name, value in zip(self.classes, values, strict=True)
            ),
        )

    def summary(self) -> dict[str, Any]:
        groups = np.concatenate([images.groups for images in self.parts.values()])
        grouped = any(images.metadata is not None for images in self.parts.values())
        return {
            **super().summary(),
            "classes": {
                name: {split: images.classes.count(name) for split, images in self.parts.items()}
                for name in self.classes
            },
            "ok_class": self.ok_class,
            "groups": len(np.unique(groups)) if grouped else None,
            "near_duplicates": self._n_near_duplicates,
            "balance": self.balance,
        }

    def manifest(self) -> pd.DataFrame:
        """Which image is in which split: path, split, class, group (None = groups are not known)."""
        frames = [
            pd.DataFrame(
                {
                    "path": [str(path) for path in images.paths],
                    "split": name,
                    "class": images.classes,
                    "group": None if images.metadata is None else images.groups,
                }
            )
            for name, images in self.parts.items()
        ]
        return pd.concat(frames, ignore_index=True)

    def scoring_state(self) -> dict[str, Any]:
        return {**super().scoring_state(), "classes": list(self.classes), "ok_class": self.ok_class}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.classes, self.ok_class = tuple(state["classes"]), state["ok_class"]

    # --- loaders ----------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[ClassBatch]:
        """Full batches of augmented images."""
        train = self.ready.train
        dataset = AugmentedDataset(**self._shown(train), augmentation=self._augmentation)
        # What is left of a pass comes first in the next epoch; a set smaller than a batch is one batch.
        steps = self.steps_per_epoch or len(train) // self.batch_size
        n_draws = steps * self.batch_size or None
        sampler: NumberedPasses
        if self.balance == "sampler":
            sampler = BalancedPasses(dataset, labels=self.labels(train), n_draws=n_draws, seed=self.seed)
        else:
            sampler = NumberedPasses(dataset, n_draws=n_draws, seed=self.seed)
        if self.trainer is not None:  # a resumed run draws before the Trainer sets the epoch
            sampler.set_epoch(self.trainer.current_epoch)
        return self._loader(dataset, self.batch_size, sampler)

    def val_dataloader(self) -> list[DataLoader[ClassBatch]]:
        """Validation images, and as many training images with the same shares; neither are augmented."""
        train, val = self.ready.train, self.ready.val
        probe = stratified_sample(self.labels(train), min(len(val), len(train)), seed=self.split_seed)
        return [
            self.score_dataloader(val),
            self._loader(ClassDataset(**self._shown(train, probe)), self.score_batch_size),
        ]

    def test_dataloader(self) -> DataLoader[ClassBatch]:
        return self.score_dataloader(self.ready.test)

    def score_dataloader(self, images: ImageSet) -> DataLoader[ClassBatch]:
        """All images of a set in order."""
        return self._loader(ClassDataset(**self._shown(images)), self.score_batch_size)

    def augmented_pictures(self, n_images: int, n_views: int) -> tuple[np.ndarray, np.ndarray]:
        """Training images and what augmentation makes of them.

        Returns:
            originals: (n, H, W, 3) float32, of all classes in turn; n is at most the number of training images.
            views: (n, n_views, H, W, 3) float32.
        """
        train = self.ready.train
        chosen = stratified_sample(self.labels(train), min(n_images, len(train)), seed=self.split_seed)
        dataset = AugmentedDataset(**self._shown(train), augmentation=self._augmentation)
        places = np.repeat(chosen, n_views).tolist()
        views = (
            dataset.__getitems__(list(zip(places, range(len(places)), strict=True)))
            .image.permute(0, 2, 3, 1)
            .numpy()
        )
        return self.pictures(train, chosen.tolist()), views.reshape(len(chosen), n_views, *views.shape[1:])

    def _shown(self, images: ImageSet, positions: np.ndarray | None = None) -> dict[str, Any]:
        """Arguments of a dataset that shows some images of a set, or all."""
        return {
            "images": images,
            "labels": self.labels(images),
            "reader": self.reader,
            "stored": self._memory.get(images.paths),
            "positions": np.arange(len(images)) if positions is None else positions,
        }


def write_castings(drawn: generator.Castings, folder: Path) -> None:
    """Write drawn castings as one folder of PNG files for each class, and a table of them."""
    paths = [f"{label}/{number:04}.png" for number, label in enumerate(drawn.table["label"])]
    for path, image in zip(paths, drawn.images, strict=True):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(cv2.imencode(".png", image)[1].tobytes())
    drawn.table.assign(path=paths).to_csv(folder / TABLE, index=False)


def _names(images: ImageSet, chosen: np.ndarray) -> list[str]:
    return [path.name for path in images.subset(chosen).paths]
