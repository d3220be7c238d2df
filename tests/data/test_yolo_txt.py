"""YOLO text files: boxes from shares of the image, images without a file, and errors by file and line."""

from pathlib import Path

import numpy as np
import pytest
from small_coco import draw_image

from tocsin.data.yolo_txt import read_yolo, read_yolo_folder
from tocsin.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image with two boxes of class 0 and one of class 1, one with an empty file, one without a file."""
    draw_image(tmp_path / "images" / "sub" / "a.png", 40, 80)
    draw_image(tmp_path / "images" / "b.png", 50, 50)
    draw_image(tmp_path / "images" / "c.jpg", 50, 50)
    write(tmp_path, "0 0.5 0.5 0.5 1.0\n1 0.1 0.1 0.1 0.1\n\n0 0.25 0.5 0.25 0.5\n")
    (tmp_path / "labels" / "b.txt").write_text("")
    return tmp_path


def write(root: Path, text: str) -> None:
    (root / "labels" / "sub").mkdir(parents=True, exist_ok=True)
    (root / "labels" / "sub" / "a.txt").write_text(text)


def test_boxes_by_hand(root: Path) -> None:
    images = read_yolo(root, "person")
    assert [path.name for path in images.paths] == ["b.png", "c.jpg", "a.png"]
    assert images.sizes.tolist() == [[50, 50], [50, 50], [40, 80]]
    assert images.boxes.tolist() == [[20, 0, 60, 40], [10, 10, 30, 30]]
    assert images.owner.tolist() == [2, 2]
    assert not images.crowd.any()


def test_class_by_number_or_by_a_name_of_the_folder(root: Path) -> None:
    expected = [[4, 2, 12, 6]]
    assert read_yolo(root, 1).boxes == pytest.approx(np.array(expected))
    (root / "data.yaml").write_text("names:\n  0: person\n  1: dog\n")
    assert read_yolo(root, "dog").boxes == pytest.approx(np.array(expected))
    (root / "data.yaml").write_text("names: [person, hound]\n")
    assert read_yolo(root, "hound").boxes == pytest.approx(np.array(expected))
    (root / "classes.txt").write_text("person\ncat\n")
    assert read_yolo(root, "cat").boxes == pytest.approx(np.array(expected))


def test_unknown_class(root: Path) -> None:
    with pytest.raises(ConfigError, match="category=dog is not there; it has 0 person"):
        read_yolo(root, "dog")
    (root / "data.yaml").write_text("train: images\n")
    with pytest.raises(DataError, match=r"data\.yaml: has no key `names`"):
        read_yolo(root, "dog")
    (root / "data.yaml").write_text("names: [\n")
    with pytest.raises(DataError, match=r"data\.yaml: cannot be read: while parsing"):
        read_yolo(root, "dog")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", r"sub/a\.txt, line 2: has 4 values; five are needed: class x_center"),
        ("0 0.5 0.5 0.5 0.5 0.9", "line 2: has 6 values"),
        ("person 0.5 0.5 0.5 0.5", "line 2: could not convert string to float: 'person'; five numbers"),
        ("0.5 0.5 0.5 0.5 0.5", "line 2: the class is 0.5; it must be a whole number from 0"),
        ("-1 0.5 0.5 0.5 0.5", "line 2: the class is -1"),
        ("nan 0.5 0.5 0.5 0.5", "line 2: the class is nan"),
        ("0 40 20 10 10", "line 2: holds 40; boxes are written as shares"),
        ("0 0.5 0.5 0 0.5", r"sub/a\.txt, line 2: the box is 0 x 20 pixels large"),
        ("0 0.9 0.5 0.5 0.5", "line 2: the box from .* is not inside its image of 80 x 40 pixels"),
        ("0 nan 0.5 0.5 0.5", "line 2: the box holds NaN"),
    ],
)
def test_faulty_line(root: Path, line: str, message: str) -> None:
    write(root, f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_yolo(root, "person")


def test_broken_boxes_can_be_left_out(root: Path) -> None:
    write(root, "0 0.5 0.5 0.5 0.5\n0 0.5 0.5 0 0.5\n")
    assert len(read_yolo(root, "person", skip_broken=True).boxes) == 1


def test_folders_that_do_not_fit(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images: is no folder; .* needs `images` and `labels`"):
        read_yolo(tmp_path / "no", "person")
    draw_image(root / "images" / "b.jpg")
    with pytest.raises(DataError, match=r"b\.txt: belongs to two images of that name"):
        read_yolo(root, "person")
    (root / "images" / "b.jpg").unlink()
    for file in root.glob("labels/**/*.txt"):
        file.unlink()
    with pytest.raises(DataError, match="labels: holds no text file for any image, such as"):
        read_yolo(root, "person")
    for file in root.glob("images/**/*.*"):
        file.unlink()
    with pytest.raises(DataError, match="images: holds no image"):
        read_yolo(root, "person")


def test_all_classes_at_once(root: Path) -> None:
    (root / "data.yaml").write_text("names: {0: person, 7: cat}\n")
    found = read_yolo_folder(root)
    assert found.categories == {0: "person", 1: "1", 7: "cat"}  # one without a name is called by its number
    assert found.file_names == ("b.png", "c.jpg", "sub/a.png")
    assert (found.image_ids.tolist(), found.annotation_ids.tolist()) == ([1, 2, 3], [1, 2, 3])
    assert (found.category.tolist(), found.owner.tolist()) == ([0, 1, 0], [2, 2, 2])
    assert found.boxes == pytest.approx(np.array([[20, 0, 60, 40], [4, 2, 12, 6], [10, 10, 30, 30]]))
    assert found.name_box(2).endswith("sub/a.txt, line 4")
    for category in (0, 1):
        expected, one = read_yolo(root, category), found.of_number(category)
        assert np.array_equal(one.boxes, expected.boxes)
        assert one.paths == expected.paths


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x]\nnames: [*a, *a]", r"data\.yaml: holds an alias \(\*name\)"),
        ("names: {1000000: a}", r"data\.yaml: has no key `names`"),
        ("names: [[a]]", r"data\.yaml: has no key `names`"),
        ("names: 2020-13-45", r"data\.yaml: cannot be read: month must be in 1..12"),
        ("[" * 5000, r"data\.yaml: cannot be read: lists in lists, more than 20 deep"),
        ("names: [" + "a, " * 400_000 + "a]", r"data\.yaml: has 1200010 characters, more than the 1000000"),
        ('names: ["\\0"]', "holds characters that are no text"),
    ],
)
def test_faulty_settings(root: Path, text: str, message: str) -> None:
    (root / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_yolo_folder(root)


def test_classes_beyond_reason(root: Path) -> None:
    write(root, "1000000 0.5 0.5 0.5 0.5\n")
    with pytest.raises(
        DataError, match="line 1: the class is 1000000; it must be a whole number from 0, below 1000000"
    ):
        read_yolo_folder(root)
