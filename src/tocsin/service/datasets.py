"""Data sets of the service: folders of uploads and their rows in the catalogue, which always agree.

An upload is unpacked into a folder of its own, which takes its place inside the transaction that writes its rows.
Whoever works on a folder holds a lock on it; the system takes the lock from a process that dies. A folder without
lock and rows is what such a process left behind: `tidy` removes it, and an upload of that name replaces it.
"""

import fcntl
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.exc import IntegrityError

from tocsin.data.box_file import BoxFile
from tocsin.data.catalog import dataset_rows, insert_boxes
from tocsin.data.catalog_tables import Category, Dataset
from tocsin.data.coco_json import read_coco
from tocsin.data.detection_files import INSTANCES
from tocsin.data.yolo_txt import read_yolo_folder
from tocsin.errors import DataError
from tocsin.service.answers import Refused
from tocsin.service.archives import unpack
from tocsin.service.job_table import OPEN, PatchJob
from tocsin.service.pictures import check_pictures
from tocsin.service.settings import Settings

log = logging.getLogger(__name__)

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
PLACE = "datasets"  # below the folder of the service
INCOMING = ".incoming-"  # no data set can be called so


def add(engine: Engine, settings: Settings, name: str, archive: BinaryIO) -> dict[str, Any]:
    """Unpack an archive, and bring it into the catalogue, all or nothing.

    Args:
        engine: Of the database.
        settings: Of the server.
        name: Of the data set.
        archive: Zip.

    Returns:
        As an item of `rows`.

    Raises:
        Refused: The name is taken or none, or the archive is not taken.
    """
    if not re.fullmatch(NAME, name):
        raise Refused(
            422, f"name: {name[:80]!r} is no name of a data set; up to 64 letters, digits, - _ . make one"
        )
    place = settings.folder.resolve() / PLACE
    place.mkdir(parents=True, exist_ok=True)
    with engine.connect() as connection:
        if name in _names(connection):
            raise _taken(name)
    with _incoming(place) as folder:
        unpack(archive, folder, settings.limits)
        file = _read(folder, settings)
        with engine.connect() as connection:
            _store(connection, file, name, folder, place / name)
    with engine.connect() as connection:
        return next(row for row in rows(connection) if row["name"] == name)


def rows(connection: Connection) -> list[dict[str, Any]]:
    """Name, numbers of images and annotations, categories and time of import of every data set, in two queries."""
    named: dict[str, list[str]] = {}
    query = (
        select(Dataset.name, Category.name)
        .join(Category, Category.dataset_id == Dataset.id)
        .order_by(Dataset.name, Category.number)
    )
    for dataset, category in connection.execute(query):
        named.setdefault(dataset, []).append(category)
    return [
        {
            "name": row["name"],
            "images": row["images"],
            "annotations": row["annotations"],
            "categories": named.get(row["name"], []),
            "imported": row["imported"].isoformat() + "Z",
        }
        for row in dataset_rows(connection)
    ]


def remove(engine: Engine, settings: Settings, name: str) -> None:
    """Take a data set out of the catalogue, and its images off the disk if they were uploaded.

    Raises:
        Refused: There is none of that name, or a job reads it.
    """
    folder = settings.folder.resolve() / PLACE / name
    uploaded = bool(re.fullmatch(NAME, name)) and folder.is_dir()
    with _held(folder) if uploaded else _nothing(), engine.connect() as connection:
        found = "\0" not in name and connection.execute(delete(Dataset).where(Dataset.name == name)).rowcount
        if not found:
            raise Refused(404, f"there is no data set '{name[:80]}'; GET /v1/datasets lists them")
        if name in _in_use(connection):
            raise Refused(409, f"the data set '{name}' is read by a patch job; cancel the job first")
        connection.commit()
        if uploaded:
            shutil.rmtree(folder)


def tidy(engine: Engine, settings: Settings) -> None:
    """Remove folders that uploads or deletions left when their process died."""
    place = settings.folder.resolve() / PLACE
    for folder in sorted(place.iterdir()) if place.is_dir() else ():
        if not folder.is_dir() or folder.is_symlink():
            continue
        try:
            with _held(folder), engine.connect() as connection:
                if folder.name not in _names(connection):
                    log.info("removing %s, which belongs to no data set", folder)
                    shutil.rmtree(folder)
        except Refused:
            continue  # someone works on it


# --- parts --------------------------------------------------------------------------------------------------


def _read(folder: Path, settings: Settings) -> BoxFile:
    """Boxes of what was unpacked, checked together with their images; messages name no folder of the server."""
    try:
        if (folder / INSTANCES).is_file():
            file = read_coco(folder / INSTANCES, masks=False)
        else:
            file = read_yolo_folder(folder)
        check_pictures(file, settings.limits)
    except DataError as error:
        raise Refused(422, str(error).replace(f"{folder}/", "").replace(str(folder), "archive")) from error
    return file


def _store(connection: Connection, file: BoxFile, name: str, folder: Path, final: Path) -> None:
    """Write the rows, then let the folder take its place: the name is ours from the first row on."""
    moved = BoxFile(**{**vars(file), "folder": final / "images", "source": final})
    try:
        insert_boxes(connection, moved, name, skip_broken=False)
    except IntegrityError as error:
        raise _taken(name) from error
    except DataError as error:
        raise Refused(422, str(error).replace(f"{folder}/", "")) from error
    if final.exists():
        with _held(final):
            shutil.rmtree(final)
    folder.rename(final)
    try:
        connection.commit()
    except BaseException:
        final.rename(folder)  # where it is removed
        raise


def _taken(name: str) -> Refused:
    return Refused(409, f"there is a data set '{name}' already; delete it first, or choose another name")


def _names(connection: Connection) -> set[str]:
    return set(connection.execute(select(Dataset.name)).scalars())


def _in_use(connection: Connection) -> set[str]:
    """Names of the data sets that jobs read, which wait or run."""
    query = select(PatchJob.dataset).where(PatchJob.state.in_(OPEN)).distinct()
    return set(connection.execute(query).scalars())


@contextmanager
def _incoming(place: Path) -> Iterator[Path]:
    """A new folder, held, and gone at the end unless it has moved."""
    folder = Path(tempfile.mkdtemp(prefix=INCOMING, dir=place))
    try:
        with _held(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The lock of a folder, which stays with it when it moves."""
    busy = Refused(409, f"'{folder.name}' is being uploaded or deleted; try again")
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError as error:  # it has just been deleted
        raise busy from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise busy from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
