"""Pictures of a series run, to files in `plots/` and to TensorBoard."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from tocsin.callbacks.report import Report
from tocsin.evaluation import SAMPLE_WINDOWS
from tocsin.metrics.functional import precision_recall_curve
from tocsin.models.base import Reconstructs
from tocsin.plots.distributions import confusion_matrix, precision_recall, score_histogram
from tocsin.plots.overview import data_overview, samples_overview
from tocsin.plots.reconstruction import reconstruction
from tocsin.plots.save import save
from tocsin.plots.series import sections, signal, zoom_windows
from tocsin.plots.training import training_curves
from tocsin.results import Results, SeriesResults
from tocsin.tasks.base import Task

MAX_POINTS_LOGGED = 200_000  # of a PR curve in TensorBoard
COMPARED = ("model", "data", "optimizer", "scheduler", "threshold", "task", "trainer")


class SeriesReport(Report):
    """Signal with alarms, zooms, histograms, curves and training history.

    Args:
        zooms: Number of sections drawn in detail.
        context: Steps shown around each.
    """

    def __init__(self, *, zooms: int = 4, context: int = 150) -> None:
        self.zooms = zooms
        self.context = context
        self.history: dict[str, list[tuple[int, float]]] = {}
        self.stages: list[tuple[int, str]] = []

    # --- history ------------------------------------------------------------------------------------

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        epoch = trainer.current_epoch + 1  # counted as on screen
        if not self.stages or self.stages[-1][1] != pl_module.stage:
            self.stages.append((epoch, pl_module.stage))
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if pl_module.learning_rate is not None:
            values["lr"] = pl_module.learning_rate
        for name, value in values.items():
            self.history.setdefault(name, []).append((epoch, value))

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "stages": self.stages}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.stages = state_dict["history"], state_dict["stages"]

    # --- pictures -----------------------------------------------------------------------------------

    def report(
        self, *, run_dir: Path, results: Results, task: Task, trainer: L.Trainer, config: Mapping[str, Any]
    ) -> None:
        assert isinstance(results, SeriesResults)
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        for name, figure in self._figures(results, task):
            save(figure, run_dir / "plots" / f"{name}.png")
            for board in boards:
                board.experiment.add_figure(
                    f"plots/{name}", figure, global_step=trainer.global_step, close=False
                )
        for board in boards:
            _log_numbers(board, results, config, trainer.global_step)

    def _figures(self, results: SeriesResults, task: Task) -> Iterator[tuple[str, Figure]]:
        series, threshold = results.series, results.calibration.point
        shown = {
            "values": series.values,
            "scores": results.scores,
            "threshold": threshold,
            "labels": series.labels,
            "timestamps": series.timestamps,
            "channel_names": series.channel_names,
        }
        yield "signal", signal(**shown, title="Test series, alarms and true anomalies")  # type: ignore[arg-type]
        windows = zoom_windows(series.labels, results.predicted, n=self.zooms, context=self.context)
        if windows:
            yield "zoom", sections(**shown, windows=windows, title="Why: found, missed and false")  # type: ignore[arg-type]
        yield "score_histogram", score_histogram(results.scores, series.labels, threshold)
        if series.labels is not None and series.labels.any():
            yield from self._labelled_figures(results)
        if self.history:
            yield "training", training_curves(self.history, self.stages)
        if isinstance(task.detector, Reconstructs) and results.example is not None:
            yield "reconstruction", _reconstruction(results, task.detector)

    def _labelled_figures(self, results: SeriesResults) -> Iterator[tuple[str, Figure]]:
        series = results.series
        assert series.labels is not None
        curve = precision_recall_curve(results.scores, series.labels, max_points=2000)
        yield (
            "precision_recall",
            precision_recall(
                curve.precision,
                curve.recall,
                base_rate=float(series.labels.mean()),
                operating_point=(results.test["point_recall"], results.test["point_precision"]),
            ),
        )
        yield "confusion_matrix", confusion_matrix(results.predicted, series.labels, ("normal", "anomalous"))
        if series.events is not None and len(series.events):
            many = len(series.lengths) > SAMPLE_WINDOWS
            yield "data_overview", samples_overview(series) if many else data_overview(series)


@torch.inference_mode()
def _reconstruction(results: SeriesResults, detector: Reconstructs) -> Figure:
    assert results.example is not None
    x, _, labels = results.example
    made = detector.reconstruct(x)
    return reconstruction(
        x[0].cpu().numpy(),
        made.teacher[0].float().cpu().numpy(),
        made.student[0].float().cpu().numpy(),
        made.mask[0].cpu().numpy(),
        channel_names=results.series.channel_names,
        labels=None if labels is None else labels[0].cpu().numpy(),
    )


def _log_numbers(
    board: TensorBoardLogger, results: SeriesResults, config: Mapping[str, Any], step: int
) -> None:
    """Configuration, hyper-parameters with final metrics, and the PR curve."""
    board.experiment.add_text(
        "config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(dict(config)))}```", step
    )
    metrics = {f"test/{name}": value for name, value in results.test.items() if np.isfinite(value)}
    board.log_hyperparams(_hyper_parameters(config), metrics)
    labels = results.series.labels
    if labels is not None and labels.any():
        keep = np.linspace(0, len(labels) - 1, min(len(labels), MAX_POINTS_LOGGED)).astype(int)
        ranks = np.argsort(np.argsort(results.scores[keep])) / len(keep)  # TensorBoard wants [0, 1]
        board.experiment.add_pr_curve(
            "test", torch.as_tensor(labels[keep]), torch.as_tensor(ranks), step, num_thresholds=127
        )
    board.experiment.flush()


def _hyper_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """What runs are compared by: the options that shape a result, one level of dotted keys with plain values."""
    flat: dict[str, Any] = {"seed": config["seed"]}
    for group in COMPARED:
        flat |= _flat(config.get(group) or {}, group)
    return flat


def _flat(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Options of a group; its class under its own name. What only repeats another key is left out."""
    flat: dict[str, Any] = {}
    for key, value in options.items():
        if key == "_target_":
            flat[name] = value.rsplit(".", 1)[-1]
        elif isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.{key}")
        elif isinstance(value, int | float | bool) or (isinstance(value, str) and "${" not in value):
            flat[f"{name}.{key}"] = value
    return flat
