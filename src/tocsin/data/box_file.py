"""All that a data set of images says of boxes, of every category, whatever text it was written in."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tocsin.data.detection_data import DetectionSet, detection_set, find_category
from tocsin.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxFile:
    """Images, categories and the boxes that connect them; every reference is resolved.

    Attributes:
        source: The file, or the folder of text files.
        folder: Folder of the images.
        image_ids: (N,) int64.
        file_names: N paths below the folder.
        sizes: (N, 2) int64, height and width.
        categories: Names by number.
        annotation_ids: (M,) int64.
        owner: (M,) int64, index of the image of each annotation.
        category: (M,) int64, number of its category.
        boxes: (M, 4) float64, left, top, right, bottom in pixels; not checked yet.
        crowd: (M,) bool.
        name_box: Where the box at an index was written, for messages.
    """

    source: Path
    folder: Path
    image_ids: np.ndarray
    file_names: tuple[str, ...]
    sizes: np.ndarray
    categories: dict[int, str]
    annotation_ids: np.ndarray
    owner: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    name_box: Callable[[int], str]

    def __post_init__(self) -> None:
        for name in (*self.categories.values(), *self.file_names):
            if not _storable(name):
                raise DataError(
                    f"{self.source}: the name {name!r} holds characters that are no text; rename it"
                )

    @property
    def paths(self) -> list[Path]:
        """N image files."""
        return [self.folder / name for name in self.file_names]

    def detections(self, category: str | int, *, skip_broken: bool = False) -> DetectionSet:
        """All images, with the boxes of one category.

        Raises:
            ConfigError: There is no such category.
            DataError: A box of it is broken.
        """
        number = find_category(category, self.categories, where=str(self.source))
        return self.of_number(number, skip_broken=skip_broken)

    def of_number(self, number: int, *, skip_broken: bool = False) -> DetectionSet:
        """All images, with the boxes of the category of a number, whether or not it has a name.

        Raises:
            DataError: A box of it is broken.
        """
        chosen = np.flatnonzero(self.category == number)
        return detection_set(
            paths=self.paths,
            sizes=self.sizes,
            boxes=self.boxes[chosen],
            owner=self.owner[chosen],
            crowd=self.crowd[chosen],
            name_box=lambda index: self.name_box(int(chosen[index])),
            skip_broken=skip_broken,
        )


def _storable(name: str) -> bool:
    """Whether databases and file systems take a text: JSON can hold halves of characters, and zeros."""
    return "\0" not in name and not any("\ud800" <= letter <= "\udfff" for letter in name)
