"""What a run leaves behind: numbers, arrays, and the files they are written to."""

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tocsin.batch import SeriesBatch
from tocsin.data.image_data import ImageSet
from tocsin.data.series_data import SeriesData
from tocsin.evaluation import Calibration
from tocsin.metrics.calibration import unsure
from tocsin.metrics.classification import defect_probability


@dataclass(frozen=True, kw_only=True)
class Results(ABC):
    """Base of the results of all tasks.

    Attributes:
        val: Metrics of the validation split, where it has labels.
        test: Metrics of the test split; empty without labels.
        oracle: Best values any threshold could reach on the test labels.
        baselines: Test metrics of scores that need no model, by name.
        items_per_s: Items scored per second.
    """

    val: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    oracle: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    items_per_s: float = 0.0
    headline: ClassVar[tuple[str, ...]]  # the test metrics that are shown at the end of a run

    @abstractmethod
    def sections(self) -> dict[str, Any]:
        """The parts of metrics.json that the task knows."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of scores.npz, in the original order of the test split."""

    @abstractmethod
    def ranking(self) -> tuple[np.ndarray, np.ndarray | None]:
        """(N,) scores of the test split and (N,) bool labels, where it has some: what curves are drawn of."""


@dataclass(frozen=True, kw_only=True)
class SeriesResults(Results):
    """Results of anomaly detection in time series.

    Attributes:
        series: The test split, in its own units.
        scores: (N,) float32, higher = more anomalous.
        errors: (N, K) float32 error of each channel; K = 1 where a detector cannot tell channels apart.
        val_scores: (M,) float32 scores of the validation split.
        calibration: Thresholds from validation data.
        event_recall: Share of found events by type of anomaly.
        example: One standardised window of the test split around its highest score, as a batch of one.
    """

    series: SeriesData
    scores: np.ndarray
    errors: np.ndarray
    val_scores: np.ndarray
    calibration: Calibration
    event_recall: Mapping[str, float] = field(default_factory=dict)
    example: SeriesBatch | None = None
    headline = ("vus_pr", "auc_pr", "point_f1", "series_f1")

    @property
    def predicted(self) -> np.ndarray:
        """(N,) bool: the alarms."""
        return self.calibration.alarms(self.scores, self.series.lengths)

    def sections(self) -> dict[str, Any]:
        return {
            "threshold": {
                "method": self.calibration.method,
                "value": self.calibration.point,
                "series_value": self.calibration.sample,
                "split": "validation",
            },
            "val": dict(self.val),
            "test": dict(self.test),
            "oracle": dict(self.oracle),
            "baselines": {name: dict(row) for name, row in self.baselines.items()},
            "event_recall": dict(self.event_recall),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "scores": self.scores,
            "lengths": np.asarray(self.series.lengths),
            "val_scores": self.val_scores,
        }
        if self.series.labels is not None:
            arrays["labels"] = self.series.labels
        return arrays

    def ranking(self) -> tuple[np.ndarray, np.ndarray | None]:
        return self.scores, self.series.labels


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


@dataclass(frozen=True)
class Timing:
    """How long a training took.

    Attributes:
        fit_s: Seconds of training, validation included.
        epochs: Epochs run.
        train_items_per_s: Training items per second of `fit_s`.
    """

    fit_s: float = 0.0
    epochs: int = 0
    train_items_per_s: float = 0.0


def write_metrics(path: Path, sections: Mapping[str, Any]) -> None:
    """Write metrics.json whole or not at all; undefined numbers become null."""
    text = json.dumps(_plain(sections), indent=2, allow_nan=False) + "\n"
    _write(path, text.encode())


def write_scores(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write scores.npz whole or not at all."""
    temporary = _temporary(path)
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    temporary.replace(path)


def timing_section(timing: Timing, results: Results) -> dict[str, float]:
    """The `timing` section of metrics.json."""
    return {**asdict(timing), "test_items_per_s": results.items_per_s}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _write(path: Path, content: bytes) -> None:
    temporary = _temporary(path)
    temporary.write_bytes(content)
    temporary.replace(path)
