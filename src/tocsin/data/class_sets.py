"""Classified images from folders, one for each class, or from a table of paths and labels."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from tocsin.data.checks import listed, nearest, one_line
from tocsin.data.image_data import ImageSet, join_sets
from tocsin.data.image_files import image_files, read_pixels
from tocsin.data.image_folders import read_class, subfolders
from tocsin.errors import ConfigError, DataError

# Names of a class without defects, in lower case and without separators.
OK_NAMES = ("ok", "okfront", "good", "normal", "free", "mtfree", "nodefect", "defectfree", "sound", "pass")


def read_class_folders(root: Path) -> ImageSet:
    """All images of the folders in a folder; each of these is a class.

    Raises:
        DataError: There are fewer than two folders, or one holds no image.
    """
    names = subfolders(root)
    if len(names) < 2:
        loose = f" and {len(image_files(root))} images beside them" if image_files(root) else ""
        raise DataError(
            f"{root}: classes are folders of images, two or more, but there are {listed(names) or 'none'}{loose}; "
            "set data.root to the folder above the classes, or to a CSV file with the columns path,label[,group]"
        )
    return join_sets(*[read_class(root / name, anomalous=False) for name in names])


def read_class_table(file: Path) -> ImageSet:
    """The images of a CSV file with the columns `path`, `label` and, where it is known, `group`.

    Paths are those from the folder of the file, or absolute.

    Raises:
        DataError: A column is missing, a row has no label, names no file, or a file that another row names, too.
    """
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: is no CSV file: {one_line(error)}") from error
    columns = {str(name).strip(): table[name].str.strip() for name in table}
    for name in ("path", "label"):
        if name not in columns:
            raise DataError(
                f"{file}: has no column '{name}'{nearest(name, list(columns))}; needed are path,label[,group], "
                f"there are {listed(list(columns))}"
            )
    for name in set(columns) & {"path", "label", "group"}:
        if (columns[name] == "").any():
            row = int((columns[name] == "").to_numpy().argmax())
            raise DataError(
                f"{file}: column '{name}' is empty in row {row} (from 0); fill it, or delete the row"
            )
    if not len(table):
        raise DataError(f"{file}: holds no row; write one for each image")
    paths = [file.parent / path for path in columns["path"]]
    for row, path in enumerate(paths):
        if not path.is_file():
            raise DataError(
                f"{file}: row {row} (from 0) names {path}, which is no file; paths are those from the folder of the "
                "table, or absolute"
            )
    if len(set(paths)) < len(paths):
        row = int(pd.Series(paths).duplicated().to_numpy().argmax())
        raise DataError(
            f"{file}: row {row} (from 0) names {paths[row]} again; an image has one row and one label"
        )
    return ImageSet(
        paths=tuple(paths),
        labels=np.zeros(len(paths), dtype=bool),
        mask_paths=(None,) * len(paths),
        classes=tuple(columns["label"]),
        metadata=pd.DataFrame({"group": columns["group"]}) if "group" in columns else None,
    )


def find_ok_class(classes: Sequence[str], asked: str | None) -> str | None:
    """The class without defects.

    Args:
        classes: All names.
        asked: The one that the user names; None looks for a usual name, such as ok, good or normal.

    Returns:
        Its name; None if none has a usual name.

    Raises:
        ConfigError: There is no class of the name asked for, or several have usual names.
    """
    if asked is not None:
        if asked not in classes:
            raise ConfigError(
                f"data.ok_class={asked}: there is no such class{nearest(asked, classes)}; there are {listed(classes)}"
            )
        return asked
    found = [name for name in classes if re.sub(r"[\W_]", "", name.lower()) in OK_NAMES]
    if len(found) > 1:
        raise ConfigError(
            f"several classes are called like sound parts: {listed(found)}; name one in data.ok_class"
        )
    return found[0] if found else None


def readable(images: ImageSet) -> tuple[np.ndarray, list[str]]:
    """Try to decode all images.

    Returns:
        (N,) bool, true where an image can be read, and what is wrong with the others, one line each.
    """

    def fault(path: Path) -> str | None:
        try:
            read_pixels(path)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        faults = list(pool.map(fault, images.paths))
    return np.array([text is None for text in faults], dtype=bool), [
        text for text in faults if text is not None
    ]
