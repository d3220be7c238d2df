"""The median rule on files: who is pruned, and what of it survives a kill."""

import copy
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tocsin.callbacks.pruning import Pruning, finished_beside, worse_than_median, write_progress
from tocsin.errors import ConfigError, Pruned, TocsinError

NAN = math.nan
FLAT = [{0: 1.0, 1: 0.5}, {0: 2.0, 1: 1.0}, {0: 3.0, 1: 1.5}]


def worse(
    own: dict[int, float], others: list[dict[int, float]] = FLAT, mode: str = "min", **rule: int
) -> bool:
    return worse_than_median(own, others, mode=mode, **({"n_startup_jobs": 3, "n_warmup_epochs": 0} | rule))


# --- the rule -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "pruned"),
    [
        ({0: 2.1}, True),
        ({0: 2.0}, False),  # as good as the median
        ({0: 1.9}, False),
        ({0: 0.9, 1: 7.0}, False),  # the best so far counts, not the last
        ({0: 2.0, 1: 1.1}, True),  # against the second epoch of the others
        ({0: NAN}, True),
        ({0: 9.0, 1: 9.0, 2: 9.0}, False),  # no other job has come so far
    ],
)
def test_worse_than_the_median_of_the_others_at_the_same_epoch(own: dict[int, float], pruned: bool) -> None:
    assert worse(own) is pruned


def test_first_jobs_and_first_epochs_are_spared() -> None:
    assert not worse({0: 9.0}, FLAT[:2])
    assert not worse({0: 9.0}, n_warmup_epochs=1)
    assert worse({0: 9.0, 1: 9.0}, n_warmup_epochs=1)


def test_mode_max_prunes_the_lower_ones() -> None:
    assert worse({0: 1.9}, mode="max")
    assert not worse({0: 2.1}, mode="max")


@pytest.mark.parametrize("mode", ["min", "max"])
def test_same_decisions_as_the_pruner_of_optuna(mode: str) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng = np.random.default_rng(0 if mode == "min" else 1)
    decisions = []
    for _ in range(150):
        startup, warmup = int(rng.integers(1, 5)), int(rng.integers(0, 3))
        study = optuna.create_study(
            direction=f"{mode}imize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup),
        )
        others = [
            {epoch: _maybe_nan(rng) for epoch in range(rng.integers(1, 5))} for _ in range(rng.integers(1, 8))
        ]
        for history in others:
            trial = study.ask()
            for epoch, value in history.items():
                trial.report(value, epoch)
            study.tell(trial, 0.0)
        own: dict[int, float] = {}
        trial = study.ask()
        for epoch in range(rng.integers(1, 5)):
            own[epoch] = _maybe_nan(rng)
            trial.report(own[epoch], epoch)
            theirs = trial.should_prune()
            ours = worse_than_median(own, others, mode=mode, n_startup_jobs=startup, n_warmup_epochs=warmup)
            assert ours == theirs, (own, others, startup, warmup)
            decisions.append(ours)
    assert 0.1 < np.mean(decisions) < 0.9  # both ways were tried


def _maybe_nan(rng: np.random.Generator) -> float:
    return NAN if rng.random() < 0.1 else float(rng.integers(0, 12))  # few values: many are equal


# --- the callback -------------------------------------------------------------------------------------------


