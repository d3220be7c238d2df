"""What is found below folders, and what is said of the rest."""

from pathlib import Path

import pytest
from small_sweeps import write_failed, write_run

from tocsin.errors import TocsinError
from tocsin.jobs import State
from tocsin.leaderboard.runs import find, run_folders


def test_runs_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write_run(tmp_path / "sweep" / str(number), {}, seed=number, job=True)
    write_run(tmp_path / "outputs" / "mae" / "now", {}, seed=7)  # a single run, which has no job.json
    found = find([tmp_path / "sweep", tmp_path])
    assert [run.seed for run in found.runs] == [1, 2, 10, 7]  # each once
    assert found.lost == []


def test_what_lies_inside_of_a_run_is_no_run(tmp_path: Path) -> None:
    write_run(tmp_path / "0", {}, value=0.5)
    write_run(tmp_path / "0" / "evaluate", {}, value=0.9)
    assert run_folders(tmp_path) == [tmp_path / "0"]
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "name").symlink_to(tmp_path / "0")
    assert run_folders(tmp_path) == [tmp_path / "0"]


def test_jobs_without_a_result_are_told_with_their_error(tmp_path: Path) -> None:
    write_run(tmp_path / "0", {}, job=True)
    write_failed(
        tmp_path / "1", {"model.d_model": 4}, state=State.FAILED, error="out of memory\nlower data.batch_size"
    )
    write_failed(tmp_path / "2", {}, state=State.PRUNED, error="others were better")
    write_failed(tmp_path / "3", {}, state=State.RUNNING)
    write_failed(tmp_path / "4", {}, state=State.FINISHED)  # its metrics.json is gone
    write_run(tmp_path / "5", {}, job=True)
    write_failed(
        tmp_path / "5", {}, state=State.FAILED, error="it was run again"
    )  # beside the numbers of before
    (tmp_path / "6" / ".hydra").mkdir(parents=True)
    (tmp_path / "6" / ".hydra" / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "6" / ".hydra" / "overrides.yaml").write_text("- seed=1\n")
    found = find([tmp_path])
    assert len(found.runs) == 1
    assert [job.state for job in found.lost] == [
        "failed",
        "pruned",
        "unfinished",
        "damaged",
        "failed",
        "unfinished",
    ]
    assert found.lost[0].error == "out of memory lower data.batch_size"
    assert found.lost[0].overrides == {"model.d_model": "4"}
    assert found.lost[5].overrides == {"seed": "1"}
    assert "metrics.json is gone" in found.lost[3].error


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"run": {"model": "a", "seed": 1}, "data": {}}', '{"run": 1}', "null"]
)
def test_a_damaged_file_is_named_and_the_others_are_still_read(tmp_path: Path, text: str) -> None:
    write_run(tmp_path / "0", {})
    write_run(tmp_path / "1", {})
    (tmp_path / "1" / "metrics.json").write_text(text)
    found = find([tmp_path])
    assert len(found.runs) == 1
    assert [job.state for job in found.lost] == ["damaged"]
    assert found.lost[0].error.startswith(f"{tmp_path / '1' / 'metrics.json'} is not a metrics.json of a run")


def test_damaged_records_and_configurations_are_named(tmp_path: Path) -> None:
    for number in range(3):
        write_run(tmp_path / str(number), {}, job=True)
    (tmp_path / "1" / "job.json").write_text("{}")
    (tmp_path / "2" / ".hydra" / "config.yaml").write_text("a: [")
    errors = [job.error for job in find([tmp_path]).lost]
    assert "is not the record of a job" in errors[0]
    assert "config.yaml is not YAML" in errors[1]


def test_folders_without_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(TocsinError, match="nowhere: there is no such folder"):
        find([tmp_path / "nowhere"])
    with pytest.raises(TocsinError, match="no runs below"):
        find([tmp_path])
