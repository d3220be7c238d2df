"""Boxes from text files as YOLO is trained on: `images/` beside `labels/`, one text file for each image.

Source: image specification, section 7.8. A line is `class x_center y_center width height`, the last four as shares of
the image's width and height; the class is a number from 0. An image whose text file is missing or empty shows none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tocsin.data.box_file import BoxFile
from tocsin.data.checks import one_line
from tocsin.data.detection_data import DetectionSet, find_category, stored_size
from tocsin.data.image_files import IMAGE_SUFFIXES
from tocsin.errors import DataError

MAX_CLASSES = 1_000_000
MAX_SETTINGS = 1_000_000  # characters of a file of settings
MAX_DEPTH = 20  # of its lists and mappings
NAMES = "classes.txt"  # one name a line
SETTINGS = "data.yaml"  # with the key `names`
COCO_NAMES = {0: "person"}  # what is known of a folder without names


def read_yolo(root: str | Path, category: str | int, *, skip_broken: bool = False) -> DetectionSet:
    """Read a folder of images and labels, with the boxes of one class.

    Args:
        root: Folder with `images` and `labels`, which may have folders alike in them; `classes.txt` or `data.yaml`
            there gives names to the classes, else only 0 has one, person.
        category: Name of the class, or its number.
        skip_broken: Whether boxes without area or outside their image are left out.

    Raises:
        ConfigError: There is no such class.
        DataError: A folder is missing or empty, or a line is none of five numbers, named by file and line.
    """
    root = Path(root).expanduser()
    found = read_yolo_folder(root)
    return found.of_number(_number(category, root, found.categories), skip_broken=skip_broken)


def read_yolo_folder(root: str | Path) -> BoxFile:
    """Read a folder of images and labels, with the boxes of all classes.

    Args:
        root: As for `read_yolo`.

    Returns:
        Images and annotations are numbered from 1, in order; a class without a name is called by its number.

    Raises:
        DataError: As for `read_yolo`.
    """
    root = Path(root).expanduser()
    pictures, labels = root / "images", root / "labels"
    for folder in (pictures, labels):
        if not folder.is_dir():
            raise DataError(f"{folder}: is no folder; {root} needs `images` and `labels`")
    paths = sorted(path for path in pictures.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"{pictures}: holds no image; {', '.join(IMAGE_SUFFIXES)} are read")
    names = [path.relative_to(pictures) for path in paths]
    texts = [labels / name.with_suffix(".txt") for name in names]
    _check_alone(labels, texts)
    rows = [_rows(text) for text in texts]
    boxes = np.concatenate([found for found, _ in rows])  # (M, 5)
    lines = np.concatenate([numbers for _, numbers in rows])  # (M,)
    owner = np.repeat(np.arange(len(paths)), [len(found) for found, _ in rows])
    classes = boxes[:, 0].astype(np.int64)
    sizes = np.array([stored_size(path) for path in paths], dtype=np.int64)
    return BoxFile(
        source=root,
        folder=pictures,
        image_ids=np.arange(1, len(paths) + 1),
        file_names=tuple(name.as_posix() for name in names),
        sizes=sizes,
        categories={**{number: str(number) for number in np.unique(classes).tolist()}, **_names(root)},
        annotation_ids=np.arange(1, len(boxes) + 1),
        owner=owner,
        category=classes,
        boxes=_corners(boxes[:, 1:], sizes[owner]),
        crowd=np.zeros(len(boxes), dtype=bool),
        name_box=lambda index: f"{texts[owner[index]]}, line {lines[index]}",
    )


def _number(category: str | int, root: Path, names: Mapping[int, str]) -> int:
    """Number of a class; one without a name may be asked for by number, whether or not any box is of it."""
    return int(category) if str(category).isdecimal() else find_category(category, names, where=str(root))


def _names(root: Path) -> dict[int, str]:
    """Names of the classes by number."""
    if (root / NAMES).is_file():
        return dict(enumerate(_text(root / NAMES).splitlines()))
    settings = root / SETTINGS
    if not settings.is_file():
        return COCO_NAMES
    names = _yaml(settings).get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if isinstance(names, dict) and all(
        str(number).isdecimal() and int(number) < MAX_CLASSES and isinstance(name, str | int | float)
        for number, name in names.items()
    ):
        return {int(number): str(name) for number, name in names.items()}
    raise DataError(f"{settings}: has no key `names` with the names of the classes by number")


def _yaml(file: Path) -> dict[str, Any]:
    """Content of a YAML file that is small, flat and without aliases: others cost memory or time without bound."""
    text = _text(file)
    if len(text) > MAX_SETTINGS:
        raise DataError(
            f"{file}: has {len(text)} characters, more than the {MAX_SETTINGS} of names of classes"
        )
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise DataError(f"{file}: holds an alias (*name); write out what it stands for")
            if depth > MAX_DEPTH:
                raise DataError(f"{file}: cannot be read: lists in lists, more than {MAX_DEPTH} deep")
        content = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:  # a ValueError of a date that is none
        raise DataError(f"{file}: cannot be read: {one_line(error)}") from error
    return content if isinstance(content, dict) else {}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {one_line(error)}") from error


def _check_alone(labels: Path, texts: list[Path]) -> None:
    """No two images, such as a.jpg and a.png, share labels; and some image has any, else names do not fit."""
    seen: set[Path] = set()
    for text in texts:
        if text in seen:
            raise DataError(f"{text}: belongs to two images of that name; rename one of them")
        seen.add(text)
    if not any(text.is_file() for text in texts):
        raise DataError(f"{labels}: holds no text file for any image, such as {texts[0].relative_to(labels)}")


def _rows(text: Path) -> tuple[np.ndarray, np.ndarray]:
    """(n, 5) float64 numbers of the lines of a file and (n,) int64 their numbers, from 1."""
    if not text.is_file():
        return np.zeros((0, 5)), np.zeros(0, dtype=np.int64)
    lines = _text(text).splitlines()
    found = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    rows = np.array([_row(text, number, words) for number, words in found], dtype=np.float64).reshape(-1, 5)
    return rows, np.array([number for number, _ in found], dtype=np.int64)


def _row(text: Path, number: int, words: list[str]) -> list[float]:
    """The five numbers of a line."""
    where = f"{text}, line {number}"
    if len(words) != 5:
        raise DataError(
            f"{where}: has {len(words)} values; five are needed: class x_center y_center width height"
        )
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise DataError(f"{where}: {one_line(error)}; five numbers are needed") from error
    if not 0 <= values[0] < MAX_CLASSES or not values[0].is_integer():
        raise DataError(
            f"{where}: the class is {words[0]}; it must be a whole number from 0, below {MAX_CLASSES}"
        )
    if max(values[1:]) > 2:  # pixels; a little beyond 1 is told of as a box outside its image
        raise DataError(
            f"{where}: holds {max(values[1:]):g}; boxes are written as shares of width and height, 0 to 1"
        )
    return values


def _corners(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(M, 4) left, top, right, bottom in pixels, of (M, 4) centre and extent as shares of (M, 2) height and width."""
    extent = sizes[:, ::-1].astype(np.float64)  # (M, 2): width, height
    centre, half = boxes[:, :2] * extent, boxes[:, 2:] * extent / 2
    return np.concatenate([centre - half, centre + half], axis=1)  # (M, 4)
