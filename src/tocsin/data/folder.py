"""Images of the user: the layout of MVTec AD, or folders that the options name."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from tocsin.data.image_base import ImageDataModule
from tocsin.data.image_data import ImageSet, draw_share, join_sets
from tocsin.data.image_files import image_files
from tocsin.data.image_folders import find_folders, match_masks, read_class, read_mvtec, with_groups
from tocsin.errors import ConfigError, DataError

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False, repr=False)
class ImageFolder(ImageDataModule):
    """Normal images to learn from; normal and anomalous ones, with or without masks, to test on.

    Without `normal_dir`, `root` has the layout of MVTec: `train/good`, `test/<class>` and, where there are masks,
    `ground_truth/<class>`.

    Attributes:
        root: Folder that the others are in.
        normal_dir: Folder, or folders, of normal images.
        abnormal_dir: Folder, or folders, of anomalous test images, each a class; None where there are none.
        normal_test_dir: Folder, or folders, of normal test images.
        normal_test_fraction: Where there are none: share of the normal images that are for testing.
        mask_dir: Folder of the masks, or of a folder of masks for each folder of anomalous images.
        mask_suffix: End of a mask's name after the stem of its image, such as `_mask.png`; None takes the same stem,
            or the stem and `_mask`, of any type. Given without `mask_dir`, the masks lie beside the images.
        group_pattern: Regular expression. What it finds in the stem of a file (its first group, if it has one) names
            what the image shows, and all images of one object stay on one side of every split.
    """

    root: str | Path | None = None
    normal_dir: str | list[str] | None = None
    abnormal_dir: str | list[str] | None = None
    normal_test_dir: str | list[str] | None = None
    normal_test_fraction: float = 0.2
    mask_dir: str | None = None
    mask_suffix: str | None = None
    group_pattern: str | None = None

    @property
    def source(self) -> str:
        return "/".join(Path(str(self.root)).absolute().parts[-2:])

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_share("normal_test_fraction", zero=True)
        if self.normal_dir is None and (self.abnormal_dir or self.normal_test_dir or self.mask_dir):
            raise ConfigError(
                "data.abnormal_dir, data.normal_test_dir and data.mask_dir need data.normal_dir"
            )
        try:
            re.compile(self.group_pattern or "")
        except re.error as error:
            raise ConfigError(
                f"data.group_pattern={self.group_pattern} is no regular expression: {error}"
            ) from error

    def load(self) -> tuple[ImageSet, ImageSet]:
        if self.root is None:
            raise ConfigError("data=folder needs data.root=<folder of images>")
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise DataError(f"data.root={root} is not a folder")
        train, test = read_mvtec(root, self.mask_suffix) if self.normal_dir is None else self._named(root)
        if self.group_pattern is not None:
            train, test = with_groups(train, self.group_pattern), with_groups(test, self.group_pattern)
        if not test.normal.any():
            held_out = draw_share(train, self.normal_test_fraction, self.split_seed)
            train, test = train.subset(~held_out), join_sets(train.subset(held_out), test)
        _tell_of_missing_masks(test)
        return train, test

    def _named(self, root: Path) -> tuple[ImageSet, ImageSet]:
        """Train and test images of the folders that the options name."""
        normal = find_folders(root, self.normal_dir, "normal_dir")
        normal_test = find_folders(root, self.normal_test_dir, "normal_test_dir")
        abnormal = find_folders(root, self.abnormal_dir, "abnormal_dir")
        train = join_sets(*[read_class(folder, anomalous=False) for folder in normal])
        test = join_sets(
            *[read_class(folder, anomalous=False) for folder in normal_test],
            *[read_class(folder, anomalous=True, masks=self._masks(root, folder)) for folder in abnormal],
        )
        masks = [path for path in test.mask_paths if path is not None]
        if len(set(masks)) < len(masks):
            twice = next(path for path in masks if masks.count(path) > 1)
            raise DataError(
                f"{twice}: is the mask of images in several folders; give data.mask_dir a folder for each of them"
            )
        return train, test

    def _masks(self, root: Path, folder: Path) -> dict[Path, Path]:
        """The masks of a folder of anomalous images."""
        if self.mask_dir is None:
            beside = self.mask_suffix is not None
            return match_masks(image_files(folder), image_files(folder), self.mask_suffix) if beside else {}
        (masks,) = find_folders(root, self.mask_dir, "mask_dir")
        own = masks / folder.name
        return match_masks(image_files(folder), image_files(own if own.is_dir() else masks), self.mask_suffix)


def _tell_of_missing_masks(test: ImageSet) -> None:
    has_mask = [
        path is not None for path, normal in zip(test.mask_paths, test.normal, strict=True) if not normal
    ]
    if any(has_mask) and not all(has_mask):
        log.info(
            "%d of %d anomalous images have no mask: pixel metrics leave them out",
            len(has_mask) - sum(has_mask),
            len(has_mask),
        )
