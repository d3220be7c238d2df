"""Applies a trained patch to the persons in new images: what a detector finds before and after, and the pictures.

Persons are found by the victim itself, because new images have no annotations.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from tocsin.batch import DetectionBatch
from tocsin.checkpoints import read_checkpoint
from tocsin.data.letterbox import SquareReader
from tocsin.errors import DataError
from tocsin.image_prediction import (
    BATCH,
    chunks,
    image_paths,
    prediction_device,
    read_images,
    relative,
    table_path,
    write_picture,
    write_table,
)
from tocsin.models.base import Detections
from tocsin.pipeline import build_task
from tocsin.tasks.patch_attack import PatchAttack

log = logging.getLogger(__name__)

CONFIDENT = 0.25  # from which a person counts as found, and wears the patch


@dataclass(frozen=True)
class TrainedPatch:
    """A patch with its victim, ready to use, and how new images must be read."""

    task: PatchAttack
    reader: SquareReader

    @torch.no_grad()
    def before_and_after(self, images: torch.Tensor) -> tuple[Detections, Detections, torch.Tensor]:
        """What is found in (B, 3, S, S) images, what with patches, and the (B, 3, S, S) images with them."""
        images = images.to(self.task.device)
        before = _sure(self.task.detector.detect(images))
        n_found = len(before.boxes)
        batch = DetectionBatch(
            image=images,
            position=torch.arange(len(images), device=images.device),
            boxes=before.boxes,
            owner=before.owner,
            target=torch.ones(n_found, dtype=torch.bool, device=images.device),
            crowd=torch.zeros(n_found, dtype=torch.bool, device=images.device),
        )
        patched = self.task.detector.apply_patch(batch)
        return before, _sure(self.task.detector.detect(patched)), patched


def predict_patches(cfg: DictConfig) -> None:
    """Put the patch on everyone in the images of `cfg.input`; write detections and, beside them, `patched`."""
    trained = load_trained_patch(cfg)
    paths, output = image_paths(cfg.input), table_path(cfg)
    pictures = output.parent / "patched" if cfg.contributions else None
    rows: list[dict[str, object]] = []
    done, failed, counts = 0, 0, {"clean": 0, "patch": 0}
    for batch in chunks(paths, BATCH):
        images, readable, errors = read_images(batch, trained.reader)
        rows += [{"path": str(path), "error": errors[path]} for path in batch if path in errors]
        failed += len(errors)
        if readable:
            before, after, patched = trained.before_and_after(images)
            for condition, found in (("clean", before), ("patch", after)):
                rows += _rows(readable, condition, found)
                counts[condition] += len(found.boxes)
            if pictures is not None:
                _write_pictures(pictures, readable, patched, Path(cfg.input))
        done += len(batch)
        log.info("%d of %d images", done, len(paths))
    if failed == len(paths):
        raise DataError(f"{cfg.input}: none of {failed} images could be read: {rows[0]['error']}")
    columns = ["path", "condition", "left", "top", "right", "bottom", "confidence", "error"]
    write_table(output, pd.DataFrame(rows, columns=columns))
    log.info(
        "persons found with a confidence of %g: %d, and %d with the patch",
        CONFIDENT,
        counts["clean"],
        counts["patch"],
    )
    log.info("detections, in pixels of the square images: %s", output)
    if failed:
        log.warning("%d images could not be read: see the column error of %s", failed, output)


def load_trained_patch(cfg: DictConfig) -> TrainedPatch:
    """Patch and victim of a checkpoint, on the device that `cfg.trainer` asks for."""
    checkpoint = read_checkpoint(cfg.ckpt_path)
    task = build_task(cfg, checkpoint["dims"], checkpoint=checkpoint)
    assert isinstance(task, PatchAttack)
    return TrainedPatch(
        task=task.eval().to(prediction_device(cfg)), reader=SquareReader(size=checkpoint["data"]["size"])
    )


def _sure(found: Detections) -> Detections:
    keep = found.scores >= CONFIDENT
    return Detections(found.boxes[keep], found.scores[keep], found.owner[keep])


def _rows(paths: Sequence[Path], condition: str, found: Detections) -> list[dict[str, object]]:
    """A row per detection."""
    boxes, scores = found.boxes.float().cpu().numpy(), found.scores.float().cpu().numpy()
    sides = ("left", "top", "right", "bottom")
    return [
        {
            "path": str(paths[owner]),
            "condition": condition,
            **dict(zip(sides, box.tolist(), strict=True)),
            "confidence": float(score),
            "error": "",
        }
        for owner, box, score in zip(found.owner.tolist(), boxes, scores, strict=True)
    ]


def _write_pictures(folder: Path, paths: Sequence[Path], images: torch.Tensor, root: Path) -> None:
    pixels = (images.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()  # (B, S, S, 3)
    for path, picture in zip(paths, pixels, strict=True):
        write_picture(folder / relative(path, root).with_suffix(".png"), np.ascontiguousarray(picture))
