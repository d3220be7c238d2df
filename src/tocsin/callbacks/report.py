"""Pictures and numbers of a finished run, to files in `plots/` and to TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from tocsin.plots.save import save
from tocsin.plots.training import training_curves
from tocsin.results import Results
from tocsin.tasks.base import Task

MAX_POINTS_LOGGED = 200_000  # of a PR curve in TensorBoard
COMPARED = ("model", "data", "optimizer", "scheduler", "threshold", "task", "trainer")


class Report(L.Callback):
    """Keeps the history of the training and, when the results are known, draws what the task shows of them."""

    def __init__(self) -> None:
        self.history: dict[str, list[tuple[int, float]]] = {}
        self.stages: list[tuple[int, str]] = []

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

    def report(
        self, *, run_dir: Path, results: Results, task: Task, trainer: L.Trainer, config: Mapping[str, Any]
    ) -> None:
        """Draw and log.

        Args:
            run_dir: Folder of the run.
            results: What was measured.
            task: With the weights that were measured.
            trainer: Its loggers get the pictures too.
            config: The run's configuration as plain data.
        """
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        step = trainer.global_step
        for name, figure in task.figures(results):
            _show(name, figure, run_dir, boards, step)
        if self.history:
            _show("training", training_curves(self.history, self.stages), run_dir, boards, step)
        for board in boards:
            _log_numbers(board, results, config, step)


def _show(name: str, figure: Figure, run_dir: Path, boards: list[TensorBoardLogger], step: int) -> None:
    save(figure, run_dir / "plots" / f"{name}.png")
    for board in boards:
        board.experiment.add_figure(f"plots/{name}", figure, global_step=step, close=False)


def _log_numbers(board: TensorBoardLogger, results: Results, config: Mapping[str, Any], step: int) -> None:
    """Configuration, hyper-parameters with final metrics, and the PR curve."""
    board.experiment.add_text(
        "config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(dict(config)))}```", step
    )
    metrics = {f"test/{name}": value for name, value in results.test.items() if np.isfinite(value)}
    board.log_hyperparams(_hyper_parameters(config), metrics)
    scores, labels = results.ranking()
    if labels is not None and labels.any():
        keep = np.linspace(0, len(labels) - 1, min(len(labels), MAX_POINTS_LOGGED)).astype(int)
        ranks = np.argsort(np.argsort(scores[keep])) / len(keep)  # TensorBoard wants [0, 1]
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
