"""Pictures and numbers of a finished run, to files in `plots/` and to its loggers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from tocsin.finished_runs import flat
from tocsin.hyper_parameters import hyper_parameters
from tocsin.plots.save import save
from tocsin.plots.training import training_curves
from tocsin.results import Results
from tocsin.tasks.base import Task

MAX_POINTS_LOGGED = 200_000  # of a PR curve in TensorBoard


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
        step = trainer.global_step
        for name, figure in task.figures(results):
            _show(name, figure, run_dir, trainer.loggers, step)
        if self.history:
            curves = training_curves(self.history, self.stages)
            _show("training", curves, run_dir, trainer.loggers, step)
        numbers = {f"test/{name}": value for name, value in results.test.items() if np.isfinite(value)}
        options = hyper_parameters(dict(flat(config)))
        for logger in trainer.loggers:
            logger.log_hyperparams(options)
            logger.log_metrics(numbers, step)
            logger.save()
            if isinstance(logger, TensorBoardLogger):
                _log_comparison(logger, options, numbers, step)
                _log_board(logger, results, config, step)


def _show(name: str, figure: Figure, run_dir: Path, loggers: Sequence[Logger], step: int) -> None:
    """A picture for the folder of the run, and for those loggers that take pictures."""
    path = save(figure, run_dir / "plots" / f"{name}.png")
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(f"plots/{name}", figure, global_step=step, close=False)
        elif isinstance(logger, WandbLogger):
            logger.log_image(f"plots/{name}", [str(path)])
        elif isinstance(logger, MLFlowLogger) and logger.run_id is not None:
            logger.experiment.log_artifact(logger.run_id, str(path), "plots")


def _log_comparison(
    board: TensorBoardLogger, options: Mapping[str, Any], numbers: Mapping[str, float], step: int
) -> None:
    """The run's line of the HParams table.

    Without the summary that lists the columns of that table: TensorBoard would take the first one it meets for all
    runs, and the options of other models would have no column.
    """
    from torch.utils.tensorboard.summary import hparams  # takes 0.2 s, which other loggers need not wait for

    _, start, end = hparams(dict(options), dict(numbers))  # type: ignore[no-untyped-call]
    writer = board.experiment._get_file_writer()
    writer.add_summary(start, step)
    writer.add_summary(end, step)


def _log_board(board: TensorBoardLogger, results: Results, config: Mapping[str, Any], step: int) -> None:
    """Configuration and PR curve."""
    board.experiment.add_text(
        "config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(dict(config)))}```", step
    )
    scores, labels = results.ranking()
    if labels is not None and labels.any():
        keep = np.linspace(0, len(labels) - 1, min(len(labels), MAX_POINTS_LOGGED)).astype(int)
        ranks = np.argsort(np.argsort(scores[keep])) / len(keep)  # TensorBoard wants [0, 1]
        board.experiment.add_pr_curve(
            "test", torch.as_tensor(labels[keep]), torch.as_tensor(ranks), step, num_thresholds=127
        )
    board.experiment.flush()
