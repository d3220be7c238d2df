"""TensorBoard's folder of a sweep: names, links, and the columns of the HParams table."""

from pathlib import Path
from typing import Any

import pytest
from small_sweeps import write_config, write_failed, write_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from torch.utils.tensorboard import SummaryWriter

from tocsin.board_links import COLUMNS, after_sweep, link_runs
from tocsin.errors import TocsinError
from tocsin.jobs import State


def log(folder: Path, value: float = 0.5) -> None:
    with SummaryWriter(folder / "tensorboard") as writer:
        writer.add_scalar("test/vus_pr", value, 1)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two models and two seeds; one job failed after it had logged something."""
    folder = tmp_path / "sweep"
    for number, (model, seed) in enumerate([("pca", 1), ("pca", 2), ("mae", 1)]):
        config = {"model._target_": f"tocsin.models.{model}.{model.title()}", "data.window": 50, "seed": seed}
        config |= {"model.d_model": 16} if model == "mae" else {"model.components": 0.5}
        write_run(folder / str(number), {"data.window": 50}, model=model, seed=seed, config=config, job=True)
        log(folder / str(number))
    write_failed(
        folder / "3", {"model": "mae", "data.window": 50, "seed": 2}, state=State.FAILED, error="no memory"
    )
    write_config(folder / "3", config | {"seed": 2})
    log(folder / "3")
    return folder


NAMES = ["model=pca,seed=1", "model=pca,seed=2", "model=mae,seed=1", "model=mae,seed=2"]


def columns(board: Path) -> Any:
    (file,) = board.rglob(COLUMNS)
    tag = EventAccumulator(str(file)).Reload().summary_metadata[metadata.EXPERIMENT_TAG]
    return metadata.parse_experiment_plugin_data(tag.plugin_data.content)


def test_runs_have_names_that_tell_them_apart(sweep: Path) -> None:
    board = after_sweep(sweep)
    assert board == sweep / "tensorboard"
    assert sorted(path.name for path in board.iterdir()) == sorted(NAMES)
    scalars = EventAccumulator(str(board / NAMES[2])).Reload().Scalars("test/vus_pr")
    assert [event.value for event in scalars] == [0.5]


def test_links_survive_a_move_of_the_sweep(sweep: Path) -> None:
    after_sweep(sweep)
    moved = sweep.rename(sweep.with_name("moved"))
    assert all(link.is_file() for link in (moved / "tensorboard").rglob("events*"))


def test_a_second_call_adds_what_is_new_and_takes_away_what_is_gone(sweep: Path) -> None:
    board = sweep / "tensorboard"
    assert link_runs([sweep], board) == NAMES
    kept = {link: link.lstat().st_mtime_ns for link in board.rglob("events*")}
    (board / "note.txt").write_text("mine")
    link_runs([sweep], board)
    assert {link: link.lstat().st_mtime_ns for link in board.rglob("events*")} == kept
    write_run(sweep / "4", {"data.window": 50}, model="kmeans", seed=1, job=True)
    log(sweep / "4")
    for path in (sweep / "0").rglob("*"):
        if path.is_file():
            path.unlink()
    link_runs([sweep], board)
    assert (board / "model=kmeans,seed=1").is_dir()
    assert not (board / "model=pca,seed=1").exists()
    assert len(list(board.rglob(COLUMNS))) == 1
    assert (board / "note.txt").read_text() == "mine"


def test_all_models_have_their_columns_and_the_metric_that_ranks_is_first(sweep: Path) -> None:
    after_sweep(sweep)
    table = columns(sweep / "tensorboard")
    differs = {info.name: info.differs for info in table.hparam_infos}
    told = {name for name, value in differs.items() if value}
    assert told == {"model", "seed", "model.d_model", "model.components"}
    assert differs["data.window"] is False
    assert [value for value in differs.values()] == sorted(differs.values(), reverse=True)
    assert table.metric_infos[0].name.tag == "test/vus_pr"
    assert {info.name.tag for info in table.metric_infos} == {"test/vus_pr", "test/point_f1", "val_loss"}


def test_several_sweeps_and_single_runs_have_names_below_theirs(sweep: Path, tmp_path: Path) -> None:
    single = tmp_path / "outputs" / "mae" / "sliding" / "now"
    write_run(single, {})
    log(single)
    names = link_runs([sweep, tmp_path / "outputs"], tmp_path / "board")
    assert names == [*(f"sweep/{name}" for name in NAMES), "mae/sliding/now"]


def test_names_are_those_of_files_and_unlike(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / "sweep" / str(number), {"data.note": f"a b/{'x' * 300}{number}"}, job=True)
        log(tmp_path / "sweep" / str(number))
    first, second = link_runs([tmp_path / "sweep"], tmp_path / "board")
    assert first != second
    assert "/" not in first
    assert len(first) < 200


def test_runs_without_event_files(tmp_path: Path) -> None:
    write_run(tmp_path / "0", {})
    assert after_sweep(tmp_path) is None
    with pytest.raises(TocsinError, match="nowhere: there is no such folder"):
        link_runs([tmp_path / "nowhere"], tmp_path / "board")
