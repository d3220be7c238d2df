"""Scores new images with a trained checkpoint: a table, and a picture of where each alarm comes from.

Everything that was learned is in the checkpoint: weights, how images are read, and thresholds.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tocsin.checkpoints import read_checkpoint
from tocsin.data.image_files import IMAGE_SUFFIXES
from tocsin.data.image_loader import PixelReader
from tocsin.data.image_reader import ImageReader
from tocsin.devices import first_device
from tocsin.errors import ConfigError, DataError, TocsinError
from tocsin.models.base import ImageScores
from tocsin.pipeline import build_task, plain
from tocsin.plots.heat import image_overlay
from tocsin.tasks.image_anomaly import ImageAnomaly

log = logging.getLogger(__name__)

BATCH = 16


@dataclass(frozen=True)
class TrainedImages:
    """A detector for images, ready to score, and how new images must be read."""

    task: ImageAnomaly
    reader: ImageReader

    @torch.inference_mode()
    def score(self, images: torch.Tensor) -> ImageScores:
        """Scores of (B, 3, H, W) images, on the CPU."""
        maps, scores = self.task.scores(images.to(self.task.device))
        return ImageScores(maps.float().cpu(), scores.float().cpu())


def predict_images(cfg: DictConfig) -> None:
    """Score the images of `cfg.input`; write a table and, beside it, the folder `overlays`."""
    trained = load_trained_images(cfg)
    paths = image_paths(cfg.input)
    output = table_path(cfg)
    overlays = output.parent / "overlays" if cfg.contributions else None
    rows = []
    for batch in chunks(paths, BATCH):
        rows += _score_batch(batch, trained, overlays, Path(cfg.input))
        log.info("%d of %d images", len(rows), len(paths))
    write_table(output, pd.DataFrame(rows))
    failed = sum(bool(row["error"]) for row in rows)
    if failed == len(rows):
        raise DataError(f"{cfg.input}: none of {failed} images could be read; the reasons are in {output}")
    alarms = sum(row["is_anomaly"] == 1 for row in rows)
    log.info("%d of %d images raise an alarm; scores: %s", alarms, len(rows), output)
    if failed:
        log.warning("%d images could not be read: see the column error of %s", failed, output)


def table_path(cfg: DictConfig) -> Path:
    """Where the scores of images go.

    Raises:
        ConfigError: The name does not end in .csv.
    """
    output = Path(cfg.output) if cfg.output else Path(HydraConfig.get().runtime.output_dir) / "scores.csv"
    if output.suffix != ".csv":
        raise ConfigError(f"output={output}: the scores of images are written as CSV; give a name with .csv")
    return output


def load_trained_images(cfg: DictConfig, checkpoint: dict[str, Any] | None = None) -> TrainedImages:
    """Detector, reader and thresholds of a checkpoint, on the device that `cfg.trainer` asks for.

    Args:
        cfg: Configuration of the run, with `ckpt_path`.
        checkpoint: What stands there, where it has been read already.

    Raises:
        TocsinError: The checkpoint was written before its thresholds were known.
    """
    checkpoint = checkpoint or read_checkpoint(cfg.ckpt_path)
    task = build_task(cfg, checkpoint["dims"], checkpoint=checkpoint)
    assert isinstance(task, ImageAnomaly)
    if torch.isnan(task.image_threshold):
        raise TocsinError(f"ckpt_path={cfg.ckpt_path} has no threshold yet; use best.ckpt of a finished run")
    return TrainedImages(
        task=task.eval().to(prediction_device(cfg)),
        reader=ImageReader.from_state(checkpoint["data"]["reader"]),
    )


def prediction_device(cfg: DictConfig) -> torch.device:
    """The device that `cfg.trainer` asks for, the first one of several."""
    return first_device(plain(cfg.trainer).get("devices", "auto"), cfg.trainer.accelerator)


def image_paths(source: str | Path) -> list[Path]:
    """The image itself, or all images below a folder, sorted.

    Raises:
        DataError: There is no such file or folder, or no image in it.
    """
    source = Path(source)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"input={source}: there is no such image or folder")
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(f"input={source}: no image below this folder; known are {', '.join(IMAGE_SUFFIXES)}")
    return found


def _score_batch(
    paths: Sequence[Path], trained: TrainedImages, overlays: Path | None, root: Path
) -> list[dict[str, object]]:
    """A row per image; one that cannot be read has a reason instead of a score, and stops no other."""
    stacked, readable, errors = read_images(paths, trained.reader)
    scores = np.empty(0)
    if readable:
        maps, image_scores = trained.score(stacked)
        scores = image_scores.numpy()
        if overlays is not None:
            limits = trained.task.heat_limits
            for path, image, one in zip(readable, stacked, maps.numpy(), strict=True):
                picture = image_overlay(image.permute(1, 2, 0).numpy(), one, limits)
                write_picture(overlays / relative(path, root).with_suffix(".png"), picture)
    of_path = dict(zip(readable, scores, strict=True))
    threshold = float(trained.task.image_threshold)
    return [
        {
            "path": str(path),
            "score": float(of_path[path]) if path in of_path else None,
            "is_anomaly": int(of_path[path] >= threshold) if path in of_path else None,
            "error": errors.get(path, ""),
        }
        for path in paths
    ]


def read_images(
    paths: Sequence[Path], reader: PixelReader
) -> tuple[torch.Tensor, list[Path], dict[Path, str]]:
    """Read what can be read.

    Returns:
        (B, 3, H, W) float32 images, their B paths, and the reason of each path that cannot be read.
    """
    images, errors = [], {}
    for path in paths:
        try:
            images.append(reader(path))
        except DataError as error:
            errors[path] = str(error)
    readable = [path for path in paths if path not in errors]
    return torch.stack(images) if images else torch.empty(0, 3, *reader.size), readable, errors


def relative(path: Path, root: Path) -> Path:
    """Path of an image below the folder it was found in."""
    return path.relative_to(root) if root.is_dir() else Path(path.name)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 picture, whole or not at all.

    Raises:
        TocsinError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp.png")
    if not cv2.imwrite(str(temporary), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise TocsinError(f"{path} cannot be written")
    temporary.replace(path)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table of rows with flags, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    flags = {name: "Int8" for name in ("is_anomaly", "unsure") if name in table}  # whole numbers, or nothing
    table.astype(flags).to_csv(temporary, index=False, float_format="%.6g")
    temporary.replace(path)


def chunks(paths: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    """Runs of at most `size` paths."""
    starts: Iterable[int] = range(0, len(paths), size)
    return (paths[begin : begin + size] for begin in starts)
