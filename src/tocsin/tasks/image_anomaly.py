"""Anomalies in images: training, scoring, calibration and test of an `ImageDetector`.

A detector gives a map of scores and one score per image; thresholds for both come from validation images. Their
labels are read only where a labelled share was asked for; test labels are read by the metrics alone.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import lightning.pytorch as L
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from tocsin.batch import ImageBatch
from tocsin.data.image_base import ImageDataModule
from tocsin.data.image_data import ImageSet
from tocsin.data.module import DataModule
from tocsin.metrics.functional import auc_roc, best_f1
from tocsin.metrics.images import image_metrics, pixel_metrics
from tocsin.metrics.thresholds import Threshold
from tocsin.models.base import ImageDetector, ImageScores
from tocsin.tasks.base import OptimizerFactory, SchedulerFactory, Task
from tocsin.tasks.image_figures import image_figures
from tocsin.tasks.image_results import ImageCalibration, ImageResults

MAX_PIXELS = 1_000_000  # of the validation maps, for the threshold of pixels


@dataclass(frozen=True)
class Scored:
    """A set of images with its scores.

    Attributes:
        images: The set.
        scores: (N,) float32, higher = more anomalous.
        maps: (N, H, W) float32.
        brightness: (N,) float32 mean of the pixels: the score of a baseline is made of it.
    """

    images: ImageSet
    scores: np.ndarray
    maps: np.ndarray
    brightness: np.ndarray

    @property
    def labels(self) -> np.ndarray | None:
        """(N,) bool, or None."""
        return self.images.labels


class ImageAnomaly(Task):
    """Task of the detectors for images.

    Args:
        detector: Gives a map and a score per image.
        optimizer: Called with the trainable parameters.
        scheduler: Called with the optimizer; None for a constant rate.
        threshold: Finds the thresholds on validation scores.
        tta: Whether scores are averaged over an image and its mirror image.
        monitor: The logged value to follow.
        seed: Seed of training.
    """

    accepts = "image"
    pixel_threshold: Tensor
    image_threshold: Tensor
    usual_pixel: Tensor

    def __init__(
        self,
        *,
        detector: ImageDetector,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        threshold: Threshold,
        tta: bool = False,
        monitor: str = "val_loss",
        seed: int = 42,
    ) -> None:
        super().__init__(
            detector=detector, optimizer=optimizer, scheduler=scheduler, monitor=monitor, seed=seed
        )
        self.detector: ImageDetector
        self.threshold = threshold
        self.tta = tta
        # Part of the state, so that a checkpoint is enough to raise alarms on new images.
        self.register_buffer("pixel_threshold", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("image_threshold", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("usual_pixel", torch.tensor(torch.nan, dtype=torch.float64))

    # --- scores ---------------------------------------------------------------------------------------

    def scores(self, images: Tensor) -> ImageScores:
        """Scores of (B, 3, H, W) images, averaged with those of their mirror images if asked for."""
        found = self.detector.score(images)
        if not self.tta:
            return found
        mirrored = self.detector.score(images.flip(-1))
        return ImageScores((found.map + mirrored.map.flip(-1)) / 2, (found.image + mirrored.image) / 2)

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B,) scores, (B, H, W) maps and (B,) brightness of the images of a batch."""
        maps, scores = self.scores(batch.image)
        brightness = batch.image.mean(dim=(1, 2, 3))
        return (
            self.everywhere(scores.float()),
            self.everywhere(maps.float()),
            self.everywhere(brightness.float()),
        )

    def _score(self, trainer: L.Trainer, datamodule: ImageDataModule, images: ImageSet) -> Scored:
        pieces = trainer.predict(self, datamodule.score_dataloader(images))
        assert pieces is not None
        scores, maps, brightness = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        return Scored(images, scores, maps, brightness)

    # --- thresholds and metrics -------------------------------------------------------------------------

    @property
    def calibration(self) -> ImageCalibration:
        """What the checkpoint knows of where an alarm begins."""
        return ImageCalibration(
            method=self.threshold.chosen,
            pixel=float(self.pixel_threshold),
            image=float(self.image_threshold),
        )

    @property
    def heat_limits(self) -> tuple[float, float]:
        """Scores of the first and the last colour of a heat map: half-way lies the threshold of pixels."""
        low = float(self.usual_pixel)
        return low, max(low, 2 * float(self.pixel_threshold) - low)

    def calibrate(self, val: Scored) -> ImageCalibration:
        """Thresholds for pixels and images from the validation images.

        Pixels are calibrated on normal images alone: there, each is known to be normal.
        """
        normal = np.ones(len(val.scores), bool) if val.labels is None else ~val.labels
        pixels = val.maps[normal].ravel()
        step = max(1, len(pixels) // MAX_PIXELS)
        self.pixel_threshold.fill_(self.threshold.fit(pixels[::step]))
        self.usual_pixel.fill_(float(np.median(pixels[::step])))
        self.image_threshold.fill_(self.threshold.fit_samples(val.scores, val.labels))
        return self.calibration

    def assess(self, trainer: L.Trainer, datamodule: DataModule) -> ImageResults:
        """Calibrate on the validation images, then measure the test images, with baselines beside them.

        Args:
            trainer: Runs the detector over all of them.
            datamodule: Set up.
        """
        assert isinstance(datamodule, ImageDataModule)
        splits = datamodule.ready
        val = self._score(trainer, datamodule, splits.val)
        begin = time.monotonic()
        test = self._score(trainer, datamodule, splits.test)
        seconds = time.monotonic() - begin
        calibration = self.calibrate(val)
        masks, known = datamodule.masks(splits.test)
        results = ImageResults(
            calibration=calibration,
            items_per_s=len(test.scores) / seconds,
            images=splits.test,
            read=datamodule.pictures,
            scores=test.scores,
            maps=test.maps,
            masks=masks,
            known=known,
            val_scores=val.scores,
        )
        if test.labels is None:
            return results
        further = {
            name: self._metrics(self._score(trainer, datamodule, images), datamodule)
            for name, images in datamodule.targets().items()
        }
        return replace(
            results,
            val=self._metrics(val, datamodule) if _has_both(val.labels) else {},
            test=self._metrics(test, datamodule),
            oracle={"image_f1": best_f1(test.scores, test.labels).f1} if test.labels.any() else {},
            baselines=self._baselines(val, test),
            by_class=_auroc_by_class(test),
            targets=further,
        )

    def _metrics(self, scored: Scored, datamodule: ImageDataModule) -> dict[str, float]:
        assert scored.labels is not None
        masks, known = datamodule.masks(scored.images)
        return {
            **image_metrics(scored.scores, scored.labels, float(self.image_threshold)),
            **pixel_metrics(scored.maps, masks, known),
        }

    def _baselines(self, val: Scored, test: Scored) -> dict[str, dict[str, float]]:
        """Metrics of scores that need no model: random ones, and how unusual the brightness is."""
        assert test.labels is not None
        rng = np.random.default_rng(self.seed)
        mean, spread = val.brightness.mean(), max(float(val.brightness.std()), 1e-12)
        pairs = {
            "random": (rng.random(len(val.scores)), rng.random(len(test.scores))),
            "brightness": (abs(val.brightness - mean) / spread, abs(test.brightness - mean) / spread),
        }
        return {
            name: image_metrics(on_test, test.labels, self.threshold.fit_samples(on_val, val.labels))
            for name, (on_val, on_test) in pairs.items()
        }

    def figures(self, results: ImageResults) -> Iterable[tuple[str, Figure]]:
        return image_figures(results)


def _has_both(labels: np.ndarray | None) -> bool:
    return labels is not None and bool(labels.any()) and not bool(labels.all())


def _auroc_by_class(test: Scored) -> Mapping[str, float]:
    """Image AUROC of each kind of anomaly against the normal images."""
    assert test.labels is not None
    classes = np.array(test.images.classes)
    found = {}
    for name in sorted(set(classes[test.labels])):
        chosen = ~test.labels | (classes == name)
        found[str(name)] = auc_roc(test.scores[chosen], test.labels[chosen])
    return found
