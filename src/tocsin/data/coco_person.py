"""Images with people for attacks with patches: COCO, YOLO text files, an SQL catalogue, or drawn figures.

Source: image specification, sections 7.7 and 7.8. Test images are never trained on. Images without a target are
tested and validated on, since a detector must find nothing in them, but not trained on.
"""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch.utils.data import DataLoader

from tocsin.batch import DetectionBatch
from tocsin.data.cache import Arguments, cached_folder
from tocsin.data.coco_json import read_coco
from tocsin.data.detection_data import DetectionSet, check_stored_sizes
from tocsin.data.detection_files import INSTANCES, read_detections, write_figures
from tocsin.data.detection_loader import DetectionDataset, SquareBoxes, square_boxes
from tocsin.data.detection_split import SPLITS, DetectionSplits, by_name, deal
from tocsin.data.image_loader import ImageCache, ShuffledPasses
from tocsin.data.letterbox import SquareReader
from tocsin.data.module import DataModule
from tocsin.data.synthetic import figures as generator
from tocsin.errors import ConfigError, DataError

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False, repr=False)
class CocoPerson(DataModule):
    """Square images with the people in them; without `root`, drawn figures.

    Attributes:
        root: Folder with `instances.json` and `images/` (COCO) or with `images/` and `labels/` (YOLO), a COCO file
            `.json`, or the URL of a catalogue, such as `sqlite:///person.db`; None draws figures.
        images: Folder of the images of a COCO file or catalogue; None takes `images` beside the file, and where the
            catalogue says.
        dataset: Name in the catalogue; None where it holds only one.
        category: Name or number of the objects that wear patches.
        size: S, pixels of a side of the square images, a multiple of 32.
        min_height: Least height of an object that may wear a patch, in pixels of the square image.
        max_boxes: Most objects of an image that wear one, the largest; the others still count in evaluation.
        max_images: Images to draw from the set, for a quick look; None takes all.
        skip_broken: Whether boxes without area or outside their image are left out; else they are an error.
        val_fraction: Share of the images not tested on that validate.
        test_fraction: Share of the images to test on.
        batch_size: Images in a training batch.
        score_batch_size: Images in a scoring batch.
        steps_per_epoch: Batches of an epoch, drawn from shuffled passes one after another; None for one pass.
        split_seed: Seed of the splits and of `max_images`; not `seed`, so that runs of several seeds are tested on
            the same images.
        cache: Whether decoded images are kept in memory, as 8 bits.
        cache_mb: Most memory for them.
        num_workers: Loader processes; 0 is fastest where the images are in memory.
        seed: Seed of the shuffling.
        n_images: Drawn images.
        data_seed: Seed of the drawn images.
        cache_dir: Where these are kept; None draws them anew.
    """

    kind: ClassVar[str] = "detection"

    root: str | Path | None = None
    images: str | Path | None = None
    dataset: str | None = None
    category: str | int = "person"
    size: int = 320
    min_height: float = 32
    max_boxes: int = 14
    max_images: int | None = None
    skip_broken: bool = False
    val_fraction: float = 0.15
    test_fraction: float = 1 / 3
    batch_size: int = 8
    score_batch_size: int = 16
    steps_per_epoch: int | None = None
    split_seed: int = 42
    cache: bool = True
    cache_mb: int = 4096
    num_workers: int = 0
    seed: int = 42
    n_images: int = 240
    data_seed: int = 42
    cache_dir: str | Path | None = None
    reader: SquareReader = field(init=False)
    splits: DetectionSplits | None = field(init=False, default=None)
    _memory: ImageCache = field(init=False)
    _unused: DetectionSet | None = field(init=False, default=None)  # training images without a target
    _drawn: list[TemporaryDirectory[str]] = field(init=False, default_factory=list)  # gone with this object

    def __post_init__(self) -> None:
        super().__init__()
        self.check_positive("batch_size", "score_batch_size", "cache_mb", "max_boxes")
        for name in ("steps_per_epoch", "max_images"):
            if getattr(self, name) is not None:
                self.check_positive(name)
        for name in ("val_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"data.{name}={getattr(self, name)} is not between 0 and 1")
        if self.min_height < 0:
            raise ConfigError(f"data.min_height={self.min_height} is below 0")
        self._read_at(self.size)

    def _read_at(self, size: int) -> None:
        self.size, self.reader = size, SquareReader(size=size)
        self._memory = ImageCache(self.reader, self.cache_mb if self.cache else 0)

    # --- reading ----------------------------------------------------------------------------------------------

    @property
    def source(self) -> str:
        """Data set, as the tables of a sweep name it."""
        if self.root is None:
            return "figures"
        if self.dataset is not None:
            return self.dataset
        path = Path(str(self.root).rsplit("://", 1)[-1]).absolute()
        return path.parent.name if path.name == INSTANCES else path.stem

    def setup(self, stage: str | None = None) -> None:
        if self.splits is not None:
            return
        images = by_name(self._read(), limit=self.max_images, seed=self.split_seed)
        check_stored_sizes(images)
        worn = self.squares(images).n_targets > 0
        dealt = deal(worn, test=self.test_fraction, val=self.val_fraction, seed=self.split_seed)
        self._check(worn, dealt)
        train, val, test = (images.subset(dealt == index) for index in range(len(SPLITS)))
        wears = self.squares(train).n_targets > 0
        self._unused = train.subset(~wears)
        self.splits = DetectionSplits(train=train.subset(wears), val=val, test=test)
        self._tell()

    def _read(self) -> DetectionSet:
        if self.root is not None:
            return read_detections(
                self.root,
                images=self.images,
                dataset=self.dataset,
                category=self.category,
                skip_broken=self.skip_broken,
            )
        for name in ("images", "dataset"):
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"data.{name}={getattr(self, name)} needs data.root; without it figures are drawn"
                )
        log.info(
            "data=coco_person: figures are drawn; data.root=<folder, file or database> reads your own images"
        )
        return read_coco(self._draw() / INSTANCES).detections(self.category)

    def _draw(self) -> Path:
        """Folder of the drawn images."""
        arguments: Arguments = {"n_images": self.n_images, "size": self.size, "seed": self.data_seed}

        def write(folder: Path) -> None:
            try:
                drawn = generator.figures(n_images=self.n_images, size=self.size, seed=self.data_seed)
            except ValueError as error:  # an option out of its range
                raise ConfigError(f"data=coco_person: {error}") from error
            write_figures(drawn, folder)

        if self.cache_dir is not None:
            return cached_folder(
                write, name=generator.__name__, arguments=arguments, cache_dir=self.cache_dir
            )
        self._drawn.append(TemporaryDirectory(prefix="figures-"))
        folder = Path(self._drawn[-1].name)
        write(folder)
        return folder

    def _check(self, worn: np.ndarray, dealt: np.ndarray) -> None:
        """Every split has an image with a target."""
        for index, name in enumerate(SPLITS):
            if not worn[dealt == index].any():
                raise DataError(
                    f"{self.source}: {worn.sum()} of {len(worn)} images show a target ({self.category}, "
                    f"{self.min_height:g} pixels high or more at data.size={self.size}), and none of them is left "
                    f"for {name}; give more images, or lower data.min_height"
                )

    def _tell(self) -> None:
        log.info(
            "data=coco_person: %s",
            "; ".join(
                f"{name} {len(images)} images, {len(images.boxes)} boxes, {self.squares(images).target.sum()} targets"
                for name, images in self.parts.items()
            ),
        )

    # --- what the pipeline asks -------------------------------------------------------------------------------

    @property
    def ready(self) -> DetectionSplits:
        """The splits, once `setup` has run."""
        if self.splits is None:
            raise RuntimeError("call setup() before using the splits")
        return self.splits

    @property
    def parts(self) -> dict[str, DetectionSet]:
        """The splits by name."""
        return {"train": self.ready.train, "val": self.ready.val, "test": self.ready.test}

    def squares(self, images: DetectionSet) -> SquareBoxes:
        """Boxes of a set in the square images, with its targets."""
        return square_boxes(images, size=self.size, min_height=self.min_height, max_boxes=self.max_boxes)

    def dims(self) -> dict[str, Any]:
        return {"image_size": self.size}

    def summary(self) -> dict[str, Any]:
        squares = [self.squares(images) for images in self.parts.values()]
        return {
            "source": self.source,
            "fingerprint": self.fingerprint(),
            **{f"n_{name}": len(images) for name, images in self.parts.items()},
            "n_boxes": sum(len(boxes.boxes) for boxes in squares),
            "n_targets": int(sum(boxes.target.sum() for boxes in squares)),
        }

    def fingerprint(self) -> str:
        """Hash of names, contents, boxes and splits of all images; another place on disk changes nothing."""
        common = os.path.commonpath([path.parent for images in self.parts.values() for path in images.paths])
        digest = hashlib.blake2b(digest_size=16)
        for name, images in self.parts.items():
            for path in images.paths:
                content = path.read_bytes()
                digest.update(f"{name}\n{path.relative_to(common).as_posix()}\n{len(content)}\n".encode())
                digest.update(content)
            squares = self.squares(images)
            for array in (squares.counts, squares.boxes, squares.target, squares.crowd):
                digest.update(array.tobytes())
        return digest.hexdigest()

    def manifest(self) -> pd.DataFrame:
        """Which image is in which split, with its boxes and targets; `unused` would train, but shows no target."""
        parts = {**self.parts, **({} if self._unused is None else {"unused": self._unused})}
        frames = [
            pd.DataFrame(
                {
                    "path": [str(path) for path in images.paths],
                    "split": name,
                    "boxes": images.counts,
                    "targets": self.squares(images).n_targets,
                }
            )
            for name, images in parts.items()
        ]
        return pd.concat(frames, ignore_index=True)

    def scoring_state(self) -> dict[str, Any]:
        return {"size": self.size, "min_height": self.min_height, "max_boxes": self.max_boxes}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.min_height, self.max_boxes = state["min_height"], state["max_boxes"]
        self._read_at(state["size"])

    def single_pass(self) -> None:
        self.steps_per_epoch = None

    # --- loaders ----------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[DetectionBatch]:
        """Full batches of shuffled images, each with a target."""
        dataset = self._dataset(self.ready.train)
        # What is left of a pass comes first in the next epoch; a set smaller than a batch is one batch.
        steps = self.steps_per_epoch or len(dataset) // self.batch_size
        sampler = ShuffledPasses(dataset, n_draws=steps * self.batch_size or None, seed=self.seed)
        if self.trainer is not None:  # a resumed run draws before the Trainer sets the epoch
            sampler.set_epoch(self.trainer.current_epoch)
        return self._loader(dataset, self.batch_size, sampler)

    def val_dataloader(self) -> DataLoader[DetectionBatch]:
        return self.score_dataloader(self.ready.val)

    def test_dataloader(self) -> DataLoader[DetectionBatch]:
        return self.score_dataloader(self.ready.test)

    def score_dataloader(self, images: DetectionSet) -> DataLoader[DetectionBatch]:
        """All images of a set in order."""
        return self._loader(self._dataset(images), self.score_batch_size)

    def pictures(self, images: DetectionSet, positions: Sequence[int]) -> np.ndarray:
        """(n, S, S, 3) float32 images in [0, 1] at some positions of a set, as a detector sees them."""
        pixels = self._dataset(images).pixels(np.asarray(positions))
        return (pixels.permute(0, 2, 3, 1).float() / 255).numpy()

    def _dataset(self, images: DetectionSet) -> DetectionDataset:
        return DetectionDataset(
            images=images,
            squares=self.squares(images),
            reader=self.reader,
            stored=self._memory.get(images.paths),
        )
