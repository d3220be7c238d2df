"""A set of images with the boxes of the objects in them, whatever format they were stored in, and its shares."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from tocsin.data.checks import listed, nearest, one_line
from tocsin.errors import ConfigError, DataError

log = logging.getLogger(__name__)

OVERHANG = 1.0  # pixels by which rounding may push a box over the border of its image


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionSet:
    """Image files in a fixed order and the boxes of one class in them, those of all images one after another.

    Attributes:
        paths: N files.
        sizes: (N, 2) int64, height and width in pixels as stored.
        boxes: (M, 4) float32, left, top, right, bottom in pixels of the stored image, inside it.
        owner: (M,) int64, index of the image a box belongs to, ascending.
        crowd: (M,) bool, whether a box holds a group.
    """

    paths: tuple[Path, ...]
    sizes: np.ndarray
    boxes: np.ndarray
    owner: np.ndarray
    crowd: np.ndarray

    def __post_init__(self) -> None:
        n_images, n_boxes = len(self.paths), len(self.boxes)
        if self.sizes.shape != (n_images, 2) or self.boxes.shape != (n_boxes, 4):
            raise ValueError(
                f"sizes {self.sizes.shape} and boxes {self.boxes.shape} for {n_images} images; "
                "(N, 2) and (M, 4) are needed"
            )
        if not len(self.owner) == len(self.crowd) == n_boxes or (np.diff(self.owner) < 0).any():
            raise ValueError("owner and crowd need one entry for each box, owner in ascending order")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def counts(self) -> np.ndarray:
        """(N,) int64 boxes in each image."""
        return np.bincount(self.owner, minlength=len(self))

    def subset(self, indices: Sequence[int] | np.ndarray) -> "DetectionSet":
        """The images at (K,) indices, each at most once, in that order; a (N,) bool array picks where it is true."""
        chosen = np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        place = np.full(len(self), -1)
        place[chosen] = np.arange(len(chosen))
        moved = place[self.owner]  # (M,), -1 where the image is left out
        kept = np.flatnonzero(moved >= 0)
        kept = kept[np.argsort(moved[kept], kind="stable")]
        return DetectionSet(
            paths=tuple(self.paths[index] for index in chosen.tolist()),
            sizes=self.sizes[chosen],
            boxes=self.boxes[kept],
            owner=moved[kept],
            crowd=self.crowd[kept],
        )


def detection_set(
    *,
    paths: Sequence[Path],
    sizes: np.ndarray,
    boxes: np.ndarray,
    owner: np.ndarray,
    crowd: np.ndarray,
    name_box: Callable[[int], str],
    skip_broken: bool,
) -> DetectionSet:
    """Make a set of what a reader found: boxes in order of their images, checked, and cut at the border.

    Args:
        paths: N files.
        sizes: (N, 2) height and width.
        boxes: (M, 4), left, top, right, bottom in pixels, in any order.
        owner: (M,) index of the image of each.
        crowd: (M,) bool.
        name_box: Says where the box at an index was written: file, and annotation or line.
        skip_broken: Whether broken boxes are left out, with a warning; else they are an error.

    Raises:
        DataError: A box has no area or lies outside its image, named with all that is wrong.
    """
    owner = np.asarray(owner, np.int64)
    inside, kept = checked_boxes(boxes, sizes[owner], name_box=name_box, skip_broken=skip_broken)
    kept = kept[np.argsort(owner[kept], kind="stable")]
    return DetectionSet(
        paths=tuple(paths),
        sizes=np.asarray(sizes, np.int64).reshape(-1, 2),
        boxes=inside[kept].astype(np.float32),
        owner=owner[kept],
        crowd=np.asarray(crowd)[kept].astype(bool),
    )


def checked_boxes(
    boxes: np.ndarray, sizes: np.ndarray, *, name_box: Callable[[int], str], skip_broken: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Check boxes, and cut them at the border of their images.

    Args:
        boxes: (M, 4), left, top, right, bottom in pixels.
        sizes: (M, 2) height and width of the image of each.
        name_box: As for `detection_set`.
        skip_broken: As for `detection_set`.

    Returns:
        inside: (M, 4) float64, the boxes as cut.
        kept: (K,) int64, those that are sound.

    Raises:
        DataError: A box is broken.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    edges = np.tile(sizes[:, ::-1], 2).astype(np.float64)  # (M, 4): width, height, width, height
    inside = boxes.clip(0, edges)
    with np.errstate(invalid="ignore"):  # NaN is broken, too
        sound = (inside[:, 2:] > inside[:, :2]).all(1) & (np.abs(inside - boxes) <= OVERHANG).all(1)
    broken = np.flatnonzero(~sound)
    if len(broken):
        first = int(broken[0])
        more = f" (one of {len(broken)} such boxes)" if len(broken) > 1 else ""
        fault = f"{name_box(first)}{more}: {_fault(boxes[first], edges[first])}"
        if not skip_broken:
            raise DataError(
                f"{fault}; mend it, or leave such boxes out (data.skip_broken=true, import --skip-broken)"
            )
        log.warning(
            "%d broken box%s left out: %s", len(broken), "es are" if len(broken) > 1 else " is", fault
        )
    return inside, np.flatnonzero(sound)


def _fault(box: np.ndarray, edges: np.ndarray) -> str:
    """What is wrong with a (4,) box in an image of (4,) width, height, width, height."""
    left, top, right, bottom = box
    size = f"{right - left:g} x {bottom - top:g} pixels"
    if not np.isfinite(box).all():
        return "the box holds NaN or infinite numbers"
    if right <= left or bottom <= top:
        return f"the box is {size} large, width x height"
    return (
        f"the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) is not inside its image of "
        f"{edges[0]:g} x {edges[1]:g} pixels, width x height"
    )


def find_category(asked: str | int, categories: Mapping[int, str], *, where: str) -> int:
    """Number of a category that was asked for by name or by number.

    Args:
        asked: Name in any case, or number.
        categories: Names by number.
        where: File or data set, for the message.

    Raises:
        ConfigError: There is none, or several have that name.
    """
    number = int(asked) if str(asked).isdecimal() else None
    if number is not None and number in categories:
        return number
    found = [number for number, name in categories.items() if name.lower() == str(asked).lower()]
    if len(found) > 1:
        raise ConfigError(
            f"{where}: categories {listed(list(map(str, found)))} are all called '{asked}'; give one by its number: "
            f"data.category={found[0]}"
        )
    if not found:
        known = [f"{number} {name}" for number, name in sorted(categories.items())]
        guess = nearest(str(asked), list(categories.values()))
        raise ConfigError(
            f"{where}: data.category={asked} is not there{guess}; it has {listed(known) or 'no category'}"
        )
    return found[0]


def check_image_files(folder: Path, names: Sequence[str], *, where: str) -> None:
    """Check that every image has a file of its own below a folder.

    Raises:
        DataError: Two images have one file, or a file is elsewhere or missing.
    """
    name, count = Counter(names).most_common(1)[0] if names else ("", 1)
    if count > 1:
        raise DataError(
            f"{where}: {name} is the file of {count} images; one image would be in several splits: leave one entry"
        )
    outside = [
        name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
    ]
    if outside:
        raise DataError(
            f"{where}: {outside[0]} leads out of {folder}; give file names relative to that folder"
        )
    missing = [name for name in names if not _is_file(folder / name)]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {len(names)} images are not in {folder}: {listed(missing)}; copy them "
            "there, name another folder (data.images), or take their entries out"
        )


def _is_file(path: Path) -> bool:
    """Whether there is a file; none can have a name that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def stored_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, from its header.

    Raises:
        DataError: The file is missing, or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path}: is damaged or no image; copy it again, or take it out of the folder"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from error
    return height, width


def check_stored_sizes(images: DetectionSet) -> None:
    """Check, by their headers, that the files have the sizes that boxes were drawn on.

    Raises:
        DataError: A file has another size, or cannot be read.
    """
    for path, (height, width) in zip(images.paths, images.sizes.tolist(), strict=True):
        stored = stored_size(path)
        if stored != (height, width):
            raise DataError(
                f"{path}: is {stored[1]} x {stored[0]} pixels, but its boxes were drawn on {width} x {height} "
                "(width x height); give the image that was annotated"
            )
