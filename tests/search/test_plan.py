"""A search as it is written down, and what cannot be searched."""

from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tocsin.errors import ConfigError, TocsinError
from tocsin.search.plan import Plan, as_overrides, check_plan, read_plan, write_plan

PLAN = Plan(
    swept={"++model.d": ["1", "2"], "seed": ["7", "8", "9"]},
    fixed=["model=pca", "++data.n=5", "++trainer.max_epochs=9"],
    quick=["++trainer.max_epochs=1"],
    full=["++trainer.max_epochs=2", "+data.n=50"],
)


def test_every_combination_the_last_key_fastest() -> None:
    settings = PLAN.settings()
    assert len(settings) == 6
    assert settings[1] == {"++model.d": "1", "seed": "8"}
    assert settings[5] == {"++model.d": "2", "seed": "9"}


def test_overrides_of_a_stage_replace_what_all_jobs_share() -> None:
    setting = PLAN.settings()[0]
    assert PLAN.overrides("quick", setting) == (
        *("model=pca", "++data.n=5", "++model.d=1", "seed=7", "++trainer.max_epochs=1"),
    )
    assert PLAN.overrides("full", setting) == (
        *("model=pca", "++model.d=1", "seed=7", "++trainer.max_epochs=2", "+data.n=50"),
    )


def test_overrides_of_a_stage_as_hydra_reads_them() -> None:
    options = {
        "data.n": 20000,
        "trainer": {"max_epochs": 1, "precision": None},
        "model.deep": True,
        "data.path": "a b/c'd.csv",
        "tags": ["x", "y"],
        "lr": 1e-05,
    }
    texts = as_overrides(options)
    read = {found.key_or_group: found.value() for found in OverridesParser.create().parse_overrides(texts)}
    assert read == {
        "data.n": 20000,
        "trainer.max_epochs": 1,
        "trainer.precision": None,
        "model.deep": True,
        "data.path": read["data.path"],
        "tags": ["x", "y"],
        "lr": 1e-05,
    }
    assert str(read["data.path"]).strip("'") == "a b/c'd.csv"
    assert as_overrides(["a=1"]) == ["a=1"]
    assert as_overrides(None) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"swept": {}}, "needs a grid"),
        ({"quick": ["seed=3"]}, "quick sets seed, which is swept"),
        ({"full": ["model.d=3"]}, "full sets model.d, which is swept"),
        ({"full": ["trainer"]}, "hydra.sweeper.full: trainer is not key=value"),
        ({"mode": "best"}, "mode=best is neither min nor max"),
        ({"promote": 0, "per_value": 0}, "promote nothing"),
        ({"limit": 0}, "limit=0 is not a positive"),
        ({"metric": "test.vus_pr", "mode": "max"}, "test labels must not choose"),
        ({"metric": "oracle.point_f1", "mode": "max"}, "test labels must not choose"),
    ],
)
def test_what_cannot_be_searched(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_plan(replace(PLAN, **change))
    check_plan(PLAN)
    check_plan(replace(PLAN, quick=["~callbacks.report"]))


def test_plan_is_kept_in_the_folder(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    plan = replace(PLAN, metric="planted.vus_pr", mode="max", limit=4)
    write_plan(plan, tmp_path / "sweep")
    assert read_plan(tmp_path / "sweep") == plan
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["search.json"]


@pytest.mark.parametrize("text", ["{", '{"other": 1}', "[]"])
def test_damaged_plan_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "search.json").write_text(text)
    with pytest.raises(TocsinError, match="is not the plan of a search"):
        read_plan(tmp_path)
