"""Batches of square images with boxes: which boxes are targets, their order, and how a batch is gathered."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_coco import draw_image

from tocsin.data.detection_data import DetectionSet
from tocsin.data.detection_loader import DetectionDataset, square_boxes
from tocsin.data.image_loader import ImageCache
from tocsin.data.letterbox import SquareReader


def images_with(boxes: list[list[list[float]]], crowd: list[bool] | None = None) -> DetectionSet:
    """Images of 64 x 64 pixels with some boxes each."""
    counts = [len(own) for own in boxes]
    return DetectionSet(
        paths=tuple(Path(f"{index}.png") for index in range(len(boxes))),
        sizes=np.full((len(boxes), 2), 64),
        boxes=np.array([box for own in boxes for box in own], np.float32).reshape(-1, 4),
        owner=np.repeat(np.arange(len(boxes)), counts),
        crowd=np.zeros(sum(counts), bool) if crowd is None else np.array(crowd),
    )


SMALL, MIDDLE, LARGE, FLAT = [0, 0, 5, 10], [3, 4, 20, 24], [10, 10, 50, 60], [0, 0, 64, 9]


def test_small_boxes_come_first_in_every_image() -> None:
    squares = square_boxes(
        images_with([[LARGE, SMALL, MIDDLE], [], [MIDDLE, SMALL]]), size=64, min_height=10, max_boxes=9
    )
    assert squares.boxes.tolist() == [SMALL, MIDDLE, LARGE, SMALL, MIDDLE]
    assert squares.counts.tolist() == [3, 0, 2]
    assert squares.owner.tolist() == [0, 0, 0, 2, 2]
    assert squares.n_targets.tolist() == [3, 0, 2]


def test_targets_are_high_enough_in_the_square() -> None:
    images = images_with([[LARGE, SMALL, FLAT]])
    assert square_boxes(images, size=64, min_height=10, max_boxes=9).target.tolist() == [True, False, True]
    assert square_boxes(images, size=64, min_height=10.5, max_boxes=9).target.tolist() == [False, False, True]
    assert square_boxes(images, size=128, min_height=18, max_boxes=9).target.tolist() == [True, True, True]


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1, [False, False, True, False, True]),
        (2, [False, True, True, True, True]),
        (3, [True, True, True, True, True]),
    ],
)
def test_the_largest_are_targets(most: int, expected: list[bool]) -> None:
    images = images_with([[LARGE, SMALL, MIDDLE], [], [MIDDLE, SMALL]])
    assert square_boxes(images, size=64, min_height=0, max_boxes=most).target.tolist() == expected


def test_groups_wear_nothing_and_take_no_place() -> None:
    images = images_with([[LARGE, SMALL, MIDDLE]], crowd=[True, False, False])
    squares = square_boxes(images, size=64, min_height=0, max_boxes=1)
    assert squares.crowd.tolist() == [False, False, True]
    assert squares.target.tolist() == [False, True, False]


@pytest.mark.parametrize("memory", [0, 10])
def test_batch_by_hand(tmp_path: Path, memory: int) -> None:
    draw_image(tmp_path / "a.png", 64, 64, value=51)
    draw_image(tmp_path / "b.png", 32, 64, value=102)
    draw_image(tmp_path / "c.png", 64, 64, value=255)
    images = DetectionSet(
        paths=tuple(tmp_path / name for name in ("a.png", "b.png", "c.png")),
        sizes=np.array([(64, 64), (32, 64), (64, 64)]),
        boxes=np.array([LARGE, SMALL, [0, 0, 64, 32], MIDDLE], np.float32),
        owner=np.array([0, 0, 1, 2]),
        crowd=np.array([False, True, False, False]),
    )
    reader = SquareReader(size=32)
    dataset = DetectionDataset(
        images=images,
        squares=square_boxes(images, size=32, min_height=8, max_boxes=2),
        reader=reader,
        stored=ImageCache(reader, memory).get(images.paths),
    )
    batch = dataset.__getitems__([2, 1, 0])
    assert batch.image.shape == (3, 3, 32, 32)
    assert batch.image.dtype == torch.float32
    assert batch.image[[0, 2], :, 0, 0].tolist() == [[1, 1, 1], pytest.approx([0.2] * 3)]
    assert batch.image[1, 0, [7, 8, 23, 24], 0].tolist() == pytest.approx([114 / 255, 0.4, 0.4, 114 / 255])
    assert batch.position.tolist() == [2, 1, 0]
    assert batch.boxes.tolist() == [[1.5, 2, 10, 12], [0, 8, 32, 24], [0, 0, 2.5, 5], [5, 5, 25, 30]]
    assert batch.owner.tolist() == [0, 1, 2, 2]
    assert batch.target.tolist() == [True, True, False, True]
    assert batch.crowd.tolist() == [False, False, True, False]
    assert (batch.boxes.dtype, batch.owner.dtype, batch.target.dtype) == (
        torch.float32,
        torch.int64,
        torch.bool,
    )
    one = dataset[1]
    assert one.owner.tolist() == [0]
    assert torch.equal(one.image[0], batch.image[1])


def test_batch_without_any_box(tmp_path: Path) -> None:
    draw_image(tmp_path / "a.png", 64, 64)
    images = images_with([[]])
    images = DetectionSet(**{**vars(images), "paths": (tmp_path / "a.png",)})
    reader = SquareReader(size=64)
    squares = square_boxes(images, size=64, min_height=1, max_boxes=1)
    batch = DetectionDataset(images=images, squares=squares, reader=reader, stored=None)[0]
    assert batch.boxes.shape == (0, 4)
    assert batch.owner.shape == batch.target.shape == batch.crowd.shape == (0,)
