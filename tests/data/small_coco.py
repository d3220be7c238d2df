"""Images with boxes as files, for the tests of all that reads them."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def draw_image(path: Path, height: int = 40, width: int = 60, value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), value, np.uint8))


def small_coco() -> dict[str, Any]:
    """Three images; a person and a dog on 30, a group and a person on 10, none on 20."""
    return {
        "images": [
            {"id": 30, "file_name": "c.png", "height": 40, "width": 60},
            {"id": 10, "file_name": "sub/a.png", "height": 50, "width": 30},
            {"id": 20, "file_name": "b.png", "height": 40, "width": 60},
        ],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 1, "bbox": [1, 2, 10, 20], "iscrowd": 1},
            {"id": 2, "image_id": 30, "category_id": 1, "bbox": [5.5, 6, 30, 20], "iscrowd": 0},
            {"id": 3, "image_id": 30, "category_id": 18, "bbox": [0, 0, 8, 8]},
            {"id": 4, "image_id": 10, "category_id": 1, "bbox": [3, 4, 20, 40], "iscrowd": 0},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    }


def write_coco(root: Path, content: Any, *, images: bool = True) -> Path:
    """`instances.json` of some content beside `images/`; returns the file."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    if images:
        for index, entry in enumerate(content["images"]):
            height, width = entry.get("height", 40), entry.get("width", 60)
            draw_image(root / "images" / entry["file_name"], height, width, value=50 + 40 * index % 200)
    file = root / "instances.json"
    file.write_text(json.dumps(content))
    return file
