"""Scores new series with a trained checkpoint, from a file or row by row from standard input.

Everything that was learned is in the checkpoint: weights, scaling, score statistics and threshold.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tocsin.checkpoints import read_checkpoint
from tocsin.data.base import score_loader
from tocsin.data.cleaning import Scaler, fill_missing
from tocsin.data.readers import read_series, stored_names
from tocsin.data.series_data import SeriesData
from tocsin.data.traces import as_traces
from tocsin.data.windows import fill_unscored
from tocsin.errors import ConfigError, DataError, TocsinError
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


def predict_series(cfg: DictConfig) -> None:
    """Score `cfg.input` and write `cfg.output`."""
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
    if min(series.lengths) < trained.window:
        raise DataError(
            f"{cfg.input}: a series has {min(series.lengths)} rows, fewer than the {trained.window} of a window "
            "that this checkpoint reads; give more rows"
        )
    builder = ScoreBuilder(trained.task, series.lengths, contributions=cfg.contributions)
    trainer = build_trainer(cfg, ScoreCollector(builder))
    values, _ = fill_missing(
        series.values, trained.fill_limit, series.lengths, series.channel_names, where=cfg.input
    )
    loader = score_loader(
        values,
        series.lengths,
        scaler=trained.scaler,
        window=trained.window,
        stride=trained.score_stride,
        batch_size=trained.score_batch_size,
    )
    trainer.predict(trained.task, loader, return_predictions=False)
    scores = builder.scores()
    alarms = trained.task.calibration.alarms(scores, series.lengths)
    write_output(output, series, scores, alarms, builder.contributions(trained.channel_names))
    log.info("%d of %d steps raise an alarm; scores: %s", alarms.sum(), len(alarms), output)


def load_trained(cfg: DictConfig, checkpoint: dict[str, Any] | None = None) -> Trained:
    """Detector, scaling and thresholds of a checkpoint.

    Args:
        cfg: Configuration of the run, with `ckpt_path`.
        checkpoint: What stands there, where it has been read already.

    Raises:
        TocsinError: The checkpoint was written before its thresholds were known.
    """
    checkpoint = checkpoint or read_checkpoint(cfg.ckpt_path)
    task = build_task(cfg, checkpoint["dims"], checkpoint=checkpoint)
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
    read = partial(
        read_series,
        cfg.input,
        timestamp_column=cfg.data.get("timestamp_column"),
        label_column=label if label in stored_names(cfg.input) else None,
    )
    if cfg.data.get("layout") == "traces":
        traces = as_traces(read(), where=str(cfg.input))
        if traces.lengths[0] != trained.window:
            raise ConfigError(
                f"input={cfg.input} has traces of {traces.lengths[0]} steps, but training had {trained.window}"
            )
        return traces
    if Path(cfg.input).suffix == ".npy":  # picking channels would copy a memory map that needs no picking
        series = read()
        if series.channel_names == trained.channel_names:
            return series
    return read(channels=trained.channel_names)


class ScoreBuilder:
    """Turns the deviations of finished steps into scores at once, so that none pile up.

    A score depends on the steps around it: those at the end of a block wait for the next one, and a few before
    them are kept for their sake.

    Args:
        task: Its scorer is used.
        lengths: Steps of each series.
        contributions: Keep also how unusual each channel is.
    """

    def __init__(self, task: SeriesAnomaly, lengths: Sequence[int], *, contributions: bool) -> None:
        self.scorer = task.scorer.cpu()
        self.keep = contributions
        self._left = list(lengths)  # steps still to come of each series
        self._rows = torch.empty(0)  # (n, K) deviations: context, then those that wait
        self._n_context = 0
        self._scores: list[np.ndarray] = []
        self._normalised: list[np.ndarray] = []

    def add(self, deviations: np.ndarray) -> None:
        """Take the deviations (M, K) of the next steps; NaN = not scored."""
        while len(deviations):
            n = min(len(deviations), self._left[0])
            self._left[0] -= n
            self._push(deviations[:n], ends=self._left[0] == 0)
            deviations = deviations[n:]
            if self._left[0] == 0:
                self._left.pop(0)

    def _push(self, rows: np.ndarray, *, ends: bool) -> None:
        """Add the next steps (n, K) of a series; the last ones if it `ends` here."""
        new = torch.from_numpy(rows)
        self._rows = torch.cat([self._rows, new]) if len(self._rows) else new
        known = torch.from_numpy(fill_unscored(self._rows.numpy(), np.array([0, len(self._rows)])))
        ready = len(known) if ends else len(known) - self.scorer.reach
        if ready > self._n_context:
            done = slice(self._n_context, ready)
            self._scores.append(self.scorer.score(known)[done].numpy())
            if self.keep:
                self._normalised.append(self.scorer.normalised(known)[done].numpy())
            first = max(0, ready - self.scorer.reach)
            self._rows, self._n_context = self._rows[first:], ready - first
        if ends:
            self._rows, self._n_context = torch.empty(0), 0

    def scores(self) -> np.ndarray:
        """(N,) float32 scores."""
        return np.concatenate(self._scores)

    def contributions(self, channel_names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """(N,) how unusual each channel is, by column name; empty where the detector cannot tell."""
        n_channels = len(channel_names)
        if not self._normalised or self._normalised[0].shape[1] % n_channels:
            return {}
        largest = largest_views(np.concatenate(self._normalised), n_channels)
        return {f"contribution_{name}": largest[:, i] for i, name in enumerate(channel_names)}


class ScoreCollector(L.Callback):
    """Gives a builder of scores what `predict_step` finishes.

    Args:
        builder: Collects.
    """

    def __init__(self, builder: ScoreBuilder) -> None:
        self.builder = builder

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.builder.add(outputs)


def largest_views(normalised: np.ndarray, n_channels: int) -> np.ndarray:
    """How unusual each channel is (N, C), from one or several views (N, K) of each, K a multiple of C."""
    largest: np.ndarray = normalised.reshape(len(normalised), -1, n_channels).max(axis=1)  # (N, K / C, C)
    return largest


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
