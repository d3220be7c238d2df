"""Which folders are models, what they are called, and that nothing outside the folder is one."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from tocsin.errors import TocsinError
from tocsin.service.loaded_models import load_model
from tocsin.service.model_store import ModelStore, UnknownModelError, name_of


def copy_run(models: Path, target: Path) -> Path:
    shutil.copytree(models / "gaussian" / "folder", target)
    return target


def test_cards_tell_what_a_model_reads_and_how_good_it_is(models: Path) -> None:
    images, series = ModelStore(models).cards()
    assert (images.name, images.kind) == ("gaussian--folder", "image")
    assert images.reads == {"height": 24, "width": 40}
    assert images.metrics["image_auroc"] == 1.0
    assert series.name == "mae--series"
    assert series.reads == {"channels": ["a", "b", "c"], "window": 40}
    found = json.loads((models / "mae" / "series" / "metrics.json").read_text())
    assert series.metrics["vus_pr"] == found["test"]["vus_pr"]
    assert series.threshold["value"] == found["threshold"]["value"]
    assert "checkpoint" not in series.public()


def test_names_can_stand_in_a_url_and_no_two_paths_share_one() -> None:
    root = Path("/models")
    assert name_of(root / "mae" / "a_1.5", root) == "mae--a_1.5"
    odd = [name_of(root / path, root) for path in ("a b", "a=b", "a--b", "a/b", "a/b--c", "a--b/c")]
    assert len(set(odd)) == len(odd)
    assert all(set(name) <= set("abc_-0123456789def") for name in odd)


def test_a_run_that_is_not_finished_or_damaged_is_no_model(models: Path, tmp_path: Path) -> None:
    copy_run(models, tmp_path / "good")
    (copy_run(models, tmp_path / "running") / "metrics.json").unlink()
    (copy_run(models, tmp_path / "broken") / "metrics.json").write_text("{")
    (copy_run(models, tmp_path / "foreign") / "checkpoints" / "best.ckpt").write_bytes(b"no checkpoint")
    assert [card.name for card in ModelStore(tmp_path).cards()] == ["good"]
    assert ModelStore(tmp_path / "nowhere").cards() == []


def test_links_that_lead_out_of_the_folder_are_no_models(models: Path, tmp_path: Path) -> None:
    outside = copy_run(models, tmp_path / "outside")
    inside = tmp_path / "inside"
    copy_run(models, inside / "own")
    (inside / "linked").symlink_to(outside)
    checkpoint = copy_run(models, inside / "file") / "checkpoints" / "best.ckpt"
    checkpoint.unlink()
    checkpoint.symlink_to(outside / "checkpoints" / "best.ckpt")
    store = ModelStore(inside)
    assert [card.name for card in store.cards()] == ["own"]
    own = store.find("own").checkpoint
    own.unlink()
    own.symlink_to(outside / "checkpoints" / "best.ckpt")
    with pytest.raises(UnknownModelError, match="no model 'own'"):
        store.find("own")


@pytest.mark.parametrize("name", ["../outside", "outside", "..--outside", "/etc", ""])
def test_a_name_is_never_a_path(name: str, models: Path, tmp_path: Path) -> None:
    copy_run(models, tmp_path / "outside")
    copy_run(models, tmp_path / "inside" / "own")
    with pytest.raises(UnknownModelError, match=r"there are: own|did you mean"):
        ModelStore(tmp_path / "inside").find(name)


def test_new_and_changed_runs_are_seen(models: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(UnknownModelError):
        store.find("late")
    run = copy_run(models, tmp_path / "late")
    before = store.find("late")
    assert before.is_current()
    os.utime(run / "checkpoints" / "best.ckpt", ns=(1, 1))
    assert not before.is_current()
    assert store.find("late").is_current()


def test_a_checkpoint_with_a_foreign_target_is_not_loaded(models: Path, tmp_path: Path) -> None:
    path = copy_run(models, tmp_path / "run") / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["config"]["optimizer"] = {"_target_": "os.system", "command": "touch hacked"}
    torch.save(checkpoint, path)
    with pytest.raises(TocsinError, match=r"os\.system is not an allowed target"):
        load_model(ModelStore(tmp_path).find("run"), "cpu")
