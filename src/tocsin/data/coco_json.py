"""Boxes from a COCO instances file.

Source: image specification, section 7.8. Each entry of `annotations` holds a box [x, y, width, height] in pixels;
`iscrowd` marks a group. An annotation without a box gets that of its mask, polygons or run lengths, by pycocotools.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tocsin.data.box_file import BoxFile
from tocsin.data.checks import one_line
from tocsin.data.detection_data import check_image_files, stored_size
from tocsin.errors import DataError

MAX_NUMBER = 2**53  # beyond it JSON's numbers are not exact, and a database takes 2**63 at most
SECTIONS = ("images", "annotations", "categories")


def read_coco(source: str | Path, folder: str | Path | None = None, *, masks: bool = True) -> BoxFile:
    """Read a COCO instances file.

    Args:
        source: The JSON file.
        folder: Folder of the images; None takes `images` beside the file.
        masks: Whether an annotation without a box gets that of its mask, by compiled code that trusts it; else it is
            an error, as it should be with files of strangers.

    Raises:
        DataError: The file or folder is missing, no COCO file, or contradicts itself; an image of it is missing.
    """
    source = Path(source).expanduser()
    folder = source.parent / "images" if folder is None else Path(folder).expanduser()
    content = _load(source)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: is no folder; name the folder of the images of {source.name} (data.images)"
        )
    images, annotations, categories = (_Entries(source, name, content[name]) for name in SECTIONS)
    image_ids, category_ids = images.numbers("id"), categories.numbers("id")
    names = images.texts("file_name")
    _check_unique(source, "image", image_ids)
    _check_unique(source, "category", category_ids)
    check_image_files(folder, names, where=str(source))
    sizes = _sizes(images, folder, names)
    owner = _places(annotations, "image_id", image_ids)
    category = category_ids[_places(annotations, "category_id", category_ids)]
    boxes = _boxes(annotations, sizes[owner], masks=masks)
    ids = annotations.numbers("id") if annotations.have("id") else np.arange(len(boxes))
    return BoxFile(
        source=source,
        folder=folder,
        image_ids=image_ids,
        file_names=tuple(names),
        sizes=sizes,
        categories=dict(zip(category_ids.tolist(), categories.texts("name"), strict=True)),
        annotation_ids=ids,
        owner=owner,
        category=category,
        boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),  # (M, 4) from x, y, w, h
        crowd=np.array([bool(entry.get("iscrowd", 0)) for entry in annotations.entries], dtype=bool),
        name_box=lambda index: f"{source}: annotation {ids[index]} of {names[owner[index]]}",
    )


# --- parts of the file --------------------------------------------------------------------------------------


def _load(source: Path) -> dict[str, Any]:
    try:
        content = json.loads(source.read_bytes())
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror or one_line(error)}") from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # of JSON, of the text's encoding, or of lists in lists in lists
        raise DataError(f"{source}: is no JSON file: {one_line(error)}") from error
    lists = isinstance(content, dict) and all(isinstance(content.get(name), list) for name in SECTIONS)
    if not lists:
        raise DataError(f"{source}: is no COCO instances file; it needs the lists {', '.join(SECTIONS)}")
    return dict(content)


@dataclass(frozen=True)
class _Entries:
    """A list of the file, whose columns are checked as they are taken.

    Attributes:
        source: The file.
        name: Of the list.
        entries: M dictionaries.
    """

    source: Path
    name: str
    entries: list[dict[str, Any]]

    def __post_init__(self) -> None:
        for index, entry in enumerate(self.entries):
            if not isinstance(entry, dict):
                raise self.fault(index, f"is {type(entry).__name__}, not an object with keys")

    def fault(self, index: int, what: str) -> DataError:
        """An error of the entry at an index."""
        entry = self.entries[index]
        name = f" (id {_shown(entry['id'])})" if isinstance(entry, dict) and "id" in entry else ""
        return DataError(f"{self.source}: {self.name}[{index}]{name} {what}")

    def have(self, key: str) -> bool:
        """Whether every entry has a key."""
        return all(key in entry for entry in self.entries)

    def numbers(self, key: str) -> np.ndarray:
        """(M,) int64 of a key."""
        values = [entry.get(key) for entry in self.entries]
        for index, value in enumerate(values):
            if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_NUMBER:
                given = f"has {key}={_shown(value)}" if key in self.entries[index] else f"has no '{key}'"
                raise self.fault(index, f"{given}; a whole number is needed")
        return np.array(values, dtype=np.int64)

    def texts(self, key: str) -> list[str]:
        """M texts of a key."""
        values = [entry.get(key) for entry in self.entries]
        for index, value in enumerate(values):
            if not isinstance(value, str) or not value:
                raise self.fault(index, f"has no '{key}'; a text is needed")
        return [str(value) for value in values]


def _check_unique(source: Path, what: str, ids: np.ndarray) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise DataError(
            f"{source}: {what} id {values[counts > 1][0]} is given {counts.max()} times; ids must differ"
        )


def _sizes(images: _Entries, folder: Path, names: Sequence[str]) -> np.ndarray:
    """(N, 2) int64 height and width, from the file or else from the images."""
    if images.have("height") and images.have("width"):
        sizes = np.stack([images.numbers("height"), images.numbers("width")], axis=1)  # (N, 2)
        if (sizes < 1).any():
            index = int(np.flatnonzero((sizes < 1).any(1))[0])
            raise images.fault(index, "has a height or width below 1")
        return sizes
    return np.array([stored_size(folder / name) for name in names], dtype=np.int64).reshape(-1, 2)


def _places(annotations: _Entries, key: str, ids: np.ndarray) -> np.ndarray:
    """(M,) int64 index among (N,) ids of what each annotation refers to."""
    asked = annotations.numbers(key)
    order = np.argsort(ids)
    found = np.searchsorted(ids[order], asked).clip(max=max(0, len(ids) - 1))
    places: np.ndarray = order[found] if len(ids) else np.zeros(len(asked), dtype=np.int64)
    known = ids[places] == asked if len(ids) else np.zeros(len(asked), dtype=bool)
    if not known.all():
        index = int(np.flatnonzero(~known)[0])
        raise annotations.fault(index, f"refers to {key}={asked[index]}, which is not in the file")
    return places


def _boxes(annotations: _Entries, sizes: np.ndarray, *, masks: bool) -> np.ndarray:
    """(M, 4) float64 x, y, width, height."""
    boxes = []
    for index, entry in enumerate(annotations.entries):
        box = entry.get("bbox")
        if box is None and masks and entry.get("segmentation"):
            box = _mask_box(entry["segmentation"], *sizes[index].tolist())
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            raise annotations.fault(
                index, f"has bbox={_shown(box)}; four numbers x, y, width, height are needed"
            )
        boxes.append(box)
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _shown(value: Any) -> str:
    """A value as it is written, cut where it is long."""
    kind = type(value).__name__
    if isinstance(value, dict) or (isinstance(value, int) and abs(value) > MAX_NUMBER):
        return kind if isinstance(value, dict) else "a huge number"
    text = repr(value[:5] if isinstance(value, list) else value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a double holds."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= MAX_NUMBER)


def _mask_box(segmentation: Any, height: int, width: int) -> list[float] | None:
    """x, y, width, height of a mask as polygons or run lengths; None where it is neither."""
    from pycocotools import mask  # compiled, and hardly ever needed

    polygons = isinstance(segmentation, list) and all(
        isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 for part in segmentation
    )
    lengths = isinstance(segmentation, dict) and {"counts", "size"} <= segmentation.keys()
    if not polygons and not lengths:
        return None
    if lengths and not isinstance(segmentation["counts"], list):
        encoded = segmentation
    else:
        parts = mask.frPyObjects(segmentation, height, width)
        encoded = mask.merge(parts) if polygons else parts
    return [float(value) for value in mask.toBbox(encoded)]
