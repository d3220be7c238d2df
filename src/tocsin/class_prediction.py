"""Classifies new images with a trained checkpoint: class, probability, and whether the answer is sure.

Everything that was learned is in the checkpoint: weights, how images are read, the classes, temperature, thresholds.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from tocsin.checkpoints import read_checkpoint
from tocsin.data.image_reader import ImageReader
from tocsin.errors import DataError, TocsinError
from tocsin.image_prediction import (
    BATCH,
    chunks,
    image_paths,
    prediction_device,
    read_images,
    table_path,
    write_table,
)
from tocsin.metrics.calibration import unsure
from tocsin.metrics.classification import defect_probability
from tocsin.pipeline import build_task
from tocsin.tasks.classification import Classification

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier, ready to use, how new images must be read, and what its classes are.

    Attributes:
        task: With its weights.
        reader: Of new images.
        classes: K names.
        ok_class: Index of the good one; None where there is none.
    """

    task: Classification
    reader: ImageReader
    classes: tuple[str, ...]
    ok_class: int | None

    @torch.inference_mode()
    def probabilities(self, images: torch.Tensor) -> np.ndarray:
        """(B, K) calibrated probabilities of (B, 3, H, W) images."""
        logits = self.task.logits(images.to(self.task.device))
        return self.task.probabilities(logits.float().cpu().numpy())


def predict_classes(cfg: DictConfig) -> None:
    """Classify the images of `cfg.input` and write a table."""
    trained = load_trained_classifier(cfg)
    paths, output = image_paths(cfg.input), table_path(cfg)
    rows: list[dict[str, object]] = []
    for batch in chunks(paths, BATCH):
        rows += _classified(batch, trained)
        log.info("%d of %d images", len(rows), len(paths))
    table = pd.DataFrame(rows)
    write_table(output, table)
    failed = int((table["error"] != "").sum())
    if failed == len(rows):
        raise DataError(f"{cfg.input}: none of {failed} images could be read; the reasons are in {output}")
    counts = table["class"].value_counts().sort_index()
    log.info(
        "%s; %d unsure", ", ".join(f"{name}: {n}" for name, n in counts.items()), (table["unsure"] == 1).sum()
    )
    log.info("classes and probabilities: %s", output)
    if failed:
        log.warning("%d images could not be read: see the column error of %s", failed, output)


def load_trained_classifier(cfg: DictConfig, checkpoint: dict[str, Any] | None = None) -> TrainedClassifier:
    """Classifier, reader and thresholds of a checkpoint, on the device that `cfg.trainer` asks for.

    Args:
        cfg: Configuration of the run, with `ckpt_path`.
        checkpoint: What stands there, where it has been read already.

    Raises:
        TocsinError: The checkpoint was written before its thresholds were known.
    """
    checkpoint = checkpoint or read_checkpoint(cfg.ckpt_path)
    task = build_task(cfg, checkpoint["dims"], checkpoint=checkpoint)
    assert isinstance(task, Classification)
    if torch.isnan(task.temperature):
        raise TocsinError(f"ckpt_path={cfg.ckpt_path} is not calibrated yet; use best.ckpt of a finished run")
    classes, ok_class = tuple(checkpoint["data"]["classes"]), checkpoint["data"]["ok_class"]
    return TrainedClassifier(
        task=task.eval().to(prediction_device(cfg)),
        reader=ImageReader.from_state(checkpoint["data"]["reader"]),
        classes=classes,
        ok_class=None if ok_class is None else classes.index(ok_class),
    )


def _classified(paths: Sequence[Path], trained: TrainedClassifier) -> list[dict[str, object]]:
    """A row per image; one that cannot be read has a reason instead of a class, and stops no other."""
    images, readable, errors = read_images(paths, trained.reader)
    answers = {}
    if readable:
        answers = dict(zip(readable, class_answers(trained.probabilities(images), trained), strict=True))
    nothing = dict.fromkeys(
        next(iter(answers.values()), {"class": None, "probability": None, "unsure": None})
    )
    return [
        {"path": str(path), **answers.get(path, nothing), "error": errors.get(path, "")} for path in paths
    ]


def class_answers(probabilities: np.ndarray, trained: TrainedClassifier) -> list[dict[str, object]]:
    """Class, probability and unsure of each image with (B, K) probabilities; with a good class, score and alarm."""
    calibration = trained.task.calibration
    columns: dict[str, np.ndarray] = {
        "class": np.array(trained.classes)[probabilities.argmax(axis=1)],
        "probability": probabilities.max(axis=1),
        "unsure": unsure(probabilities, calibration.sure).astype(int),
    }
    if trained.ok_class is not None and calibration.alarm is not None:
        columns["score"] = defect_probability(probabilities, trained.ok_class)
        columns["is_anomaly"] = (columns["score"] >= calibration.alarm).astype(int)
    lists = {name: values.tolist() for name, values in columns.items()}
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
