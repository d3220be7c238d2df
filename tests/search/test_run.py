"""Both stages of a search: who is promoted, what is written, and what a second start repeats."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
from search_bench import Bench, by_formula

from tocsin.errors import ConfigError, TocsinError
from tocsin.jobs import State, read_jobs
from tocsin.search.plan import Plan
from tocsin.search.run import read_study, search


def lines(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_promoted_jobs_run_in_full_and_the_best_model_is_kept(
    plan: Plan, bench: Bench, tmp_path: Path
) -> None:
    study = search(plan, tmp_path, bench)
    # quick: 2/7 0.07, 2/8 0.08, then 1/7 and 3/7 1.07; each seed and each d has its best.
    assert [trial.setting for trial in study.full] == [
        {"model.d": "1", "seed": "7"},
        {"model.d": "2", "seed": "7"},
        {"model.d": "2", "seed": "8"},
        {"model.d": "3", "seed": "7"},
    ]
    assert study.best is not None
    assert study.best.setting == {"model.d": "3", "seed": "7"}
    assert study.best.quality == pytest.approx(2.07)
    assert (tmp_path / "best_model.ckpt").read_text() == "full 3"
    assert bench.ran == [f"quick/{n}" for n in range(6)] + [f"full/{n}" for n in range(4)]
    assert [job.overrides for job in read_jobs(tmp_path / "full")][1] == (
        *("model=pca", "++model.d=2", "seed=7", "data.n=100"),
    )


def test_tables_have_a_line_for_each_job(plan: Plan, bench: Bench, tmp_path: Path) -> None:
    search(plan, tmp_path, bench)
    quick, full = lines(tmp_path / "quick_results.csv"), lines(tmp_path / "full_results.csv")
    assert [row["promoted"] for row in quick] == ["yes", "no", "yes", "yes", "yes", "no"]
    assert quick[2]["why"] == "overall 1; best of model.d=2; best of seed=7"
    assert quick[4] == {
        **{"job": "4", "model.d": "3", "seed": "7", "state": "finished", "val_loss": "1.07"},
        **{"planted.vus_pr": "-0.07", "test.vus_pr": "0.607", "fit_seconds": "2.5", "parameters": "1234"},
        **{"promoted": "yes", "why": "best of model.d=3", "error": "", "seconds": quick[4]["seconds"]},
    }
    assert float(quick[4]["seconds"]) < 5
    assert full[3]["job"] == "3"
    assert (full[3]["quick_job"], full[3]["quick val_loss"], full[3]["val_loss"]) == ("4", "1.07", "2.07")
    assert full[3]["why"] == "best of model.d=3"


@pytest.mark.parametrize("after", [3, 8])  # in the quick stage, in the full stage
def test_search_that_was_killed_repeats_nothing_that_has_finished(
    plan: Plan, tmp_path: Path, after: int
) -> None:
    first = Bench(by_formula)
    first.die_after = after
    with pytest.raises(KeyboardInterrupt):
        search(plan, tmp_path, first)
    again = Bench(by_formula)
    study = search(plan, tmp_path, again)
    assert len(first.ran) == after
    every = [f"quick/{n}" for n in range(6)] + [f"full/{n}" for n in range(4)]
    assert sorted(first.ran + again.ran) == sorted(every)
    whole = search(plan, tmp_path / "whole", Bench(by_formula))
    assert [trial.setting for trial in study.full] == [trial.setting for trial in whole.full]
    for name in ("quick_results.csv", "full_results.csv"):
        one, other = (
            [row | {"seconds": ""} for row in lines(folder / name)]
            for folder in (tmp_path, tmp_path / "whole")
        )
        assert one == other


def test_failed_jobs_are_in_the_table_with_their_error(plan: Plan, tmp_path: Path) -> None:
    bench = Bench(lambda values, stage: math.nan if values["model.d"] == "2" else by_formula(values, stage))
    study = search(plan, tmp_path, bench)
    row = lines(tmp_path / "quick_results.csv")[2]
    assert (row["state"], row["val_loss"], row["promoted"]) == ("failed", "", "no")
    assert row["error"] == "job 2 ran out of memory"
    assert {trial.setting["model.d"] for trial in study.full} == {"1", "3"}


@pytest.mark.parametrize("stage", ["quick", "full"])
def test_stage_of_which_all_jobs_fail_ends_with_one_line(plan: Plan, tmp_path: Path, stage: str) -> None:
    bench = Bench(lambda values, where: math.nan if where == stage else by_formula(values, where))
    with pytest.raises(TocsinError, match=f"jobs of the {stage} stage has finished.*job 0 ran out of memory"):
        search(plan, tmp_path, bench)
    assert {row["state"] for row in lines(tmp_path / f"{stage}_results.csv")} == {"failed"}
    assert not (tmp_path / "best_model.ckpt").exists()


def test_metric_of_validation_data_may_decide(plan: Plan, bench: Bench, tmp_path: Path) -> None:
    """Planted is 1 - value: with mode=max the same jobs are chosen; with the test metric all would turn round."""
    study = search(replace(plan, metric="planted.vus_pr", mode="max"), tmp_path, bench)
    assert study.best is not None
    assert study.best.setting == {"model.d": "3", "seed": "7"}
    assert study.best.quality == pytest.approx(1 - 2.07)
    assert lines(tmp_path / "full_results.csv")[0]["quick planted.vus_pr"] == "-0.07"


def test_metric_that_no_job_has_names_those_there_are(plan: Plan, bench: Bench, tmp_path: Path) -> None:
    wrong = replace(plan, metric="planted.vuspr", mode="max")
    with pytest.raises(
        ConfigError, match=r"planted.vuspr: no finished job has it; there are: planted.vus_pr"
    ):
        search(wrong, tmp_path, bench)
    assert not (tmp_path / "full").exists()


def test_launcher_that_keeps_no_records_is_written_down(plan: Plan, tmp_path: Path) -> None:
    """Hydra's own launchers know values and exceptions only."""

    def launch(stage_dir: Path, overrides: object) -> list[float | BaseException]:
        assert isinstance(overrides, list)
        values: list[float | BaseException] = [float(number) for number in range(len(overrides))]
        if len(values) > 5:
            values[1], values[5] = ValueError("bad seed\nand more"), math.nan
        return values

    study = search(plan, tmp_path, launch)
    states = [(trial.job.state, trial.job.error) for trial in study.quick]
    assert states[0] == (State.FINISHED, None)
    assert states[1] == (State.FAILED, "bad seed")
    assert states[5] == (State.FAILED, "it returned no number")
    assert study.quick[2].quality == 2.0
    assert study.quick[2].seconds is None


def test_jobs_of_another_grid_in_the_folder_are_no_part_of_the_search(
    plan: Plan, bench: Bench, tmp_path: Path
) -> None:
    search(plan, tmp_path, bench)
    smaller = replace(plan, swept={"++model.d": ["1", "3"], "seed": ["7"]}, promote=1)
    study = search(smaller, tmp_path, Bench(by_formula))
    assert [trial.job.number for trial in study.quick] == [0, 4]
    assert len(study.full) == 2


def test_folder_of_no_search_is_named(tmp_path: Path) -> None:
    with pytest.raises(TocsinError, match="is not the folder of a two-stage search"):
        read_study(tmp_path)
