"""Lines for every step, none twice after a resume, and an end after just so many."""

import json
from pathlib import Path

import cv2
import lightning.pytorch  # noqa: F401  # sets variables of the environment when first imported
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tocsin import composing
from tocsin.callbacks.iterations import PICTURE, PROGRESS, Iterations, cut
from tocsin.config import conf_dir
from tocsin.pipeline import train

TINY = [
    "data=coco_person", "data.size=64", "++data.n_images=12", "data.min_height=8", "data.batch_size=4",
    "model.victim=yolov8n.yaml", "++model.patch_size=8", "trainer=cpu", "task.sweeps=false", "logger=none",
    "callbacks=numbers", "cache_dir=null", "+callbacks.iterations._target_=tocsin.callbacks.iterations.Iterations",
]  # fmt: skip
NATIVE = ["model=yolo_patch", "++data.steps_per_epoch=2", "trainer.max_epochs=3", *TINY]


def composed(*overrides: str) -> DictConfig:
    composing.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / PROGRESS).read_text().splitlines()]


def test_training_ends_after_so_many_steps_and_each_has_a_line(tmp_path: Path) -> None:
    train(composed(*NATIVE, "+callbacks.iterations.iterations=5", f"trainer.default_root_dir={tmp_path}"))
    found = lines(tmp_path)
    assert [line["iteration"] for line in found] == [1, 2, 3, 4, 5]
    assert found[-1]["seconds_left"] == 0
    assert all(line["images_per_s"] > 0 for line in found)
    for line in found:
        assert set(line["losses"]) == {"loss", "detection", "tv", "nps"}
        rest = 0.01 * line["losses"]["nps"] + max(2.5 * line["losses"]["tv"], 0.1)
        assert line["losses"]["loss"] == pytest.approx(line["losses"]["detection"] + rest, rel=1e-4)
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 5
    pixels = last["state_dict"]["detector.pixels"].permute(1, 2, 0).numpy()
    shown = cv2.imread(str(tmp_path / PICTURE))[..., ::-1] / 255
    assert np.abs(shown - pixels).max() < 0.6 / 255


def test_run_that_was_killed_after_its_last_step_trains_no_more(tmp_path: Path) -> None:
    given = [*NATIVE, "+callbacks.iterations.iterations=5", f"trainer.default_root_dir={tmp_path}"]
    train(composed(*given))
    before, patch = lines(tmp_path), torch.load(tmp_path / "patch.pt", weights_only=True)
    (tmp_path / "metrics.json").unlink()
    (tmp_path / "patch.pt").unlink()
    train(composed(*given, "ckpt_path=last"))
    assert lines(tmp_path) == before
    assert torch.equal(torch.load(tmp_path / "patch.pt", weights_only=True), patch)
    assert (tmp_path / "metrics.json").is_file()


def test_run_that_goes_on_has_each_line_once_and_the_same(tmp_path: Path) -> None:
    whole, cut_short = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut_short.mkdir()
    given = [*NATIVE, "+callbacks.iterations.iterations=6"]
    train(composed(*given, f"trainer.default_root_dir={whole}"))
    train(composed(*given, "trainer.max_epochs=2", f"trainer.default_root_dir={cut_short}"))
    with (cut_short / PROGRESS).open(
        "a"
    ) as file:  # steps after the checkpoint, and one that was being written
        file.write('{"iteration": 5, "losses": {"loss": 99}}\n{"iteration": 6, "lo')
    train(composed(*given, "ckpt_path=last", f"trainer.default_root_dir={cut_short}"))
    expected, found = lines(whole), lines(cut_short)
    assert [line["iteration"] for line in found] == [1, 2, 3, 4, 5, 6]
    # The rate falls along another curve where only two epochs were meant; the data are the same.
    assert [line["losses"]["detection"] for line in found[:2]] == [
        line["losses"]["detection"] for line in expected[:2]
    ]
    assert found[4]["losses"]["loss"] != 99


def test_passes_of_art_have_lines(tmp_path: Path) -> None:
    pytest.importorskip("art")
    train(
        composed(
            "model=art_patch",
            *TINY,
            "++model.iterations=3",
            "++model.size=0.1",
            "++model.learning_rate=0.2",
            "+callbacks.iterations.iterations=3",
            f"trainer.default_root_dir={tmp_path}",
        )
    )
    found = lines(tmp_path)
    assert [line["iteration"] for line in found] == [1, 2, 3]
    assert all(line["losses"]["loss"] > 0 and line["images_per_s"] > 0 for line in found)
    shown = cv2.imread(str(tmp_path / PICTURE))
    assert shown.shape == (8, 8, 3)
    assert shown.std() > 0  # no longer the gray one of the start


def test_cut_without_a_file_does_nothing(tmp_path: Path) -> None:
    cut(tmp_path / PROGRESS, 3)
    assert list(tmp_path.iterdir()) == []


def test_number_of_steps_is_checked() -> None:
    with pytest.raises(ValueError, match=r"callbacks.iterations.iterations=0 is not positive"):
        Iterations(iterations=0)
