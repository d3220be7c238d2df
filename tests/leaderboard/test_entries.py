"""Which runs are one entry, and which entries may be compared."""

from pathlib import Path
from typing import Any

from small_sweeps import write_failed, write_run

from tocsin.jobs import State
from tocsin.leaderboard.entries import Entry, comparable
from tocsin.leaderboard.runs import find


def sets(folder: Path) -> list[list[Entry]]:
    found = find([folder])
    return comparable(found.runs, found.lost)


def run(folder: Path, number: int, **options: Any) -> None:
    overrides = {key.replace("__", "."): options.pop(key) for key in list(options) if "__" in key}
    write_run(folder / str(number), overrides, **options)


def test_runs_that_differ_in_the_seed_alone_are_one_entry(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        run(tmp_path, seed, seed=seed, model__d_model=16)
        run(tmp_path, 10 + seed, seed=seed, model__d_model=32)
    (entries,) = sets(tmp_path)
    assert [len(entry.runs) for entry in entries] == [3, 3]


def test_resuming_and_logging_change_nothing_but_tags_do(tmp_path: Path) -> None:
    plain = {"model.name": "mae", "seed": 1}
    for number, extra in enumerate(
        ({}, {"ckpt_path": "last"}, {"logger.csv.name": "x"}, {"tags": ["ablation"]})
    ):
        write_run(tmp_path / str(number), {}, seed=number, config={**plain, **extra})
    (entries,) = sets(tmp_path)
    assert sorted(len(entry.runs) for entry in entries) == [1, 3]


def test_the_newest_of_several_runs_counts(tmp_path: Path) -> None:
    run(tmp_path, 0, value=0.9, finished="2026-11-26T12:00:00")
    run(tmp_path, 1, value=0.1, finished="2026-11-25T12:00:00")
    ((entry,),) = sets(tmp_path)
    assert [found.sections["test"]["vus_pr"] for found in entry.runs.values()] == [0.9]
    assert [found.folder.name for found in entry.repeated] == ["1"]


def test_other_data_are_never_in_one_set(tmp_path: Path) -> None:
    run(tmp_path, 0, fingerprint="a", data__total_length=100)
    run(tmp_path, 1, fingerprint="b", data__total_length=200)
    run(tmp_path, 2, fingerprint="a", data__total_length=100, model="pca")
    assert [len(entries) for entries in sets(tmp_path)] == [2, 1]


def test_options_that_leave_the_test_data_alone_do_not_part_runs(tmp_path: Path) -> None:
    run(tmp_path, 0, data__batch_size=32)
    run(tmp_path, 1, data__batch_size=64)
    assert [len(entries) for entries in sets(tmp_path)] == [2]


def test_splits_that_depend_on_the_seed_are_tied_by_configurations(tmp_path: Path) -> None:
    for seed in (1, 2):
        run(tmp_path, seed, seed=seed, fingerprint=f"split {seed}")
        run(tmp_path, 10 + seed, seed=seed, fingerprint=f"split {seed}", model="pca")
    (entries,) = sets(tmp_path)
    assert [len(entry.runs) for entry in entries] == [2, 2]


def test_a_file_that_has_changed_parts_the_runs_before_from_those_after(tmp_path: Path) -> None:
    run(tmp_path, 0, seed=1, fingerprint="before")
    run(tmp_path, 1, seed=1, fingerprint="after", model="pca")
    run(tmp_path, 2, seed=1, fingerprint="after")  # the configuration of the first one
    assert sorted(len(entries) for entries in sets(tmp_path)) == [1, 2]


def test_another_yardstick_is_another_set(tmp_path: Path) -> None:
    run(tmp_path, 0, task__vus_buffer=100)
    run(tmp_path, 1, task__vus_buffer=10)
    assert len(sets(tmp_path)) == 2
    victims = tmp_path / "patches"
    for number, victim in enumerate(("a.pt", "b.pt")):
        run(victims, number, metric="ap50_beyond_control", source="person", model__victim=victim)
    assert len(sets(victims)) == 2


def test_series_of_one_folder_are_entities_of_a_data_set(tmp_path: Path) -> None:
    for number, entity in enumerate("ab"):
        run(
            tmp_path,
            number,
            source=f"smd/{entity}.npz",
            fingerprint=entity,
            data__path=f"/x/smd/{entity}.npz",
        )
    ((entry,),) = sets(tmp_path)
    assert {entity for entity, _ in entry.runs} == {"a.npz", "b.npz"}


def test_series_that_no_configuration_shares_are_compared_apart(tmp_path: Path) -> None:
    run(tmp_path, 0, source="mine/a.csv", fingerprint="a", data__path="/x/mine/a.csv")
    run(tmp_path, 1, source="mine/a.csv", fingerprint="a", data__path="/x/mine/a.csv", model="pca")
    run(tmp_path, 2, source="mine/b.csv", fingerprint="b", data__path="/x/mine/b.csv", model="kmeans")
    assert sorted(len(entries) for entries in sets(tmp_path)) == [1, 2]


def test_entities_are_compared_one_by_one_where_no_configuration_has_all(tmp_path: Path) -> None:
    done = [("mae", "a"), ("mae", "b"), ("pca", "b"), ("pca", "c")]
    for number, (model, entity) in enumerate(done):
        run(tmp_path, number, model=model, source=f"smd/{entity}", fingerprint=entity)
    assert sorted(len(entries) for entries in sets(tmp_path)) == [1, 1, 2]


def test_a_lost_job_belongs_to_the_entry_with_its_configuration(tmp_path: Path) -> None:
    run(tmp_path, 0, seed=1, model__d_model=16)
    run(tmp_path, 1, seed=1, model__d_model=32)
    write_failed(tmp_path / "2", {"model.d_model": 32, "seed": 2}, state=State.FAILED, error="no memory")
    (entries,) = sets(tmp_path)
    assert [len(entry.lost) for entry in entries] == [0, 1]
