"""Draws the pictures of a finished run again: from its checkpoint and data, or from its scores alone.

With `checkpoints/best.ckpt` and the data, everything is drawn as `evaluate.py` draws it. Without them, `scores.npz`
and `metrics.json` are enough for histogram, curve and confusion; what cannot be drawn is named.
"""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from tocsin.checkpoints import BAD_FILE, read_checkpoint
from tocsin.config import check
from tocsin.data.module import DataModule
from tocsin.errors import TocsinError
from tocsin.finished_runs import Run, read_run
from tocsin.metrics.classification import confusion
from tocsin.metrics.functional import precision_recall_curve
from tocsin.pipeline import build_datamodule, build_task, build_trainer
from tocsin.plots.confusion import confusion_matrix
from tocsin.plots.distributions import precision_recall, score_histogram
from tocsin.plots.save import save
from tocsin.plots.training import training_curves
from tocsin.tasks.base import Task

log = logging.getLogger(__name__)

Named = Iterator[tuple[str, Figure]]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A trained run with its data.

    Attributes:
        task: With the weights of the best checkpoint, on the CPU.
        datamodule: Set up, scaled as in the training.
        trainer: Without callbacks and loggers.
    """

    task: Task
    datamodule: DataModule
    trainer: L.Trainer


def load_run(folder: Path) -> Loaded:
    """Build task and data of a run from its best checkpoint.

    Raises:
        TocsinError: There is no readable checkpoint, or the data cannot be had.
    """
    checkpoint = read_checkpoint(folder / "checkpoints" / "best.ckpt")
    cfg = _config(checkpoint, folder)
    check(cfg)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = build_datamodule(cfg, state=checkpoint["data"])
    task = build_task(cfg, checkpoint["dims"], checkpoint=checkpoint)
    return Loaded(task=task, datamodule=datamodule, trainer=build_trainer(cfg))


def draw_run(folder: Path, plots: Path, loaded: Loaded | None = None) -> list[str]:
    """Draw what can be drawn of a run.

    Args:
        folder: Of the run.
        plots: Where the pictures go.
        loaded: The run, if it was loaded already.

    Returns:
        One line for each thing that could not be drawn, with the reason.

    Raises:
        TocsinError: The folder is not that of a finished run.
    """
    run = read_run(folder)
    missing = []
    try:
        loaded = loaded or load_run(folder)
    except TocsinError as error:
        missing.append(f"pictures that need the model and its data: {error}")
        figures = _from_scores(run)
    else:
        results = loaded.task.assess(loaded.trainer, loaded.datamodule)
        figures = iter(loaded.task.figures(results))
    drawn = [save(figure, plots / f"{name}.png").name for name, figure in figures]
    if not drawn:
        missing.append("scores: scores.npz is missing, or holds nothing that can be drawn without the model")
    history = _history(folder)
    if history:
        drawn.append(save(training_curves(*history), plots / "training.png").name)
    else:
        missing.append("training curves: no checkpoint kept the history, which callbacks.report does")
    log.info("%s: %s", plots, ", ".join(drawn) or "nothing")
    return missing


def copy_plots(folder: Path, into: Path) -> bool:
    """Copy the pictures that a run drew itself; whether there were some."""
    found = sorted((folder / "plots").glob("*.png"))
    for path in found:
        into.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, into / path.name)
    return bool(found)


def _config(checkpoint: dict[str, Any], folder: Path) -> DictConfig:
    """The configuration of a run, without what belongs to its command: callbacks, loggers, folder."""
    config = dict(checkpoint["config"])
    config |= {"callbacks": None, "logger": None}
    config["trainer"] = {**config["trainer"], "default_root_dir": str(folder)}
    cfg = OmegaConf.create(config)
    assert isinstance(cfg, DictConfig)
    return cfg


def _from_scores(run: Run) -> Named:
    """What scores and labels of the test split show without the model."""
    arrays, threshold = run.arrays, (run.sections.get("threshold") or {}).get("value")
    if run.classifies:
        classes = [str(name) for name in arrays["classes"]]
        counts = confusion(arrays["labels"], arrays["probabilities"].argmax(axis=1), len(classes))
        yield "confusion_matrix", confusion_matrix(counts, classes)
        return
    scores, labels = arrays.get("scores"), arrays.get("labels")
    if scores is None or threshold is None or scores.ndim != 1:
        return
    labels = None if labels is None or labels.shape != scores.shape else labels.astype(bool)
    yield "score_histogram", score_histogram(scores, labels, threshold)
    if labels is None or not labels.any():
        return
    alarms = scores >= threshold
    found = confusion(labels, alarms, 2)
    curve = precision_recall_curve(scores, labels, max_points=2000)
    hits = int((alarms & labels).sum())
    point = (hits / int(labels.sum()), hits / max(1, int(alarms.sum())))
    yield (
        "precision_recall",
        precision_recall(
            curve.precision, curve.recall, base_rate=float(np.mean(labels)), operating_point=point
        ),
    )
    yield "confusion_matrix", confusion_matrix(found, ("normal", "anomalous"))


def _history(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], list[tuple[int, str]]] | None:
    """History and stages of the training, as the last checkpoint has them."""
    for name in ("last", "best"):
        path = folder / "checkpoints" / f"{name}.ckpt"
        if not path.is_file():
            continue
        try:
            states = torch.load(path, map_location="cpu", weights_only=True).get("callbacks", {})
        except BAD_FILE as error:
            log.warning("%s cannot be read: %s", path, error)
            continue
        kept = states.get("Report") or {}
        if kept.get("history"):
            return kept["history"], kept["stages"]
    return None