def trainer(folder: Path, value: float, rank: int = 0) -> Any:
    strategy = SimpleNamespace(broadcast=lambda decision: decision)
    return SimpleNamespace(
        default_root_dir=str(folder),
        callback_metrics={"val_loss": value},
        is_global_zero=rank == 0,
        strategy=strategy,
    )


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands for a task: all that the callback asks of it."""
    kind = type("Stub", (), {"stage": "train", "stage_epoch": 0, "in_last_stage": True})
    monkeypatch.setattr("tocsin.callbacks.pruning.Task", kind)
    return kind()


def finish(folder: Path, progress: dict[str, dict[int, float]]) -> None:
    write_progress(folder, progress)
    (folder / "metrics.json").write_text("{}")


def test_job_ends_with_its_best_value_and_leaves_its_progress(tmp_path: Path, task: Any) -> None:
    for number in range(3):
        finish(tmp_path / str(number), {"train": {0: 5.0, 1: 1.0}})
    callback = Pruning(n_startup_jobs=3)
    callback.on_train_epoch_end(trainer(tmp_path / "3", 2.0), task)
    task.stage_epoch = 1
    with pytest.raises(
        Pruned, match=r"epoch 2 of stage train: val_loss 2 is worse than the median"
    ) as caught:
        callback.on_train_epoch_end(trainer(tmp_path / "3", 3.0), task)
    assert caught.value.value == 2.0
    assert json.loads((tmp_path / "3" / "progress.json").read_text()) == {"train": {"0": 2.0, "1": 3.0}}


def test_stages_are_compared_like_with_like(tmp_path: Path, task: Any) -> None:
    """The second stage of the others is far below the first: it says nothing of this job's first one."""
    for number in range(5):
        finish(tmp_path / str(number), {"teacher": {0: 5.0}, "student": {0: 0.01}})
    callback = Pruning(n_startup_jobs=5)
    task.stage, task.in_last_stage = "teacher", False
    callback.on_train_epoch_end(trainer(tmp_path / "9", 4.9), task)
    task.stage, task.in_last_stage = "student", True
    with pytest.raises(Pruned) as caught:
        callback.on_train_epoch_end(trainer(tmp_path / "9", 0.02), task)
    assert caught.value.value == 0.02
    task.stage = "third"
    callback.on_train_epoch_end(trainer(tmp_path / "9", 100.0), task)  # nobody has come so far


def test_value_of_an_earlier_stage_is_no_result(tmp_path: Path, task: Any) -> None:
    """Told to a sweeper, a small loss of a first stage would pass for the best result of all."""
    for number in range(5):
        finish(tmp_path / str(number), {"teacher": {0: 0.1}, "student": {0: 7.0}})
    task.stage, task.in_last_stage = "teacher", False
    with pytest.raises(Pruned, match=r"val_loss 0.2 is worse") as caught:
        Pruning().on_train_epoch_end(trainer(tmp_path / "9", 0.2), task)
    assert math.isnan(caught.value.value)


def test_only_finished_jobs_beside_it_are_asked(tmp_path: Path) -> None:
    own = tmp_path / "sweep" / "1"
    write_progress(own, {"train": {0: 1.0}})
    (own / "metrics.json").write_text("{}")  # of an earlier run in the same folder
    write_progress(tmp_path / "sweep" / "2", {"train": {0: 2.0}})  # still running, or pruned
    finish(tmp_path / "sweep" / "3", {"train": {0: NAN, 1: 3.0}})
    finish(tmp_path / "elsewhere", {"train": {0: 4.0}})
    found = finished_beside(own)
    assert len(found) == 1
    assert math.isnan(found[0]["train"][0])
    assert found[0]["train"][1] == 3.0


def test_resumed_job_knows_what_it_measured(tmp_path: Path, task: Any) -> None:
    for number in range(3):
        finish(tmp_path / str(number), {"train": {0: 5.0, 1: 1.0}})
    first = Pruning(n_startup_jobs=3)
    first.on_train_epoch_end(trainer(tmp_path / "3", 0.5), task)
    resumed = Pruning(n_startup_jobs=3)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    task.stage_epoch = 1
    resumed.on_train_epoch_end(trainer(tmp_path / "3", 3.0), task)  # 0.5 of the first epoch saves it
    assert json.loads((tmp_path / "3" / "progress.json").read_text()) == {"train": {"0": 0.5, "1": 3.0}}


def test_only_the_first_process_writes(tmp_path: Path, task: Any) -> None:
    Pruning().on_train_epoch_end(trainer(tmp_path / "1", 1.0, rank=1), task)
    assert list(tmp_path.iterdir()) == []


def test_damaged_progress_is_named(tmp_path: Path) -> None:
    finish(tmp_path / "2", {})
    (tmp_path / "2" / "progress.json").write_text('{"train": 3}')
    with pytest.raises(TocsinError, match=r"2/progress.json is not the progress of a job"):
        finished_beside(tmp_path / "1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "best"}, "mode=best is neither min nor max"),
        ({"n_startup_jobs": 0}, "n_startup_jobs=0 must be at least 1"),
        ({"n_warmup_epochs": -1}, "n_warmup_epochs=-1 not negative"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pruning(**options)
