"""What a run of a classifier of images leaves behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tocsin.data.image_data import ImageSet
from tocsin.metrics.calibration import unsure
from tocsin.metrics.classification import defect_probability
from tocsin.results import Results


@dataclass(frozen=True)
class ClassCalibration:
    """How to read the probabilities of a classifier.

    Attributes:
        method: Name of the threshold method; None where no class is good.
        temperature: What logits are divided by.
        alarm: A defect where the probability of all classes but the good one >= alarm; None where no class is good.
        sure: An answer is sure where exactly one class has a probability >= sure.
    """

    method: str | None
    temperature: float
    alarm: float | None
    sure: float


@dataclass(frozen=True)
class ClassExamples:
    """Test images worth a look: the worst mistakes, then the right answers that came closest to one.

    Attributes:
        positions: (n,) int64, places in the test split.
        images: (n, H, W, 3) float32.
        maps: (n, H, W) float32 in [0, 1], what spoke for the answer; None where the network has no such map.
    """

    positions: np.ndarray
    images: np.ndarray
    maps: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class ClassResults(Results):
    """Results of a classifier of images.

    Attributes:
        classes: K names.
        ok_class: Index of the good one; None where there is none.
        images: The test images.
        labels: (N,) int64.
        probabilities: (N, K), calibrated.
        uncalibrated: (N, K), before.
        val_probabilities: (M, K), calibrated.
        val_labels: (M,) int64.
        calibration: Temperature and thresholds from validation data.
        intervals: 95 % bootstrap interval of test metrics, by name.
        per_class: Precision, recall, F1 and support of each class.
        examples: Test images to show.
        augmented: (n, H, W, 3) training images and (n, m, H, W, 3) views of them as training saw them.
    """

    classes: tuple[str, ...]
    ok_class: int | None
    images: ImageSet
    labels: np.ndarray
    probabilities: np.ndarray
    uncalibrated: np.ndarray
    val_probabilities: np.ndarray
    val_labels: np.ndarray
    calibration: ClassCalibration
    intervals: Mapping[str, Sequence[float]]
    per_class: Mapping[str, Mapping[str, float]]
    examples: ClassExamples
    augmented: tuple[np.ndarray, np.ndarray]
    headline = ("accuracy", "macro_f1", "auroc", "balanced_accuracy", "ece")

    @property
    def unsure(self) -> np.ndarray:
        """(N,) bool: none or several of the classes are probable enough."""
        return unsure(self.probabilities, self.calibration.sure)

    def sections(self) -> dict[str, Any]:
        wrong = self.probabilities.argmax(axis=1) != self.labels
        return {
            "threshold": {
                "method": self.calibration.method,
                "value": self.calibration.alarm,
                "sure_value": self.calibration.sure,
                "temperature": self.calibration.temperature,
                "split": "validation",
            },
            "val": dict(self.val),
            "test": {
                **self.test,
                "unsure_rate": float(self.unsure.mean()),
                "sure_mistakes": float((wrong & ~self.unsure).mean()),
            },
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "per_class": {name: dict(row) for name, row in self.per_class.items()},
            "oracle": dict(self.oracle),
            "baselines": {name: dict(row) for name, row in self.baselines.items()},
        }

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            "probabilities": self.probabilities.astype(np.float32),
            "labels": self.labels,
            "paths": np.array([str(path) for path in self.images.paths]),
            "groups": np.unique(self.images.groups, return_inverse=True)[1],
            "classes": np.array(self.classes),
            "val_probabilities": self.val_probabilities.astype(np.float32),
            "val_labels": self.val_labels,
        }

    def ranking(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Probability of a defect where one class is good; else how doubtful an answer is, and if it is wrong."""
        if self.ok_class is not None:
            return defect_probability(self.probabilities, self.ok_class), self.labels != self.ok_class
        return 1 - self.probabilities.max(axis=1), self.probabilities.argmax(axis=1) != self.labels
