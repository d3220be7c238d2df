"""Finds out how images and boxes are stored, and reads them; writes drawn ones as a COCO file would be."""

import json
from pathlib import Path

import cv2

from tocsin.data.coco_json import read_coco
from tocsin.data.detection_data import DetectionSet
from tocsin.data.synthetic.figures import Figures
from tocsin.data.yolo_txt import read_yolo
from tocsin.errors import ConfigError, DataError

INSTANCES = "instances.json"


def read_detections(
    root: str | Path,
    *,
    images: str | Path | None,
    dataset: str | None,
    category: str | int,
    skip_broken: bool,
) -> DetectionSet:
    """Read images and the boxes of one category from a COCO file, YOLO's text files or a catalogue.

    Args:
        root: Folder with `instances.json` or `labels/`, a `.json` file, or the URL of a database.
        images: Folder of the images; None takes `images` beside the file, and where the catalogue says.
        dataset: Name in a catalogue.
        category: Name or number.
        skip_broken: Whether boxes without area or outside their image are left out.

    Raises:
        ConfigError: An option does not go with this root, or the category is not there.
        DataError: Nothing that can be read is there, or it is faulty.
    """
    is_database = "://" in str(root)
    if dataset is not None and not is_database:
        raise ConfigError(
            f"data.dataset={dataset} is a name in a catalogue, but data.root={root} is no database URL"
        )
    if is_database:
        from tocsin.data.catalog_reader import read_catalog  # SQLAlchemy is loaded for databases alone

        return read_catalog(
            str(root), dataset=dataset, category=category, folder=images, skip_broken=skip_broken
        )
    path = Path(root).expanduser()
    file = path / INSTANCES if path.is_dir() else path
    if file.is_file():
        return read_coco(file, images).detections(category, skip_broken=skip_broken)
    if not (path / "labels").is_dir():
        raise DataError(
            f"data.root={root} is none of: a folder with {INSTANCES} and images/, or with images/ and labels/; a "
            "COCO file; the URL of a catalogue, such as sqlite:///person.db"
        )
    if images is not None:
        raise ConfigError(
            f"data.images={images} goes with COCO files and catalogues, but {path} holds labels/"
        )
    return read_yolo(path, category, skip_broken=skip_broken)


def write_figures(drawn: Figures, folder: Path) -> None:
    """Write drawn images as PNG files, and their boxes as a COCO file with the one category person."""
    (folder / "images").mkdir()
    names = [f"{index:05}.png" for index in range(len(drawn.images))]
    for name, image in zip(names, drawn.images, strict=True):
        (folder / "images" / name).write_bytes(cv2.imencode(".png", image[:, :, ::-1])[1].tobytes())
    height, width = drawn.images.shape[1:3]
    extents = [[x, y, right - x, bottom - y] for x, y, right, bottom in drawn.boxes.tolist()]
    content = {
        "images": [
            {"id": index, "file_name": name, "height": height, "width": width}
            for index, name in enumerate(names)
        ],
        "annotations": [
            {"id": index, "image_id": owner, "category_id": 1, "bbox": box, "iscrowd": 0}
            for index, (owner, box) in enumerate(zip(drawn.owner.tolist(), extents, strict=True))
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    (folder / INSTANCES).write_text(json.dumps(content))
