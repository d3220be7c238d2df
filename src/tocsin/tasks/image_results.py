"""What a run of a detector of anomalies in images leaves behind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tocsin.data.image_data import ImageSet
from tocsin.results import Results


@dataclass(frozen=True)
class ImageCalibration:
    """Where an alarm begins.

    Attributes:
        method: Name of the threshold method that was used.
        pixel: Alarm for a pixel where its score >= pixel.
        image: Alarm for an image where its score >= image.
    """

    method: str
    pixel: float
    image: float


@dataclass(frozen=True, kw_only=True)
class ImageResults(Results):
    """Results of anomaly detection in images.

    Attributes:
        images: The test images.
        read: Gives (n, H, W, 3) float32 images at some positions of a set, for drawing.
        scores: (N,) float32, higher = more anomalous.
        maps: (N, H, W) float32.
        masks: (N, H, W) bool, true = anomalous pixel.
        known: (N,) bool, whether the mask of an image is known.
        val_scores: (M,) float32 scores of the validation images.
        calibration: Thresholds from validation data.
        by_class: Image AUROC of each kind of anomaly against the normal images.
        targets: Test metrics on further sets, such as other domains, by name; thresholds as for the own set.
    """

    images: ImageSet
    read: Callable[[ImageSet, Sequence[int]], np.ndarray]
    scores: np.ndarray
    maps: np.ndarray
    masks: np.ndarray
    known: np.ndarray
    val_scores: np.ndarray
    calibration: ImageCalibration
    by_class: Mapping[str, float] = field(default_factory=dict)
    targets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    headline = ("image_auroc", "image_ap", "image_f1", "pixel_auroc", "aupro")

    def sections(self) -> dict[str, Any]:
        return {
            "threshold": {
                "method": self.calibration.method,
                "value": self.calibration.image,
                "pixel_value": self.calibration.pixel,
                "split": "validation",
            },
            "val": dict(self.val),
            "test": dict(self.test),
            "oracle": dict(self.oracle),
            "baselines": {name: dict(row) for name, row in self.baselines.items()},
            "by_class": dict(self.by_class),
            "targets": {name: dict(row) for name, row in self.targets.items()},
        }

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "scores": self.scores,
            "paths": np.array([str(path) for path in self.images.paths]),
            "val_scores": self.val_scores,
        }
        if self.images.labels is not None:
            arrays["labels"] = self.images.labels
        return arrays

    def ranking(self) -> tuple[np.ndarray, np.ndarray | None]:
        return self.scores, self.images.labels
