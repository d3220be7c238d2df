"""Pictures of finished runs, sweeps and searches, drawn again from their folders."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from tocsin import cli, visualize
from tocsin.config import conf_dir
from tocsin.errors import TocsinError
from tocsin.jobs import Job, State, write_job
from tocsin.pipeline import train
from tocsin.search.plan import Plan, write_plan

SERIES = {"signal.png", "score_histogram.png", "precision_recall.png", "confusion_matrix.png"}
NO_LAYERS = ["architecture: WindowPCA has no layers"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small run with its pictures."""
    folder = tmp_path_factory.mktemp("run")
    store = ConfigStore.instance()
    before = dict(store.repo)
    cli.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        settings = [
            *("model=pca", "data=synthetic", "++data.n_samples=60", "++data.passes=1", "trainer=cpu"),
            *("logger=none", "cache_dir=null", f"trainer.default_root_dir={folder}"),
        ]
        train(compose("train", settings))
    yield folder
    store.repo = before


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The same without its pictures."""
    return Path(shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("plots")))


def drawn(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.png")}


# --- a run --------------------------------------------------------------------------------------------------


def test_run_is_drawn_as_it_was_after_its_training(copy: Path) -> None:
    assert visualize.visualize(copy) == []
    assert SERIES | {"training.png", "data_overview.png"} <= drawn(copy / "plots")


def test_run_without_checkpoints_is_drawn_from_its_scores(copy: Path) -> None:
    shutil.rmtree(copy / "checkpoints")
    first, second = visualize.visualize(copy)
    assert first.startswith("pictures that need the model and its data: ckpt_path=")
    assert "there is no such file" in first
    assert second.startswith("training curves: no checkpoint kept the history")
    assert drawn(copy / "plots") == SERIES - {"signal.png"}


def test_run_with_metrics_alone_says_that_nothing_can_be_drawn(copy: Path) -> None:
    shutil.rmtree(copy / "checkpoints")
    (copy / "scores.npz").unlink()
    assert any("scores.npz is missing" in line for line in visualize.visualize(copy))
    assert drawn(copy / "plots") == set()


# --- sweeps -------------------------------------------------------------------------------------------------


def job(run: Path, folder: Path, number: int, overrides: tuple[str, ...], value: float | None) -> None:
    """A job of a sweep, with what the small run left behind."""
    shutil.copytree(run, folder / str(number))
    record = Job(folder=folder / str(number), number=number, overrides=overrides)
    state = State.FAILED if value is None else State.FINISHED
    write_job(replace(record, state=state, value=value, seconds=1.0 + number))


def test_sweep_is_drawn_by_what_its_jobs_differ_in(run: Path, tmp_path: Path) -> None:
    for number, (seed, value) in enumerate((("1", 0.3), ("2", 0.2), ("3", None))):
        job(run, tmp_path, number, ("model=pca", f"seed={seed}"), value)
    assert visualize.visualize(tmp_path) == NO_LAYERS
    folder = tmp_path / "visualization"
    assert drawn(folder / "sweep") == {"effects.png", "time_quality.png"}
    assert drawn(folder / "best_model") >= SERIES


def test_search_is_drawn_with_all_its_parts_and_tables(run: Path, tmp_path: Path) -> None:
    plan = Plan(
        swept={"++model.explained": ["0.8", "0.9"], "seed": ["1", "2"]},
        quick=["data.n=1"],
        full=["data.n=2"],
        promote=2,
        per_value=1,
    )
    write_plan(plan, tmp_path)
    for number, setting in enumerate(plan.settings()):
        value = 1.0 + 0.1 * number
        job(run, tmp_path / "quick", number, plan.overrides("quick", setting), value)
        if number < 3:  # 0 and 1 are the best of all, 2 is the best of model.explained=0.9
            job(run, tmp_path / "full", number, plan.overrides("full", setting), 0.9 - 0.1 * number)
    assert visualize.visualize(tmp_path) == NO_LAYERS
    folder = tmp_path / "visualization"
    assert drawn(folder / "stage1") == {"effects.png", "heat_map.png", "time_quality.png"}
    assert drawn(folder / "stage2") == {"ranking.png", "quick_against_full.png"}
    assert drawn(folder / "data") == {"splits.png", "anomalies.png"}
    assert drawn(folder / "best_model") >= SERIES
    assert "best of model.explained=0.9" in (tmp_path / "full_results.csv").read_text()


def test_search_whose_best_model_is_gone_keeps_its_other_pictures(run: Path, tmp_path: Path) -> None:
    plan = Plan(swept={"seed": ["1", "2"]}, promote=1)
    write_plan(plan, tmp_path)
    for number, setting in enumerate(plan.settings()):
        job(run, tmp_path / "quick", number, plan.overrides("quick", setting), 1.0 + number)
    job(run, tmp_path / "full", 0, plan.overrides("full", plan.settings()[0]), 0.5)
    shutil.rmtree(tmp_path / "full" / "0" / "checkpoints")
    (line,) = visualize.visualize(tmp_path)
    assert line.startswith("data, architecture: ckpt_path=")
    assert drawn(tmp_path / "visualization" / "best_model") >= SERIES  # copied
    assert drawn(tmp_path / "visualization" / "stage2") == {"ranking.png", "quick_against_full.png"}


# --- the command --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "there is no such folder"), ("", "is not the folder of a run")],
)
def test_folder_that_is_none_of_these(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(TocsinError, match=message):
        visualize.visualize(tmp_path / name)


def test_command_takes_the_folder_as_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(visualize, "visualize", asked.append)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr("sys.argv", ["visualize", f"run={tmp_path}"])
    visualize.main()
    assert asked == [tmp_path]
    monkeypatch.setattr("sys.argv", ["visualize", "--help"])
    with pytest.raises(SystemExit, match="0"):
        visualize.main()
    assert "run=FOLDER" in capsys.readouterr().out
