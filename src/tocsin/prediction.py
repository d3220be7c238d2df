"""Scores new data with a trained checkpoint, from a file or row by row from standard input.

Everything that was learned is in the checkpoint: weights, scaling, score statistics and threshold.
"""

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tocsin.checkpoints import read_checkpoint
from tocsin.config import check
from tocsin.data.base import score_loader
from tocsin.data.cleaning import Scaler, fill_missing
from tocsin.data.readers import read_series, stored_names
from tocsin.data.series_data import SeriesData
from tocsin.data.windows import fill_unscored
from tocsin.errors import ConfigError, TocsinError
from tocsin.pipeline import build_task, build_trainer
from tocsin.streaming import score_stream
from tocsin.tasks.series_anomaly import SeriesAnomaly

log = logging.getLogger(__name__)

OUTPUTS = (".csv", ".parquet", ".npz")
ROWS = 1 << 17  # rows written at a time


@dataclass(frozen=True)
class Trained:
    """A detector ready to score, and how new data must be treated."""

    task: SeriesAnomaly
    scaler: Scaler
    channel_names: tuple[str, ...]
    window: int
    score_stride: int
    score_batch_size: int
    fill_limit: int


def predict(cfg: DictConfig) -> None:
    """Score `cfg.input` and write `cfg.output`."""
    check(cfg)
    trained = load_trained(cfg)
    if cfg.input == "-":
        sys.stdout.writelines(
            score_stream(sys.stdin, trained, timestamp_column=cfg.data.get("timestamp_column"))
        )
        return
    output = Path(cfg.output) if cfg.output else Path(HydraConfig.get().runtime.output_dir) / "scores.csv"
    if output.suffix not in OUTPUTS:
        raise ConfigError(f"output={output}: {output.suffix!r} cannot be written; give {', '.join(OUTPUTS)}")
    series = read_new(cfg, trained)
    collector = ScoreCollector(trained.task, contributions=cfg.contributions)
    trainer = build_trainer(cfg, collector)
    values, _ = fill_missing(series.values, trained.fill_limit, series.lengths, series.channel_names)
    loader = score_loader(
        values,
        series.lengths,
        scaler=trained.scaler,
        window=trained.window,
        stride=trained.score_stride,
        batch_size=trained.score_batch_size,
    )
    trainer.predict(trained.task, loader, return_predictions=False)
    scores = collector.scores(series)
    alarms = scores >= float(trained.task.point_threshold)
    write_output(output, series, scores, alarms, collector.contributions(trained.channel_names))
    log.info("%d of %d steps raise an alarm; scores: %s", alarms.sum(), len(alarms), output)


def load_trained(cfg: DictConfig) -> Trained:
    """Detector, scaling and thresholds of a checkpoint.

    Raises:
        TocsinError: The checkpoint was written before its thresholds were known.
    """
    checkpoint = read_checkpoint(cfg.ckpt_path)
    task = build_task(cfg, checkpoint["dims"], state=checkpoint["state_dict"])
    assert isinstance(task, SeriesAnomaly)
    if torch.isnan(task.point_threshold):
        raise TocsinError(f"ckpt_path={cfg.ckpt_path} has no threshold yet; use best.ckpt of a finished run")
    data = checkpoint["data"]
    return Trained(
        task=task.eval(),
        scaler=Scaler.from_state(data["scaler"]),
        channel_names=tuple(data["channel_names"]),
        window=data["window"],
        score_stride=cfg.data.get("score_stride", data["score_stride"]),
        score_batch_size=data["score_batch_size"],
        fill_limit=data["fill_limit"],
    )


def read_new(cfg: DictConfig, trained: Trained) -> SeriesData:
    """The new series, with the channels of training in their order."""
    label = cfg.data.get("label_column")
    return read_series(
        cfg.input,
        timestamp_column=cfg.data.get("timestamp_column"),
        label_column=label if label in stored_names(cfg.input) else None,
        channels=trained.channel_names,
    )


class ScoreCollector(L.Callback):
    """Keeps one number per step of what `predict_step` finishes, not the errors of every channel.

    Args:
        task: Its scorer joins the channels.
        contributions: Keep also the normalised error of every channel.
    """

    def __init__(self, task: SeriesAnomaly, *, contributions: bool) -> None:
        self.task = task
        self.keep = contributions
        self._joined: list[np.ndarray] = []
        self._normalised: list[np.ndarray] = []

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        scorer = self.task.scorer.cpu()
        errors = torch.from_numpy(outputs)
        self._joined.append(scorer.joined(errors).numpy())
        if self.keep:
            self._normalised.append(scorer.normalised(errors).numpy())

    def scores(self, series: SeriesData) -> np.ndarray:
        """(N,) float32 scores."""
        joined = np.concatenate(self._joined)[:, None]
        filled = torch.from_numpy(fill_unscored(joined, series.offsets)[:, 0])
        return self.task.scorer.smoothed(filled, series.lengths).numpy()

    def contributions(self, channel_names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """(N,) normalised error of each channel, by column name; empty where the detector cannot tell."""
        if not self._normalised or self._normalised[0].shape[1] != len(channel_names):
            return {}
        normalised = np.concatenate(self._normalised)
        return {f"contribution_{name}": normalised[:, i] for i, name in enumerate(channel_names)}


def write_output(
    path: Path,
    series: SeriesData,
    scores: np.ndarray,
    alarms: np.ndarray,
    contributions: dict[str, np.ndarray],
) -> None:
    """Write one row per step, whole or not at all."""
    columns: dict[str, np.ndarray] = {}
    if series.timestamps is not None:
        columns["timestamp"] = series.timestamps
    columns |= {"score": scores, "is_anomaly": alarms.astype(np.int8), **contributions}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    if path.suffix == ".npz":
        with temporary.open("wb") as file:
            np.savez(file, **columns)  # type: ignore[arg-type]
    elif path.suffix == ".parquet":
        pd.DataFrame(columns).to_parquet(temporary)
    else:
        with temporary.open("w") as text:
            for frame in _frames(columns):
                frame.to_csv(text, index=False, header=text.tell() == 0, float_format="%.6g")
    temporary.replace(path)


def _frames(columns: dict[str, np.ndarray]) -> Iterator[pd.DataFrame]:
    n_rows = len(columns["score"])
    for begin in range(0, n_rows, ROWS):
        yield pd.DataFrame({name: column[begin : begin + ROWS] for name, column in columns.items()})
