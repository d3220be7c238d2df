"""Ranks, baselines, leads and reasons."""

import statistics
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from small_sweeps import write_failed, write_run

from tocsin.jobs import State
from tocsin.leaderboard.board import Table, build
from tocsin.leaderboard.rows import Row
from tocsin.leaderboard.runs import KINDS


def sweep(folder: Path, values: dict[str, dict[int, float]], **options: Any) -> Path:
    """Runs by model and seed; `model/16` stands for an option d_model=16."""
    number = 0
    for name, by_seed in values.items():
        model, _, width = name.partition("/")
        for seed, value in by_seed.items():
            overrides = {"model.d_model": width} if width else {}
            write_run(folder / str(number), overrides, model=model, seed=seed, value=value, **options)
            number += 1
    return folder


def table(folder: Path) -> Table:
    (only,) = build([folder]).tables
    return only


def row(found: Table, label: str) -> Row:
    return next(row for row in (*found.rows, *found.unranked) if row.label == label)


def test_entries_are_ranked_by_their_mean_with_baselines_among_them(tmp_path: Path) -> None:
    found = table(sweep(tmp_path, {"mae/16": {1: 0.4, 2: 0.6}, "mae/32": {1: 0.9}, "pca": {1: 0.7}}))
    assert [(row.rank, row.label, row.baseline) for row in found.rows] == [
        (1, "mae d_model=32", False),
        (2, "pca", True),
        (3, "mae d_model=16", False),
        (4, "largest deviation", True),
        (5, "random", True),
    ]
    third = found.rows[2]
    assert third.mean == pytest.approx(0.5)
    assert third.metrics["vus_pr"] == [0.4, 0.6]
    assert found.reference is found.rows[1]
    assert [row.lead for row in found.rows][:3] == [pytest.approx(0.2), None, pytest.approx(-0.2)]


def test_equals_share_a_rank(tmp_path: Path) -> None:
    found = table(sweep(tmp_path, {"mae/16": {1: 0.5}, "mae/32": {1: 0.5}, "mae/64": {1: 0.4}}))
    assert [row.rank for row in found.rows[:3]] == [1, 1, 3]


def test_leads_are_tested_over_seeds_and_adjusted(tmp_path: Path) -> None:
    seeds = (1, 2, 3)
    values = {
        "pca": (0.30, 0.32, 0.31),
        "mae/16": (0.61, 0.60, 0.62),
        "mae/32": (0.33, 0.31, 0.36),
        "mae/64": (0.9,),
    }
    found = table(
        sweep(tmp_path, {name: dict(zip(seeds, own, strict=False)) for name, own in values.items()})
    )
    raw = [
        stats.ttest_rel(values[name], values["pca"], alternative="greater").pvalue
        for name in ("mae/16", "mae/32")
    ]
    assert row(found, "mae d_model=16").p == pytest.approx(2 * raw[0])  # the smaller of two
    assert row(found, "mae d_model=32").p == pytest.approx(max(2 * raw[0], raw[1]))
    assert row(found, "mae d_model=64").p is None  # one seed
    assert row(found, "pca").p is None
    assert [row(found, f"mae d_model={width}").marked for width in (16, 32, 64)] == [True, False, False]
    assert found.notes[0].startswith("* beats pca, the best baseline, with p < 0.05")
    assert "over 2 entries" in found.notes[0]


def test_a_single_seed_of_the_baseline_is_told(tmp_path: Path) -> None:
    found = table(sweep(tmp_path, {"pca": {1: 0.5}, "mae": {1: 0.6, 2: 0.7, 3: 0.8}}))
    assert found.notes[0].startswith("pca, the best baseline, has 1 seed(s)")
    assert row(found, "mae").p is None


def test_too_few_seeds_are_told_and_baselines_alone_need_no_remark(tmp_path: Path) -> None:
    baseline = {"pca": {1: 0.5, 2: 0.5, 3: 0.5}}
    alone = table(sweep(tmp_path / "alone", baseline))
    assert alone.notes == []
    with_two = table(sweep(tmp_path / "two", baseline | {"mae": {1: 0.6, 2: 0.7}}))
    assert with_two.notes == [
        "No entry has 3 seeds that change its result, so no lead can be told from luck."
    ]
    nothing = table(sweep(tmp_path / "nothing", {"mae": {1: 0.6}}, baselines={}))
    assert nothing.notes[0].startswith("No baseline was measured here")
    assert nothing.rows[0].lead is None


def test_scores_without_a_model_follow_the_seed_of_their_runs(tmp_path: Path) -> None:
    for seed, value in ((1, 0.1), (2, 0.3)):
        baselines = {"random": {"vus_pr": value}}
        write_run(
            tmp_path / str(seed), {}, seed=seed, value=0.6, baselines=baselines, fingerprint=f"split {seed}"
        )
    assert row(table(tmp_path), "random").values == {1: 0.1, 2: 0.3}


