"""Data sets of a catalogue as sets of images with boxes, in a number of queries that no number of images changes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from tocsin.data.catalog_database import check_tables, connected, shown_url
from tocsin.data.catalog_tables import Annotation, Category, Dataset, Image
from tocsin.data.checks import listed, nearest
from tocsin.data.detection_data import DetectionSet, check_image_files, detection_set, find_category
from tocsin.errors import ConfigError


def read_catalog(
    url: str,
    *,
    dataset: str | None = None,
    category: str | int = "person",
    folder: str | Path | None = None,
    skip_broken: bool = False,
) -> DetectionSet:
    """Read a data set, all its images with the boxes of one category, in five queries.

    Args:
        url: Of the database.
        dataset: Its name; None where the catalogue holds only one.
        category: Name or number.
        folder: Folder of the images; None takes that of the import.
        skip_broken: Whether boxes without area or outside their image are left out.

    Raises:
        ConfigError: The URL, the data set or the category is none that can be used.
        DataError: The database has no tables or cannot be read, or an image is missing.
    """
    shown = shown_url(url)
    with connected(url) as connection:
        check_tables(connection, shown)
        key, name, stored = find_dataset(connection, dataset, shown)
        where = f"{shown}: data set '{name}'"
        of_dataset = select(Category.number, Category.name).where(Category.dataset_id == key)
        number = find_category(category, by_number(connection.execute(of_dataset)), where=where)
        images = connection.execute(
            select(Image.id, Image.file_name, Image.height, Image.width)
            .where(Image.dataset_id == key)
            .order_by(Image.id)
        ).all()
        annotations = connection.execute(
            select(
                Annotation.image_id,
                Annotation.number,
                Annotation.crowd,
                Annotation.x_min,
                Annotation.y_min,
                Annotation.x_max,
                Annotation.y_max,
            )
            .join(Category, Annotation.category_id == Category.id)
            .where(Category.dataset_id == key, Category.number == number)
            .order_by(Annotation.id)
        ).all()
    names = [row.file_name for row in images]
    root = Path(stored) if folder is None else Path(folder).expanduser()
    check_image_files(root, names, where=where)
    place = {row.id: index for index, row in enumerate(images)}
    return detection_set(
        paths=[root / name for name in names],
        sizes=np.array([row[2:] for row in images], dtype=np.int64).reshape(-1, 2),
        boxes=np.array([row[3:] for row in annotations], dtype=np.float64).reshape(-1, 4),
        owner=np.array([place[row.image_id] for row in annotations], dtype=np.int64),
        crowd=np.array([row.crowd for row in annotations], dtype=bool),
        name_box=lambda index: f"{where}: annotation {annotations[index].number}",
        skip_broken=skip_broken,
    )


def find_dataset(connection: Connection, asked: str | None, shown: str) -> tuple[int, str, str]:
    """Key, name and folder of a data set; of the only one if none is asked for.

    Raises:
        ConfigError: There is none of that name, or several to choose from.
    """
    query = select(Dataset.id, Dataset.name, Dataset.folder).order_by(Dataset.name)
    known = {row.name: (row.id, row.name, row.folder) for row in connection.execute(query)}
    if asked is None and len(known) == 1:
        return next(iter(known.values()))
    if asked is None:
        raise ConfigError(
            f"{shown}: holds {listed(list(known)) or 'no data set'}; choose one with data.dataset=<name>"
        )
    if asked not in known:
        raise ConfigError(
            f"{shown}: has no data set '{asked}'{nearest(asked, list(known))}; it has {listed(list(known)) or 'none'}"
        )
    return known[asked]


# --- writing ------------------------------------------------------------------------------------------------


def by_number(rows: Iterable[Any]) -> dict[int, Any]:
    """What rows of a number and something else say, by number."""
    return {number: value for number, value in rows}
