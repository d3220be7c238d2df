"""A catalogue of images and boxes in an SQL database: a file of SQLite, or a PostgreSQL server, by URL.

    python -m tocsin.data.catalog import instances.json images/ sqlite:///person.db
    python -m tocsin.data.catalog import-yolo folder/ sqlite:///person.db
    python -m tocsin.data.catalog list sqlite:///person.db

An import is one transaction: it replaces the data set of that name, or changes nothing. Every value goes to the
database as a bound parameter. `catalog_reader` reads.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from tocsin.data.box_file import BoxFile
from tocsin.data.catalog_database import check_tables, connected, shown_url
from tocsin.data.catalog_reader import by_number, find_dataset
from tocsin.data.catalog_tables import Annotation, Base, Category, Dataset, Image
from tocsin.data.coco_json import read_coco
from tocsin.data.detection_data import checked_boxes
from tocsin.data.yolo_txt import read_yolo_folder
from tocsin.errors import DataError, TocsinError

ROWS = 20_000  # that are prepared at a time


# --- what the catalogue does --------------------------------------------------------------------------------


def import_coco(
    source: str | Path, folder: str | Path, url: str, *, name: str | None = None, skip_broken: bool = False
) -> str:
    """Bring a COCO file into the catalogue, in place of a data set of that name.

    Args:
        source: The JSON file.
        folder: Folder of its images, which stay where they are.
        url: Of the database; the tables are made where there are none.
        name: Of the data set; None takes that of the file, or of its folder where the file is `instances.json`.
        skip_broken: Whether boxes without area or outside their image are left out.

    Returns:
        The name.

    Raises:
        DataError: The file is faulty, see `read_coco`, or the database cannot be written.
        ConfigError: The URL is none that can be used.
    """
    path = Path(source).expanduser().resolve()
    name = name or (path.parent.name if path.stem == "instances" else path.stem)
    return _replace(read_coco(source, folder), url, name, skip_broken=skip_broken)


def import_yolo(root: str | Path, url: str, *, name: str | None = None, skip_broken: bool = False) -> str:
    """Bring a folder of `images/` and `labels/` into the catalogue, in place of a data set of that name.

    Args:
        root: The folder, which stays where it is.
        url: As for `import_coco`.
        name: Of the data set; None takes that of the folder.
        skip_broken: As for `import_coco`.

    Returns:
        The name.

    Raises:
        DataError: The folder is faulty, see `read_yolo_folder`, or the database cannot be written.
        ConfigError: The URL is none that can be used.
    """
    name = name or Path(root).expanduser().resolve().name
    return _replace(read_yolo_folder(root), url, name, skip_broken=skip_broken)


def _replace(file: BoxFile, url: str, name: str, *, skip_broken: bool) -> str:
    with connected(url, new=True) as connection:
        Base.metadata.create_all(connection)
        connection.execute(delete(Dataset).where(Dataset.name == name))
        try:
            insert_boxes(connection, file, name, skip_broken=skip_broken)
        except IntegrityError as error:
            raise DataError(
                f"{shown_url(url)}: '{name}' is being imported by someone else; try again"
            ) from error
    return name


def list_datasets(url: str) -> list[dict[str, Any]]:
    """Name, numbers of images, categories and annotations, time of import (UTC) and source of every data set.

    Raises:
        ConfigError: The URL is none that can be used.
        DataError: The database has no tables or cannot be read.
    """
    with connected(url) as connection:
        check_tables(connection, shown_url(url))
        return dataset_rows(connection)


def dataset_rows(connection: Connection) -> list[dict[str, Any]]:
    """What `list_datasets` tells, in one query."""
    images = select(func.count()).where(Image.dataset_id == Dataset.id).scalar_subquery()
    categories = select(func.count()).where(Category.dataset_id == Dataset.id).scalar_subquery()
    annotations = (
        select(func.count())
        .select_from(Annotation)
        .join(Image, Annotation.image_id == Image.id)
        .where(Image.dataset_id == Dataset.id)
        .scalar_subquery()
    )
    query = select(
        Dataset.name,
        images.label("images"),
        categories.label("categories"),
        annotations.label("annotations"),
        Dataset.imported,
        Dataset.source,
    ).order_by(Dataset.name)
    return [dict(row._mapping) for row in connection.execute(query)]


def delete_dataset(url: str, name: str) -> None:
    """Take a data set out of the catalogue; its images stay where they are.

    Raises:
        ConfigError: The URL is none that can be used, or there is no such data set.
        DataError: The database has no tables or cannot be written.
    """
    shown = shown_url(url)
    with connected(url) as connection:
        check_tables(connection, shown)
        key, _, _ = find_dataset(connection, name, shown)
        connection.execute(delete(Dataset).where(Dataset.id == key))


# --- writing ------------------------------------------------------------------------------------------------


def insert_boxes(connection: Connection, file: BoxFile, name: str, *, skip_broken: bool) -> None:
    """Write a new data set: categories, images and those annotations that are sound, in the order of the file.

    Args:
        connection: In a transaction.
        file: What is written.
        name: Of the data set.
        skip_broken: Whether boxes without area or outside their image are left out; else they are an error.

    Raises:
        DataError: A box is broken.
        IntegrityError: There is a data set of that name (of SQLAlchemy).
    """
    boxes, kept = checked_boxes(
        file.boxes, file.sizes[file.owner], name_box=file.name_box, skip_broken=skip_broken
    )
    _insert_content(connection, _insert_dataset(connection, name, file), file, boxes, kept)


def _insert_dataset(connection: Connection, name: str, file: BoxFile) -> int:
    """Key of a new data set."""
    row = {
        "name": name,
        "folder": str(file.folder.resolve()),
        "source": str(file.source.resolve()),
        "imported": datetime.now(UTC).replace(tzinfo=None, microsecond=0),
    }
    return int(connection.execute(insert(Dataset).returning(Dataset.id), row).scalar_one())


def _insert_content(
    connection: Connection, key: int, file: BoxFile, boxes: np.ndarray, kept: np.ndarray
) -> None:
    """Categories, images and those annotations that are kept."""
    _insert(
        connection,
        Category,
        ("dataset_id", "number", "name"),
        [(key, number, name) for number, name in file.categories.items()],
    )
    images = zip(file.image_ids.tolist(), file.file_names, *file.sizes.T.tolist(), strict=True)
    _insert(
        connection,
        Image,
        ("dataset_id", "number", "file_name", "height", "width"),
        [(key, *row) for row in images],
    )
    category_keys, image_keys = (
        by_number(connection.execute(select(table.number, table.id).where(table.dataset_id == key)))
        for table in (Category, Image)
    )
    annotations = zip(
        [image_keys[number] for number in file.image_ids[file.owner[kept]].tolist()],
        [category_keys[number] for number in file.category[kept].tolist()],
        file.annotation_ids[kept].tolist(),
        *boxes[kept].T.tolist(),
        file.crowd[kept].tolist(),
        strict=True,
    )
    _insert(
        connection,
        Annotation,
        ("image_id", "category_id", "number", "x_min", "y_min", "x_max", "y_max", "crowd"),
        list(annotations),
    )


def _insert(
    connection: Connection, table: type[Base], columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows, many at a time."""
    for start in range(0, len(rows), ROWS):
        part = [dict(zip(columns, row, strict=True)) for row in rows[start : start + ROWS]]
        connection.execute(insert(table), part)


