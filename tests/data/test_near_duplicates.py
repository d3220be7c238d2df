"""Copies of a part are found at any angle; parts that only look alike are kept apart."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from tocsin.data import near_duplicates
from tocsin.data.near_duplicates import near_duplicate_groups
from tocsin.errors import DataError

SIDE = 240
OPTIONS = {"distance": 16, "correlation": 0.95}


def part(seed: int) -> np.ndarray:
    """(SIDE, SIDE) a disc as all parts have it, and texture as one part has it."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    distance = np.hypot(row, column) / (SIDE / 2)
    disc = 100 + 80 * (distance < 0.8) - 60 * (distance < 0.3)
    texture = cv2.GaussianBlur(rng.normal(0, 60, (SIDE, SIDE)), (0, 0), 1.5)
    return np.asarray((disc + texture).clip(0, 255)).astype(np.uint8)


def turned(image: np.ndarray, angle: float) -> np.ndarray:
    turn = cv2.getRotationMatrix2D(((SIDE - 1) / 2,) * 2, angle, 1)
    return cv2.warpAffine(image, turn, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


COPIES = {
    "same": lambda image: image,
    "quarter": lambda image: np.rot90(image),
    "mirrored": lambda image: image[:, ::-1],
    "mirrored and turned": lambda image: np.rot90(image[::-1], 3),
    "turned by 37": lambda image: turned(image, 37),
    "mirrored, by 200.5": lambda image: turned(np.ascontiguousarray(image[:, ::-1]), 200.5),
    "larger": lambda image: cv2.resize(image, (400, 400), interpolation=cv2.INTER_CUBIC),
    "in other light": lambda image: (20 + 0.7 * image * np.linspace(0.8, 1.1, SIDE)).astype(np.uint8),
    "JPEG": lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1], 0),
}


def written(folder: Path, images: list[np.ndarray]) -> list[Path]:
    paths = [folder / f"{number:03}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        assert cv2.imwrite(str(path), np.ascontiguousarray(image))
    return paths


@pytest.mark.parametrize("copy", COPIES)
def test_copy_is_grouped_with_its_original_and_no_other_part_is(tmp_path: Path, copy: str) -> None:
    parts = [part(seed) for seed in range(5)]
    groups = near_duplicate_groups(written(tmp_path, [*parts, COPIES[copy](parts[2])]), **OPTIONS)
    assert groups[5] == groups[2]
    assert len(set(groups.tolist())) == 5


def test_copies_of_copies_are_one_group(tmp_path: Path) -> None:
    images = [part(1), np.rot90(part(1)), part(2), turned(part(1), 12), part(2)[::-1]]
    groups = near_duplicate_groups(written(tmp_path, images), **OPTIONS)
    assert groups[0] == groups[1] == groups[3] != groups[2] == groups[4]


def test_hash_finds_the_copies_in_a_larger_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pairs are compared, and the pairs of copies are among them."""
    monkeypatch.setattr(near_duplicates, "FEW_IMAGES", 0)
    parts = [part(seed) for seed in range(40)]
    compared = []
    real = near_duplicates.correlations

    def counted(details: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        compared.append(len(pairs))
        return real(details, pairs)

    monkeypatch.setattr(near_duplicates, "correlations", counted)
    images = [*parts, *(turned(image, 25 + 7 * number) for number, image in enumerate(parts))]
    groups = near_duplicate_groups(written(tmp_path, images), **OPTIONS)
    assert (groups[:40] == groups[40:]).all()
    assert len(set(groups.tolist())) == 40
    assert sum(compared) < 0.1 * 80 * 79 / 2


def test_a_stricter_correlation_groups_less(tmp_path: Path) -> None:
    noisy = part(3).astype(int) + np.random.default_rng(0).normal(0, 15, (SIDE, SIDE))
    paths = written(tmp_path, [part(3), noisy.clip(0, 255).astype(np.uint8)])
    loose, strict = (near_duplicate_groups(paths, distance=16, correlation=c) for c in (0.6, 0.999))
    assert len(set(loose.tolist())) == 1
    assert len(set(strict.tolist())) == 2


def test_one_group_of_too_many_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = written(tmp_path, [part(0)] * 4 + [part(seed) for seed in range(1, 5)])
    with caplog.at_level(logging.INFO):
        near_duplicate_groups(paths, **OPTIONS)
    assert "8 images show 5 parts; 4 of one are most" in caplog.text
    assert "4 of 8 images into one group" in caplog.text
    assert "raise data.duplicate_correlation=0.95" in caplog.text


def test_blank_images_and_single_ones_are_no_error(tmp_path: Path) -> None:
    blank = np.full((30, 40), 7, np.uint8)
    assert near_duplicate_groups(written(tmp_path, [blank]), **OPTIONS).tolist() == [0]
    groups = near_duplicate_groups(written(tmp_path, [blank, blank, part(0)]), **OPTIONS)
    assert groups[0] != groups[2]
    with pytest.raises(DataError, match=r"none\.png: cannot be read"):
        near_duplicate_groups([tmp_path / "none.png"], **OPTIONS)
