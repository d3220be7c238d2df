"""What TensorBoard compares runs by, and the history of a training."""

from types import SimpleNamespace
from typing import cast

import lightning.pytorch as L
import torch

from tocsin.callbacks.report import Report
from tocsin.finished_runs import flat
from tocsin.hyper_parameters import hyper_parameters
from tocsin.tasks.base import Task


def test_hyper_parameters_are_what_shapes_a_result() -> None:
    config = {
        "seed": 3,
        "cache_dir": "~/.cache",
        "model": {"_target_": "tocsin.models.pca.Pca", "components": 0.9},
        "data": {"_target_": "tocsin.data.sliding.Sliding", "seed": "${seed}", "channels": None},
        "task": {
            "_target_": "tocsin.tasks.series.Series",
            "scorer": {"_target_": "tocsin.scoring.ErrorScorer"},
        },
        "scheduler": None,
        "callbacks": {"checkpoint": {"_target_": "tocsin.callbacks.checkpoint.BestAndLast"}},
    }
    assert hyper_parameters(dict(flat(config))) == {
        "seed": 3,
        "model": "Pca",
        "model.components": 0.9,
        "data": "Sliding",
        "task": "Series",
        "task.scorer": "ErrorScorer",
    }


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
