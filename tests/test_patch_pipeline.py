"""A patch from a configuration to files and back, on a victim with random weights."""

import json
from pathlib import Path

import cv2
import lightning.pytorch  # noqa: F401  # sets variables of the environment when first imported
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tocsin import cli
from tocsin.config import conf_dir
from tocsin.errors import DataError
from tocsin.models.base import Detections
from tocsin.models.yolo_victim import YoloVictim
from tocsin.patch_prediction import predict_patches
from tocsin.pipeline import train

TINY = [
    "model=yolo_patch", "model.victim=yolov8n.yaml", "++model.patch_size=8", "data=coco_person", "data.size=64",
    "++data.n_images=12", "data.min_height=8", "data.batch_size=4", "trainer=cpu", "trainer.max_epochs=1",
    "task.sweeps=false", "logger=none", "callbacks=numbers", "cache_dir=null",
]  # fmt: skip


def composed(main: str, *overrides: str) -> DictConfig:
    cli.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(main, overrides=list(overrides))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run."""
    folder = tmp_path_factory.mktemp("patch")
    train(composed("train", *TINY, f"trainer.default_root_dir={folder}"))
    return folder


def finds_one(self: YoloVictim, images: Tensor) -> Detections:
    """Somebody in the middle, and somebody it is not sure of."""
    n = len(images)
    boxes = torch.tensor([[12.0, 16.0, 52.0, 48.0], [0.0, 0.0, 9.0, 9.0]]).repeat(n, 1)
    return Detections(boxes, torch.tensor([0.9, 0.1]).repeat(n), torch.arange(n).repeat_interleave(2))


def predicted(run: Path, source: Path, output: Path) -> pd.DataFrame:
    kept = composed("train", *TINY, f"trainer.default_root_dir={run}")
    ConfigStore.instance().store("run", OmegaConf.to_container(kept, resolve=False), package="_global_")
    best = run / "checkpoints" / "best.ckpt"
    predict_patches(
        composed("predict", f"ckpt_path={best}", f"input={source}", f"output={output}", "trainer=cpu")
    )
    return pd.read_csv(output)


def test_run_folder_holds_the_patch_and_its_numbers_and_the_checkpoint_no_victim(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"ap50_clean", "ap50_control", "ap50_patch", "vanish_25", "unseen_25"} <= set(metrics["test"])
    assert metrics["resources"]["parameters"] == 3 * 8 * 8
    assert metrics["data"]["n_test"] == 4
    assert metrics["run"]["pretrained"] is False  # random weights are no quality
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert list(checkpoint["state_dict"]) == ["detector.pixels"]
    patch = torch.load(run / "patch.pt", weights_only=True)
    torch.testing.assert_close(patch, checkpoint["state_dict"]["detector.pixels"])
    picture = cv2.imread(str(run / "patch.png"))[..., ::-1].transpose(2, 0, 1)
    assert np.abs(picture / 255 - patch.numpy()).max() <= 0.5 / 255 + 1e-6
    assert (run / "patch_sheet.pdf").read_bytes().startswith(b"%PDF")
    assert set(pd.read_csv(run / "splits.csv")["split"]) == {"train", "val", "test"}


def test_patch_is_put_on_new_images_and_a_corrupt_file_stops_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(YoloVictim, "detect", finds_one)  # random weights find nobody
    source = tmp_path / "new" / "a"
    source.mkdir(parents=True)
    assert cv2.imwrite(str(source / "gray.png"), np.full((50, 80, 3), 128, np.uint8))
    (source / "broken.jpg").write_bytes(b"no image")
    table = predicted(run, tmp_path / "new", tmp_path / "out" / "found.csv")
    assert table["condition"].dropna().tolist() == ["clean", "patch"]
    assert table["confidence"].dropna().tolist() == [0.9, 0.9]
    assert table.loc[table["path"].str.endswith("broken.jpg"), "error"].notna().all()
    shown = cv2.imread(str(tmp_path / "out" / "patched" / "a" / "gray.png"))
    assert shown.shape == (64, 64, 3)
    assert (shown[20:44].std(axis=(0, 1)) > 0.5).all()  # a gray patch with its noise lies on the even picture


def test_folder_of_broken_images_is_an_error(run: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none of 1 images could be read: .*broken\.jpg"):
        predicted(run, tmp_path, tmp_path / "found.csv")
