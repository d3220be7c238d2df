"""Scores and classifies images for several requests at once, as `predict.py` does for one folder."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from tocsin.class_prediction import TrainedClassifier, class_answers
from tocsin.data.image_reader import ImageReader
from tocsin.image_prediction import TrainedImages
from tocsin.plots.heat import image_overlay

UNITS = {"cpu": 16, "cuda": 64}  # images in a pass


class ImageWork:
    """Images to score.

    Args:
        images: (N, 3, H, W) float32, as the reader of the model gives them.
        maps: Whether the maps of scores are kept.
    """

    def __init__(self, images: Tensor, *, maps: bool = False) -> None:
        self.images = images
        self.keeps_maps = maps
        self.maps: list[np.ndarray] = []  # (H, W) of each image, where kept
        self.found: list[np.ndarray] = []  # scores (n,), or probabilities (n, K), of each pass
        self._taken = 0

    @property
    def remaining(self) -> int:
        """Images that are still to be scored."""
        return len(self.images) - self._taken

    def take(self, n: int) -> Tensor:
        """The next n images."""
        self._taken += n
        return self.images[self._taken - n : self._taken]


class ImageModel:
    """A trained detector for images that serves several requests at once.

    Args:
        trained: Detector, reader and thresholds.
    """

    def __init__(self, trained: TrainedImages) -> None:
        self.trained = trained
        self.units = UNITS.get(trained.task.device.type, UNITS["cuda"])

    @property
    def reader(self) -> ImageReader:
        """Of new images."""
        return self.trained.reader

    def step(self, shares: Sequence[tuple[ImageWork, int]]) -> None:
        """Score the next images of some works."""
        maps, scores = self.trained.score(torch.cat([work.take(n) for work, n in shares]))
        sizes = [n for _, n in shares]
        for (work, _), own_maps, own in zip(
            shares, torch.split(maps, sizes), torch.split(scores, sizes), strict=True
        ):
            work.found.append(own.numpy())
            if work.keeps_maps:
                work.maps += list(own_maps.numpy())

    def answer(self, work: ImageWork) -> dict[str, Any]:
        """What a request is told: arrays stay arrays."""
        scores = np.concatenate(work.found)
        threshold = float(self.trained.task.image_threshold)
        return {"scores": scores, "threshold": threshold, "verdicts": scores >= threshold}

    def heat_maps(self, work: ImageWork) -> list[bytes]:
        """A PNG of each image with its map of scores over it; half-way lies the threshold of pixels."""
        limits = self.trained.task.heat_limits
        pictures = (
            image_overlay(image.permute(1, 2, 0).numpy(), one, limits)
            for image, one in zip(work.images, work.maps, strict=True)
        )
        return [
            cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
            for picture in pictures
        ]


class ClassModel:
    """A trained classifier that serves several requests at once.

    Args:
        trained: Classifier, reader, classes and thresholds.
    """

    def __init__(self, trained: TrainedClassifier) -> None:
        self.trained = trained
        self.units = UNITS.get(trained.task.device.type, UNITS["cuda"])

    @property
    def reader(self) -> ImageReader:
        """Of new images."""
        return self.trained.reader

    def step(self, shares: Sequence[tuple[ImageWork, int]]) -> None:
        """Classify the next images of some works."""
        probabilities = self.trained.probabilities(torch.cat([work.take(n) for work, n in shares]))
        ends = np.cumsum([n for _, n in shares])
        for (work, _), own in zip(shares, np.split(probabilities, ends[:-1]), strict=True):
            work.found.append(own)

    def answer(self, work: ImageWork) -> dict[str, Any]:
        """What a request is told: of each image class, probability, whether the model is unsure, and the alarm."""
        rows = class_answers(np.concatenate(work.found), self.trained)
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        answer = {
            "classes": columns["class"],
            "probabilities": columns["probability"],
            "unsure": [bool(one) for one in columns["unsure"]],
        }
        if "score" in columns:
            answer["scores"] = columns["score"]
            answer["verdicts"] = [bool(one) for one in columns["is_anomaly"]]
        return {**answer, "threshold": self.trained.task.calibration.alarm}