def test_random_weights_never_compete_but_classifiers_do(tmp_path: Path) -> None:
    images, classes = tmp_path / "images", tmp_path / "classes"
    data = {"metric": "image_auroc", "source": "hdmap/domain_A"}
    write_run(images / "0", {}, value=0.99, pretrained=False, model="dinomaly", **data)
    write_run(images / "1", {}, value=0.7, model="draem", **data)
    found = table(images)
    assert found.title == "hdmap/domain_A"
    assert [row.name for row in found.rows if not row.baseline] == ["draem"]
    assert [(row.name, row.rank) for row in found.unranked] == [("dinomaly: from scratch", None)]
    assert "pretrained: false" in found.unranked[0].reason
    write_run(classes / "0", {}, metric="macro_f1", value=0.9, pretrained=False, model="classifier")
    assert row(table(classes), "classifier: from scratch").rank == 1


def test_the_best_value_any_threshold_could_reach_is_nowhere(tmp_path: Path) -> None:
    write_run(tmp_path / "0", {}, value=0.5, oracle={"point_f1": 0.99, "best": 0.98})
    found = table(tmp_path)
    assert all("best" not in row.metrics and 0.99 not in row.metrics["point_f1"] for row in found.rows[:1])


def test_a_series_that_lacks_takes_the_seed_or_the_rank(tmp_path: Path) -> None:
    place = 0
    for model, done in {"mae": {1: "ab", 2: "a"}, "carla": {1: "a"}}.items():
        for seed, entities in done.items():
            for entity in entities:
                write_run(
                    tmp_path / str(place), {}, model=model, seed=seed, source=f"smd/{entity}", fingerprint=entity,
                    value={"a": 0.4, "b": 0.8}[entity],
                )  # fmt: skip
                place += 1
    found = table(tmp_path)
    assert found.entities == ["a", "b"]
    assert row(found, "mae").values == {1: pytest.approx(0.6)}  # not 0.4 of the incomplete second seed
    assert row(found, "carla").reason == "no result on b"


def test_patches_are_compared_with_no_effect_beyond_the_strongest_control(tmp_path: Path) -> None:
    controls = {"gray": {"ap50": 0.8}, "noise": {"ap50": 0.7}}
    write_run(
        tmp_path / "0", {}, metric="ap50_beyond_control", value=0.2, source="person", baselines=controls,
        best_control="noise", model="yolo_patch",
    )  # fmt: skip
    found = table(tmp_path)
    assert [(row.name, row.mean) for row in found.rows] == [("yolo_patch", 0.2), ("strongest control", 0.0)]
    assert found.rows[1].metrics["ap50"] == [0.7]


def test_undefined_values_and_missing_labels(tmp_path: Path) -> None:
    write_run(tmp_path / "0", {}, value=None, seed=1)
    write_run(tmp_path / "1", {}, metric="", seed=2, model="pca")
    board = build([tmp_path])
    assert [row.reason for row in board.tables[0].unranked] == ["vus_pr is not defined"]
    assert [job.state for job in board.lost] == ["no labels"]
    assert board.n_runs == 1


def test_lost_jobs_are_counted_where_they_belong(tmp_path: Path) -> None:
    sweep(tmp_path, {"mae/16": {1: 0.5}, "mae/32": {1: 0.4}})
    write_failed(tmp_path / "9", {"model.d_model": "16", "seed": 2}, state=State.FAILED, error="no memory")
    found = table(tmp_path)
    assert [row(found, f"mae d_model={width}").lost for width in (16, 32)] == [1, 0]
    assert "1 job(s) of these entries have no result: means are over the other seeds." in found.notes


def test_entries_of_one_name_are_told_apart_by_their_configuration(tmp_path: Path) -> None:
    for number, width in enumerate((16, 32)):  # as an option of another version of the code
        write_run(tmp_path / str(number), {}, config={"model.d_model": width, "model.name": "mae"})
    assert {row.label for row in table(tmp_path).rows if not row.baseline} == {
        "mae d_model=16",
        "mae d_model=32",
    }


def test_tables_of_data_of_one_name_say_what_sets_the_data_apart(tmp_path: Path) -> None:
    for number, length in enumerate((100, 200)):
        write_run(tmp_path / str(number), {"data.total_length": length}, fingerprint=str(length), source=None)
    assert [found.title for found in build([tmp_path]).tables] == [
        "series, total_length=100",
        "series, total_length=200",
    ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.metric)
def test_each_kind_is_ranked_by_its_own_metric(tmp_path: Path, kind: Any) -> None:
    for number, value in enumerate((0.3, 0.6)):
        write_run(
            tmp_path / str(number),
            {"model.d_model": number},
            metric=kind.metric,
            value=value,
            source="set/part",
        )
    found = table(tmp_path)
    assert found.kind is kind
    assert [row.mean for row in found.rows if not row.baseline] == [0.6, 0.3]
    assert statistics.fmean(found.rows[0].metrics[kind.metric]) == 0.6
