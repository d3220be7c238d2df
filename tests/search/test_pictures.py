"""Pictures of a search that need no run on disk."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from tocsin.batch import SeriesBatch
from tocsin.errors import TocsinError
from tocsin.jobs import Job, State
from tocsin.models.mae import MaskedAutoencoder
from tocsin.run_pictures import Loaded
from tocsin.search.pictures import architecture_figures, data_figures, grid_figures
from tocsin.search.trials import Trial


def loaded(detector: Any = None, kind: str = "series") -> Loaded:
    batch = SeriesBatch(torch.zeros(2, 20, 4), torch.zeros(2, dtype=torch.long))
    task = SimpleNamespace(detector=detector)
    task.cpu = lambda: task
    datamodule = SimpleNamespace(kind=kind, val_dataloader=lambda: [batch])
    return cast(Loaded, SimpleNamespace(task=task, datamodule=datamodule))


def test_architecture_names_the_model_and_counts_its_parameters() -> None:
    detector = MaskedAutoencoder(window=20, n_channels=4, d_model=16, n_heads=2)
    ((name, figure),) = architecture_figures(loaded(detector))
    count = sum(parameter.numel() for parameter in detector.parameters())
    assert name == "layers"
    assert figure.get_suptitle() == f"MaskedAutoencoder: {count:,} parameters, a batch of 2"


def test_data_that_are_no_series_say_so() -> None:
    with pytest.raises(TocsinError, match="no picture for data of kind image"):
        list(data_figures(loaded(kind="image")))


def trial(setting: dict[str, str], quality: float, tmp: Any) -> Trial:
    job = Job(folder=tmp, number=0, overrides=(), state=State.FINISHED, value=quality)
    return Trial(job=job, setting=setting, quality=quality)


def test_one_key_has_no_pair_and_unknown_times_no_picture_of_cost(tmp_path: Any) -> None:
    trials = [trial({"a": "1"}, 0.5, tmp_path), trial({"a": "2"}, 0.6, tmp_path)]
    assert [name for name, _ in grid_figures(trials, "val_loss", "min")] == ["effects"]
    with pytest.raises(TocsinError, match="do not differ in any option"):
        list(grid_figures([trial({}, 0.5, tmp_path)], "val_loss", "min"))
    with pytest.raises(TocsinError, match="no job has finished"):
        list(grid_figures([trial({"a": "1"}, float("nan"), tmp_path)], "val_loss", "min"))