# --- command line -------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tocsin.data.catalog",
        description="A catalogue of images and boxes in an SQL database, for data=coco_person.",
        epilog="A database URL is sqlite:///<file> or postgresql+psycopg://<user>:<password>@<host>:<port>/"
        "<database>, for which pip install 'psycopg[binary]' is needed. Train on a data set with "
        "data=coco_person data.root=<url> data.dataset=<name>.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    url = "database, such as sqlite:///person.db"
    add = commands.add_parser("import", help="bring a COCO file in, in place of a data set of that name")
    add.add_argument("instances", type=Path, help="COCO file, instances.json")
    add.add_argument("images", type=Path, help="folder of its images; they stay there")
    add.add_argument("url", help=url)
    add.add_argument(
        "--name", help="name of the data set (default: of the file, or of its folder if instances.json)"
    )
    add.add_argument(
        "--skip-broken", action="store_true", help="leave out boxes without area or outside their image"
    )
    folder = commands.add_parser(
        "import-yolo", help="bring in a folder of images/ and labels/ with text files"
    )
    folder.add_argument(
        "folder", type=Path, help="it stays where it is; classes.txt or data.yaml names classes"
    )
    folder.add_argument("url", help=url)
    folder.add_argument("--name", help="name of the data set (default: of the folder)")
    folder.add_argument("--skip-broken", action="store_true", help="as for import")
    show = commands.add_parser("list", help="show the data sets")
    show.add_argument("url", help=url)
    remove = commands.add_parser("delete", help="take a data set out; its images stay where they are")
    remove.add_argument("url", help=url)
    remove.add_argument("name", help="of the data set")
    return parser


def _run(arguments: argparse.Namespace) -> str:
    """What a command says when it is done."""
    if arguments.command == "delete":
        delete_dataset(arguments.url, arguments.name)
        return f"deleted {arguments.name}"
    name = None
    if arguments.command == "import":
        options = {"name": arguments.name, "skip_broken": arguments.skip_broken}
        name = import_coco(arguments.instances, arguments.images, arguments.url, **options)
    if arguments.command == "import-yolo":
        options = {"name": arguments.name, "skip_broken": arguments.skip_broken}
        name = import_yolo(arguments.folder, arguments.url, **options)
    lines = [
        f"{row['name']}: {row['images']} images, {row['categories']} categories, {row['annotations']} annotations, "
        f"imported {row['imported']} UTC from {row['source']}"
        for row in list_datasets(arguments.url)
        if name in (None, row["name"])
    ]
    return "\n".join(lines) or "no data sets"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    try:
        said = _run(parsed)
    except TocsinError as error:
        parser.error(str(error))
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main()
