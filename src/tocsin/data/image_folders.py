"""Image sets from folders: the layout of MVTec AD, classes by folder, masks by stem.

Source: image specification, section 5.2. Masks are matched by the stem of their image, never by order, so that a
missing mask costs one mask and not the pairing of all that follow.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tocsin.data.checks import listed, nearest
from tocsin.data.image_data import ImageSet, join_sets
from tocsin.data.image_files import IMAGE_SUFFIXES, image_files
from tocsin.errors import DataError

log = logging.getLogger(__name__)

NORMAL = "good"  # class of normal images in the layout of MVTec


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are left out."""
    return sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def read_mvtec(root: Path, mask_suffix: str | None = None) -> tuple[ImageSet, ImageSet]:
    """Read `train/good`, `test/<class>` and `ground_truth/<class>`; all classes but `good` are anomalous.

    Args:
        root: Of one category. `test` and `ground_truth` may be missing, in whole or in part.
        mask_suffix: As in `match_masks`.

    Returns:
        Train and test images.

    Raises:
        DataError: There is no `train/good` with images.
    """
    if not (root / "train" / NORMAL).is_dir():
        raise DataError(
            f"{root}: has no folder train/{NORMAL}, so the layout is not that of MVTec; it holds the folders "
            f"{listed(subfolders(root)) or 'none'}; set data.root to the folder above train, or name the folders in "
            "data.normal_dir and data.abnormal_dir"
        )
    left_out = [name for name in subfolders(root / "train") if name != NORMAL]
    if left_out:
        log.warning("%s: only train/%s is learned from, not %s", root, NORMAL, listed(left_out))
    train = read_class(root / "train" / NORMAL, anomalous=False)
    test = []
    for name in subfolders(root / "test") if (root / "test").is_dir() else []:
        folder, truth = root / "test" / name, root / "ground_truth" / name
        masks: dict[Path, Path] = {}
        if name != NORMAL and truth.is_dir():
            masks = match_masks(image_files(folder), image_files(truth), mask_suffix)
        test.append(read_class(folder, anomalous=name != NORMAL, masks=masks))
    return train, join_sets(*test)


def find_folders(root: Path, names: str | Sequence[str] | None, option: str) -> list[Path]:
    """The folders that an option names.

    Args:
        root: Folder that they are in.
        names: One, several or none.
        option: Of the data, for the message.

    Raises:
        DataError: One of them is not there.
    """
    names = [names] if isinstance(names, str) else list(names or ())
    for name in names:
        if not (root / name).is_dir():
            there = subfolders(root)
            raise DataError(
                f"{root}: data.{option} names the folder '{name}', which is not there{nearest(name, there)}; folders "
                f"there: {listed(there) or 'none'}"
            )
    return [root / name for name in names]


def read_class(folder: Path, *, anomalous: bool, masks: Mapping[Path, Path] | None = None) -> ImageSet:
    """All images of a folder as one class, named like the folder.

    Args:
        folder: Files that are no images, hidden files and sub-folders are left alone.
        anomalous: The label of all.
        masks: The mask of each image that has one. Files that are masks of others are no images.

    Raises:
        DataError: The folder holds no image.
    """
    masks = masks or {}
    paths = [path for path in image_files(folder) if path not in masks.values()]
    if not paths:
        raise DataError(f"{folder}: holds no image; supported: {', '.join(IMAGE_SUFFIXES)}")
    return ImageSet(
        paths=tuple(paths),
        labels=np.full(len(paths), anomalous),
        mask_paths=tuple(masks.get(path) for path in paths),
        classes=(folder.name,) * len(paths),
    )


def match_masks(images: Sequence[Path], candidates: Sequence[Path], suffix: str | None) -> dict[Path, Path]:
    """Match masks to images by stem.

    Args:
        images: Files of one class.
        candidates: Files that may be masks; may be the images themselves, where masks lie among them.
        suffix: End of a mask's name after the stem of its image; None for the same stem, or the stem and `_mask`, of
            any type.

    Returns:
        The mask of each image that has one.

    Raises:
        DataError: An image has two masks, or none of the candidates is a mask.
    """
    by_stem: dict[str, Path] = {}
    for path in candidates:
        if suffix is not None and not path.name.endswith(suffix):
            continue
        stem = path.stem.removesuffix("_mask") if suffix is None else path.name.removesuffix(suffix)
        if stem in by_stem:
            raise DataError(
                f"{path}: {by_stem[stem].name} is a mask of the same image; keep one, or set data.mask_suffix"
            )
        by_stem[stem] = path
    found = {
        path: by_stem[path.stem] for path in images if path.stem in by_stem and by_stem[path.stem] != path
    }
    if not images:
        return {}
    unused = [path.name for path in candidates if path not in images and path not in found.values()]
    if unused and not found:
        raise DataError(
            f"{candidates[0].parent}: no file there is named after an image of {images[0].parent}, not {unused[0]} "
            "either; name masks like their image, or set data.mask_suffix"
        )
    if unused:
        log.warning("%s: no image belongs to %s", candidates[0].parent, listed(unused))
    return found


def with_groups(images: ImageSet, pattern: str, option: str = "group_pattern") -> ImageSet:
    """The images with a column `group` in their metadata.

    Args:
        images: N images.
        pattern: Regular expression; what it finds in the stem of a file, or its first group, is the group's name.
        option: Of the data that holds the pattern, for the message.

    Raises:
        DataError: It finds nothing in a stem.
    """
    groups = []
    for path in images.paths:
        match = re.search(pattern, path.stem)
        if match is None:
            raise DataError(f"{path}: data.{option}={pattern} finds nothing in {path.stem}; mend the pattern")
        groups.append(match[1 if match.re.groups else 0])
    known = pd.DataFrame(index=range(len(images))) if images.metadata is None else images.metadata
    return ImageSet(
        paths=images.paths,
        labels=images.labels,
        mask_paths=images.mask_paths,
        classes=images.classes,
        metadata=known.assign(group=groups),
    )
