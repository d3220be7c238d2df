"""Archives of data sets, for the tests of all that takes them."""

import io
import json
import zipfile
from typing import Any

import cv2
import numpy as np


def picture(height: int = 40, width: int = 60, kind: str = ".png") -> bytes:
    """A file of noise, which packs badly."""
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return bytes(cv2.imencode(kind, pixels)[1])


def coco() -> dict[str, Any]:
    """Two images, of which one has a person and a dog."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 40, "width": 60},
            {"id": 9, "file_name": "sub/b.png", "height": 40, "width": 60},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [5, 5, 20, 30]},
            {"id": 2, "image_id": 7, "category_id": 18, "bbox": [30, 5, 20, 30]},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    }


def zipped(files: dict[str, bytes | str], **options: Any) -> bytes:
    """A zip of contents by path."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", **{"compression": zipfile.ZIP_DEFLATED, **options}) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def coco_files(content: Any = None, prefix: str = "") -> dict[str, bytes | str]:
    """What a zip of a COCO data set holds."""
    return {
        f"{prefix}instances.json": json.dumps(content or coco()),
        f"{prefix}images/a.png": picture(),
        f"{prefix}images/sub/b.png": picture(),
    }


def yolo_files() -> dict[str, bytes | str]:
    """The same data set as YOLO stores it."""
    return {
        "classes.txt": "person\ndog\n",
        "labels/a.txt": "0 0.25 0.5 0.3333333 0.75\n1 0.6666667 0.5 0.3333333 0.75\n",
        "images/a.png": picture(),
        "images/sub/b.png": picture(),
    }
