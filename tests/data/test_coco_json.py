"""COCO files: the same boxes as pycocotools gives, and one line for everything that is wrong in one."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask
from pycocotools.coco import COCO
from small_coco import small_coco, write_coco

from tocsin.data.coco_json import read_coco
from tocsin.errors import ConfigError, DataError


def test_boxes_by_hand(tmp_path: Path) -> None:
    images = read_coco(write_coco(tmp_path, small_coco())).detections("person")
    assert [path.relative_to(tmp_path / "images").as_posix() for path in images.paths] == [
        "c.png",
        "sub/a.png",
        "b.png",
    ]
    assert images.sizes.tolist() == [[40, 60], [50, 30], [40, 60]]
    assert images.boxes.tolist() == [[5.5, 6, 35.5, 26], [1, 2, 11, 22], [3, 4, 23, 44]]
    assert images.owner.tolist() == [0, 1, 1]
    assert images.crowd.tolist() == [False, True, False]


def test_same_boxes_as_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    content = small_coco()
    content["images"] = [
        {"id": int(number), "file_name": f"{number}.png", "height": 40, "width": 60}
        for number in rng.permutation(50)
    ]
    content["annotations"] = [
        {
            "id": index,
            "image_id": int(rng.integers(50)),
            "category_id": int(rng.choice([1, 18])),
            "bbox": [*rng.uniform(0, 20, 2).round(2).tolist(), *rng.uniform(1, 20, 2).round(2).tolist()],
            "iscrowd": int(rng.integers(2)),
        }
        for index in range(1, 300)
    ]
    file = write_coco(tmp_path, content)
    images = read_coco(file).detections("dog")
    reference = COCO(str(file))
    for index, path in enumerate(images.paths):
        expected = reference.loadAnns(reference.getAnnIds(imgIds=[int(path.stem)], catIds=[18]))
        own = images.owner == index
        corners = [[x, y, x + w, y + h] for x, y, w, h in (entry["bbox"] for entry in expected)]
        assert images.boxes[own] == pytest.approx(np.array(corners).reshape(-1, 4), abs=1e-4)
        assert images.crowd[own].tolist() == [bool(entry["iscrowd"]) for entry in expected]
    assert len(images.boxes) > 100


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = small_coco()
    del content["annotations"][0]["bbox"]
    content["annotations"][0]["segmentation"] = [[2, 3, 12, 3, 12, 13, 2, 13]]
    read_coco(write_coco(tmp_path, content)).detections("person")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["polygons", "lengths", "compressed"])
def test_box_of_a_mask(tmp_path: Path, kind: str) -> None:
    content = small_coco()
    drawn = np.zeros((50, 30), np.uint8)
    drawn[3:13, 2:12] = 1
    encoded = mask.encode(np.asfortranarray(drawn))
    lengths = [0, *np.diff(np.flatnonzero(np.diff(drawn.ravel(order="F"), prepend=0, append=0))).tolist()]
    start = int(drawn.ravel(order="F").argmax())
    counts = [start, *lengths[1:]]
    content["annotations"][0]["bbox"] = None
    content["annotations"][0]["segmentation"] = {
        "polygons": [[2, 3, 12, 3, 12, 13, 2, 13]],
        "lengths": {"size": [50, 30], "counts": [*counts, drawn.size - sum(counts)]},
        "compressed": {"size": [50, 30], "counts": encoded["counts"].decode()},
    }[kind]
    images = read_coco(write_coco(tmp_path, content)).detections("person")
    assert images.boxes[1].tolist() == [2, 3, 12, 13]


def test_category_by_number_or_name(tmp_path: Path) -> None:
    file = read_coco(write_coco(tmp_path, small_coco()))
    for asked in (18, "18", "Dog"):
        assert file.detections(asked).boxes.tolist() == [[0, 0, 8, 8]]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("persn", r"category=persn is not there \(did you mean 'person'\?\); it has 1 person, 18 dog"),
        (2, "category=2 is not there; it has 1 person, 18 dog"),
    ],
)
def test_unknown_category(tmp_path: Path, asked: str | int, message: str) -> None:
    file = read_coco(write_coco(tmp_path, small_coco()))
    with pytest.raises(ConfigError, match=message):
        file.detections(asked)


def test_two_categories_of_one_name(tmp_path: Path) -> None:
    content = small_coco()
    content["categories"] = [{"id": 1, "name": "person"}, {"id": 18, "name": "Person"}]
    file = read_coco(write_coco(tmp_path, content))
    with pytest.raises(ConfigError, match="categories 1, 18 are all called 'person'; give one by its number"):
        file.detections("person")
    assert len(file.detections(18).boxes) == 1


def test_sizes_from_the_images_where_the_file_has_none(tmp_path: Path) -> None:
    content = small_coco()
    file = write_coco(tmp_path, content)
    for entry in content["images"]:
        del entry["height"]
    file.write_text(json.dumps(content))
    assert read_coco(file).sizes.tolist() == [[40, 60], [50, 30], [40, 60]]


def test_broken_box_of_another_category_is_no_matter(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = small_coco()
    content["annotations"][2]["bbox"] = [0, 0, 0, 8]
    file = read_coco(write_coco(tmp_path, content))
    assert len(file.detections("person").boxes) == 3
    with pytest.raises(
        DataError, match=r"instances\.json: annotation 3 of c\.png: the box is 0 x 8 pixels large"
    ):
        file.detections("dog")
    with caplog.at_level(logging.WARNING):
        assert len(file.detections("dog", skip_broken=True).boxes) == 0
    assert "1 broken box is left out" in caplog.text


def changed(section: str, index: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one entry; None takes a key away."""

    def change(content: dict[str, Any]) -> None:
        entry = content[section][index]
        for key, value in values.items():
            if value is None:
                del entry[key]
            else:
                entry[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            changed("annotations", 1, image_id=7),
            r"annotations\[1\] \(id 2\) refers to image_id=7, which is not in the",
        ),
        (changed("annotations", 1, category_id=7), r"annotations\[1\] \(id 2\) refers to category_id=7"),
        (
            changed("annotations", 1, image_id=None),
            r"annotations\[1\] \(id 2\) has no 'image_id'; a whole number",
        ),
        (changed("annotations", 1, image_id="30"), r"has image_id='30'; a whole number is needed"),
        (changed("annotations", 1, bbox=None), r"annotations\[1\] \(id 2\) has bbox=None; four numbers"),
        (
            changed("annotations", 1, bbox=[1, 2, 3]),
            r"has bbox=\[1, 2, 3\]; four numbers x, y, width, height",
        ),
        (changed("annotations", 1, bbox=[1, 2, 3, "4"]), "four numbers x, y, width, height are needed"),
        (changed("images", 1, file_name=None), r"images\[1\] \(id 10\) has no 'file_name'; a text is needed"),
        (changed("images", 1, id=30), "image id 30 is given 2 times"),
        (
            changed("images", 1, file_name="b.png"),
            r"b\.png is the file of 2 images; one image would be in several",
        ),
        (
            changed("images", 1, file_name="../b.png"),
            r"\.\./b\.png leads out of .*images; give file names relative",
        ),
        (changed("images", 1, file_name="/b.png"), "leads out of"),
        (
            changed("images", 1, file_name="d.png"),
            r"1 of 3 images are not in .*images: d\.png; copy them there",
        ),
        (changed("images", 1, height=0), r"images\[1\] \(id 10\) has a height or width below 1"),
        (changed("categories", 1, id=1), "category id 1 is given 2 times"),
        (changed("categories", 1, name=None), r"categories\[1\] \(id 18\) has no 'name'"),
        (lambda content: content["images"].append(5), r"images\[3\] is int, not an object with keys"),
        (
            lambda content: content.pop("categories"),
            "is no COCO instances file; it needs the lists images, annotations",
        ),
    ],
)
def test_faulty_file(tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    content = small_coco()
    file = write_coco(tmp_path, content)
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_coco(file).detections("person")


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.json: cannot be read: No such file"):
        read_coco(tmp_path / "no.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(DataError, match=r"text\.json: is no JSON file: Expecting"):
        read_coco(tmp_path / "text.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match=r"list\.json: is no COCO instances file"):
        read_coco(tmp_path / "list.json")
    (tmp_path / "empty.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(
        DataError, match=r"images: is no folder; name the folder of the images of empty\.json"
    ):
        read_coco(tmp_path / "empty.json")


def test_folder_of_the_images_may_be_elsewhere(tmp_path: Path) -> None:
    file = write_coco(tmp_path / "set", small_coco())
    (tmp_path / "set" / "images").rename(tmp_path / "pictures")
    assert (
        read_coco(file, tmp_path / "pictures").detections("person").paths[0]
        == tmp_path / "pictures" / "c.png"
    )


def test_without_masks_every_annotation_needs_a_box(tmp_path: Path) -> None:
    content = small_coco()
    del content["annotations"][0]["bbox"]
    content["annotations"][0]["segmentation"] = [[0, 0, 10, 0, 10, 10]]
    file = write_coco(tmp_path, content)
    assert (read_coco(file).boxes[0] <= 10).all()  # of the mask
    with pytest.raises(DataError, match="has bbox=None; four numbers x, y, width, height are needed"):
        read_coco(file, masks=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": ' + "[" * 100_000, "is no JSON file"),
        ('{"images": [{"id": 1e3}], "annotations": [], "categories": []}', "has id=1000.0; a whole number"),
        (
            '{"images": [{"id": 9007199254740993}], "annotations": [], "categories": []}',
            "has id=a huge number",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "\\ud800"}]}',
            "are no text; rename",
        ),
    ],
)
def test_contents_of_strangers(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_coco(tmp_path / "a.json")
