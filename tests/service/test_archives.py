"""Archives with faults at random places: unpacked, or refused with a line, and never anything else."""

import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from uploads import coco_files, yolo_files, zipped

from tocsin.data.coco_json import read_coco
from tocsin.data.yolo_txt import read_yolo_folder
from tocsin.errors import TocsinError
from tocsin.service.archives import unpack
from tocsin.service.pictures import check_pictures
from tocsin.service.settings import Limits


def faulty(archive: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, most often in the list of files at the end; sometimes a piece is missing."""
    content = np.frombuffer(archive, np.uint8).copy()
    end = archive.find(b"PK\1\2")
    for _ in range(int(rng.integers(1, 4))):
        place = (
            int(rng.integers(end, len(content))) if rng.random() < 0.7 else int(rng.integers(len(content)))
        )
        content[place] = rng.integers(256)
    if rng.random() < 0.1:
        cut = int(rng.integers(len(content)))
        content = np.delete(content, slice(cut, cut + int(rng.integers(1, 100))))
    return content.tobytes()


def outcomes(count: int, folder: Path, seed: int) -> dict[str, int]:
    """How many archives were taken and refused."""
    rng, limits = np.random.default_rng(seed), Limits(unpacked_mb=1, labels_mb=1, files=50)
    archives = [zipped(coco_files()), zipped(yolo_files(), compression=0)]
    found = {"taken": 0, "refused": 0}
    for index in range(count):
        place = folder / "out"
        place.mkdir()
        try:
            with tempfile.TemporaryFile() if index % 3 else io.BytesIO() as file:  # both kinds are uploaded
                file.write(faulty(archives[index % 2], rng))
                unpack(file, place, limits)
            coco = (place / "instances.json").is_file()
            boxes = read_coco(place / "instances.json", masks=False) if coco else read_yolo_folder(place)
            check_pictures(boxes, limits)
            found["taken"] += 1
        except TocsinError as error:
            found["refused"] += "\n" not in str(error)
        outside = [path for path in folder.rglob("*") if not path.is_relative_to(place)]
        assert outside == []
        shutil.rmtree(place)
    assert sum(found.values()) == count
    return found


def test_faults_are_refused_in_one_line(tmp_path: Path) -> None:
    found = outcomes(150, tmp_path, seed=0)
    assert min(found.values()) > 10  # both happen


@pytest.mark.slow
def test_many_faults(tmp_path: Path) -> None:
    found = outcomes(4000, tmp_path, seed=1)
    assert min(found.values()) > 250
