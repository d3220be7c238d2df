"""The history of a training, and what loggers get of a finished run."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import create_autospec

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tocsin.callbacks.report import Report
from tocsin.results import Results
from tocsin.tasks.base import Task


def test_epochs_are_counted_from_one_as_on_screen() -> None:
    class Stub(Task):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        stage = "train"  # type: ignore[assignment]
        learning_rate = 1e-3  # type: ignore[assignment]

    report = Report()
    trainer = SimpleNamespace(current_epoch=0, callback_metrics={"val_loss": torch.tensor(2.0)})
    report.on_train_epoch_end(cast(L.Trainer, trainer), Stub())
    assert report.history == {"val_loss": [(1, 2.0)], "lr": [(1, 1e-3)]}
    assert report.stages == [(1, "train")]


def finished(folder: Path, logger: Any) -> None:
    """Report the results of a run with one picture to a logger."""

    class Stub(Task):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def figures(self, results: Any) -> list[tuple[str, Figure]]:
            return [("signal", Figure())]

    results = SimpleNamespace(
        test={"vus_pr": 0.5, "series_f1": float("nan")},
        ranking=lambda: (np.array([0.1, 0.9]), np.array([False, True])),
    )
    config = {"seed": 3, "model": {"_target_": "tocsin.models.pca.WindowPCA", "components": 0.9}}
    trainer = SimpleNamespace(loggers=[logger], global_step=7)
    Report().report(
        run_dir=folder,
        results=cast(Results, results),
        task=Stub(),
        trainer=cast(L.Trainer, trainer),
        config=config,
    )


def test_csv_gets_options_and_test_metrics(tmp_path: Path) -> None:
    finished(tmp_path, CSVLogger(tmp_path, name="csv", version=""))
    (line,) = csv.DictReader((tmp_path / "csv" / "metrics.csv").open())
    assert line == {"step": "7", "test/vus_pr": "0.5"}  # without what is not defined
    assert OmegaConf.load(tmp_path / "csv" / "hparams.yaml") == {
        "seed": 3,
        "model": "WindowPCA",
        "model.components": 0.9,
    }


def test_tensorboard_gets_a_line_but_no_list_of_columns(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="tensorboard", version="", default_hp_metric=False)
    finished(tmp_path, logger)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    plugins = events.summary_metadata
    assert "_hparams_/session_start_info" in plugins
    assert "_hparams_/experiment" not in plugins  # the columns of one run would be those of all
    assert [event.value for event in events.Scalars("test/vus_pr")] == [0.5]
    assert events.Tags()["images"] == ["plots/signal"]
    assert plugins["test"].plugin_data.plugin_name == "pr_curves"


@pytest.mark.parametrize("kind", [WandbLogger, MLFlowLogger])
def test_loggers_that_take_pictures_get_them(tmp_path: Path, kind: type) -> None:
    logger = create_autospec(kind, instance=True)
    logger.run_id = "run"
    finished(tmp_path, logger)
    picture = str(tmp_path / "plots" / "signal.png")
    if kind is WandbLogger:
        logger.log_image.assert_called_once_with("plots/signal", [picture])
    else:
        logger.experiment.log_artifact.assert_called_once_with("run", picture, "plots")
    logger.log_metrics.assert_called_once_with({"test/vus_pr": 0.5}, 7)
