"""What the task for images makes of a detector's maps and scores."""

from functools import partial
from pathlib import Path

import cv2
import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import Tensor

from tocsin.data.folder import ImageFolder
from tocsin.metrics.thresholds import Auto, Quantile
from tocsin.models.base import ImageDetector, ImageScores
from tocsin.tasks.image_anomaly import ImageAnomaly
from tocsin.tasks.image_results import ImageResults

H, W = 12, 20
SPOT = (slice(2, 6), slice(12, 18))


class Brightest(ImageDetector):
    """The map is the red channel; sees what is bright, and half of the picture twice as well as the other."""

    def loss(self, batch: object) -> dict[str, Tensor]:
        return {"loss": torch.zeros(())}

    def score(self, images: Tensor) -> ImageScores:
        maps = images[:, 0].clone()
        maps[:, :, : W // 2] *= 2  # not the same for a mirror image
        return ImageScores(maps, maps.amax(dim=(1, 2)))


def draw(folder: Path, n: int, seed: int, spot: bool = False) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(n):
        pixels = rng.integers(40, 60, (H, W), dtype=np.uint8)
        if spot:
            pixels[SPOT] = 200
        assert cv2.imwrite(str(folder / f"{number:03}.png"), pixels)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    draw(root / "train" / "good", 20, seed=0)
    draw(root / "test" / "good", 10, seed=1)
    draw(root / "test" / "spot", 6, seed=2, spot=True)
    draw(root / "test" / "dim", 4, seed=3)  # labelled anomalous, but nothing to see
    mask = np.zeros((H, W), np.uint8)
    mask[SPOT] = 255
    (root / "ground_truth" / "spot").mkdir(parents=True)
    for number in range(5):  # the sixth has none
        assert cv2.imwrite(str(root / "ground_truth" / "spot" / f"{number:03}_mask.png"), mask)
    return root


def assessed(root: Path, *, tta: bool = False, **options: float) -> ImageResults:
    task = ImageAnomaly(
        detector=Brightest(),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        threshold=Auto() if options else Quantile(level=0.9),
        tta=tta,
    )
    data = ImageFolder(root=root, height=H, width=W, **options)  # type: ignore[arg-type]
    data.setup()
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    return task.assess(trainer, data)


@pytest.fixture(scope="module")
def results(root: Path) -> ImageResults:
    return assessed(root)


def test_scores_are_in_the_order_of_the_test_images(results: ImageResults) -> None:
    bright = np.array([name == "spot" for name in results.images.classes])
    assert results.scores.shape == (20,)
    assert results.maps.shape == (20, H, W)
    assert results.scores[bright].min() > results.scores[~bright].max()
    np.testing.assert_allclose(results.maps.max(axis=(1, 2)), results.scores)


def test_thresholds_come_from_normal_validation_images(results: ImageResults) -> None:
    assert results.calibration.method == "quantile"
    assert len(results.val_scores) == 4  # a fifth of the normal training images
    assert results.calibration.image == pytest.approx(np.quantile(results.val_scores, 0.9), rel=1e-3)
    assert results.calibration.pixel < results.calibration.image


def test_metrics_of_images_of_each_class_and_of_pixels_with_a_mask(results: ImageResults) -> None:
    assert results.by_class["spot"] == 1.0
    assert 0.1 < results.by_class["dim"] < 0.9
    assert results.known.sum() == 10 + 5  # normal ones, and those with a mask file
    assert results.test["pixel_auroc"] > 0.9
    assert results.test["image_recall"] >= 0.6
    assert {"random", "brightness"} == set(results.baselines)
    assert results.baselines["brightness"]["image_auroc"] > 0.6


def test_labelled_validation_images_serve_the_threshold_and_leave_the_test(root: Path) -> None:
    results = assessed(root, labelled_val_fraction=0.5)
    assert results.calibration.method == "best_f1"
    assert len(results.scores) == 10
    assert results.val["image_f1"] > 0.7


def test_mirror_images_are_averaged(root: Path, results: ImageResults) -> None:
    """The spot lies in the half that counts once; in the mirror image it counts twice."""
    both = assessed(root, tta=True)
    spot = [name == "spot" for name in both.images.classes]
    np.testing.assert_allclose(both.scores[spot], 1.5 * results.scores[spot], rtol=1e-5)
    np.testing.assert_allclose(both.maps[spot][:, 3, 14], 1.5 * results.maps[spot][:, 3, 14], rtol=1e-5)


def test_written_parts_hold_what_a_reader_needs(results: ImageResults) -> None:
    sections, arrays = results.sections(), results.arrays()
    assert sections["threshold"]["split"] == "validation"
    assert sections["threshold"]["value"] == results.calibration.image
    assert len(arrays["paths"]) == len(arrays["scores"]) == len(arrays["labels"]) == 20
    assert results.ranking()[0] is results.scores
