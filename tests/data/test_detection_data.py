"""Sets of images with boxes: their shares, and what is a broken box."""

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tocsin.data.detection_data import DetectionSet, detection_set, stored_size
from tocsin.errors import DataError


def made(*boxes: tuple[float, float, float, float], **options: Any) -> DetectionSet:
    arguments = {
        "paths": [Path("a.png"), Path("b.png"), Path("c.png")],
        "sizes": np.array([(20, 40), (30, 30), (10, 10)]),
        "boxes": np.array(boxes),
        "owner": np.zeros(len(boxes), np.int64),
        "crowd": np.zeros(len(boxes), bool),
        "name_box": lambda index: f"boxes.txt, line {index + 1}",
        "skip_broken": False,
        **options,
    }
    return detection_set(**arguments)


def test_boxes_are_put_in_the_order_of_their_images() -> None:
    images = made(
        (1, 1, 2, 2),
        (3, 3, 4, 4),
        (5, 5, 6, 6),
        owner=np.array([2, 0, 2]),
        crowd=np.array([True, False, False]),
    )
    assert images.owner.tolist() == [0, 2, 2]
    assert images.boxes[:, 0].tolist() == [3, 1, 5]
    assert images.crowd.tolist() == [False, True, False]
    assert images.counts.tolist() == [1, 0, 2]


def test_subset_keeps_boxes_with_their_images() -> None:
    images = made(
        (1, 1, 2, 2), (3, 3, 4, 4), (5, 5, 6, 6), owner=np.array([0, 1, 2]), crowd=np.array([0, 1, 0], bool)
    )
    turned = images.subset([2, 0])
    assert [path.name for path in turned.paths] == ["c.png", "a.png"]
    assert turned.sizes.tolist() == [[10, 10], [20, 40]]
    assert turned.boxes[:, 0].tolist() == [5, 1]
    assert turned.owner.tolist() == [0, 1]
    masked = images.subset(np.array([False, True, False]))
    assert masked.boxes[:, 0].tolist() == [3]
    assert masked.crowd.tolist() == [True]
    assert len(images.subset([]).boxes) == 0


def test_rounding_over_the_border_is_cut() -> None:
    assert made((-0.9, 0, 40.9, 20.5)).boxes.tolist() == [[0, 0, 40, 20]]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((5, 5, 5, 9), "line 2: the box is 0 x 4 pixels large, width x height; mend it"),
        ((5, 5, 9, 3), "line 2: the box is 4 x -2 pixels large"),
        (
            (5, 5, 42, 9),
            r"line 2: the box from \(5, 5\) to \(42, 9\) is not inside its image of 40 x 20 pixels",
        ),
        ((50, 5, 60, 9), "is not inside its image"),
        ((40, 5, 40.5, 9), "is not inside its image"),
        ((np.nan, 5, 40.5, 9), "the box holds NaN or infinite numbers"),
        ((0, 0, np.inf, 9), "the box holds NaN or infinite numbers"),
    ],
)
def test_broken_box(box: tuple[float, float, float, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        made((1, 1, 2, 2), box)


def test_broken_boxes_are_counted_and_can_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    boxes = (1, 1, 1, 2), (1, 1, 2, 2), (9, 1, 2, 2)
    with pytest.raises(DataError, match=r"line 1 \(one of 2 such boxes\).*skip_broken"):
        made(*boxes)
    with caplog.at_level(logging.WARNING):
        assert made(*boxes, skip_broken=True).boxes.tolist() == [[1, 1, 2, 2]]
    assert "2 broken boxes are left out: boxes.txt, line 1" in caplog.text


def test_arrays_must_fit_together() -> None:
    fitting = {
        "paths": (Path("a"),),
        "sizes": np.ones((1, 2), int),
        "boxes": np.ones((2, 4)),
        "owner": np.zeros(2, int),
        "crowd": np.zeros(2, bool),
    }
    assert len(DetectionSet(**fitting)) == 1
    with pytest.raises(ValueError, match=r"\(N, 2\) and \(M, 4\) are needed"):
        DetectionSet(**{**fitting, "sizes": np.ones((2, 2), int)})
    with pytest.raises(ValueError, match="ascending order"):
        DetectionSet(**{**fitting, "owner": np.array([1, 0])})


def test_size_from_the_header(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((7, 9, 3), np.uint8))
    assert stored_size(tmp_path / "a.png") == (7, 9)
    with pytest.raises(DataError, match=r"b\.png: cannot be read: No such file"):
        stored_size(tmp_path / "b.png")
    (tmp_path / "c.png").write_text("no image")
    with pytest.raises(DataError, match=r"c\.png: is damaged or no image"):
        stored_size(tmp_path / "c.png")
