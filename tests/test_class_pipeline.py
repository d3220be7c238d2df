"""Classes of defects from the command line to files and back: tiny runs of the real commands, in fresh processes."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from test_image_pipeline import command

from tocsin.errors import ConfigError
from tocsin.pipeline import build_detector

KINDS = {"good": None, "hole": (6, 12, 6, 12), "stripe": (18, 21, 2, 38)}
TINY = (
    "model=classifier", "data=defects", "data.height=24", "data.width=40", "trainer=cpu", "trainer.max_epochs=12",
    "optimizer.lr=2e-2", "model.backbone=test_resnet", "model.weights=random", "model.head=linear",
    "model.freeze_epochs=0", "model.backbone_lr_scale=1", "model.mixup=0",
)  # fmt: skip


def draw(folder: Path, n: int, seed: int, kind: str) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(n):
        pixels = rng.integers(90, 110, (24, 40), dtype=np.uint8)
        if (place := KINDS[kind]) is not None:
            top, bottom, left, right = place
            pixels[top:bottom, left:right] = 230
        assert cv2.imwrite(str(folder / f"{number:03}.png"), pixels)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a finished run in `run/`."""
    cwd = tmp_path_factory.mktemp("parts")
    for seed, kind in enumerate(KINDS):
        draw(cwd / "data" / kind, 40 if kind == "good" else 24, seed, kind)
    done = command(
        "train.py", *TINY, "data.root=data", "data.balance=loss", "augment=light", "data.batch_size=16",
        "hydra.run.dir=run", cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "val_macro_f1" in done.stdout
    return cwd


def test_run_folder_holds_numbers_pictures_and_splits(run: Path) -> None:
    metrics = json.loads((run / "run" / "metrics.json").read_text())
    assert {"accuracy", "macro_f1", "auroc", "balanced_accuracy", "ece", "unsure_rate"} <= set(
        metrics["test"]
    )
    assert metrics["test"]["macro_f1"] > 0.9
    assert metrics["val"]["train_val_gap"] is not None
    assert metrics["run"]["pretrained"] is False
    assert metrics["data"]["ok_class"] == "good"
    assert set(metrics["per_class"]) == set(KINDS)
    assert {"majority", "brightness"} == set(metrics["baselines"])
    splits = pd.read_csv(run / "run" / "splits.csv")
    assert set(splits["split"]) == {"train", "val", "test"}
    assert not splits["path"].duplicated().any()
    arrays = np.load(run / "run" / "scores.npz")
    assert list(arrays["classes"]) == sorted(KINDS)
    np.testing.assert_allclose(arrays["probabilities"].sum(1), 1, rtol=1e-5)
    pictures = {path.stem for path in (run / "run" / "plots").glob("*.png")}
    assert {"confusion", "classes", "reliability", "defects", "mistakes", "augment", "training"} <= pictures


@pytest.mark.slow  # a process of its own; tests/test_pipeline.py has one for series
def test_evaluate_repeats_the_numbers(run: Path) -> None:
    done = command(
        "evaluate.py", "ckpt_path=run/checkpoints/best.ckpt", "hydra.run.dir=again", "logger=none", cwd=run
    )
    assert done.returncode == 0, done.stderr
    first, again = (json.loads((run / name / "metrics.json").read_text()) for name in ("run", "again"))
    assert again["test"] == pytest.approx(first["test"], abs=1e-6)
    assert again["threshold"] == pytest.approx(first["threshold"], abs=1e-6)


def test_predict_tells_class_probability_and_doubt_of_a_folder(run: Path) -> None:
    draw(run / "new" / "a", 3, 11, "good")
    draw(run / "new" / "b", 3, 12, "stripe")
    (run / "new" / "a" / "broken.png").write_bytes(b"no image")
    cv2.imwrite(str(run / "new" / "deep.png"), np.full((24, 40), 25_700, np.uint16))  # 16 bits, gray
    done = command(
        "predict.py", "ckpt_path=run/checkpoints/best.ckpt", "input=new", "output=out/classes.csv", cwd=run
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(run / "out" / "classes.csv").set_index("path")
    assert set(table.columns) == {"class", "probability", "unsure", "score", "is_anomaly", "error"}
    assert list(table.loc[[f"new/b/00{n}.png" for n in range(3)], "class"]) == ["stripe"] * 3
    assert list(table.loc[[f"new/a/00{n}.png" for n in range(3)], "is_anomaly"]) == [0] * 3
    assert table["probability"].dropna().between(1 / 3, 1).all()
    assert set(table["unsure"].dropna()) <= {0, 1}
    assert pd.isna(table.loc["new/a/broken.png", "class"])
    assert "broken.png" in table.loc["new/a/broken.png", "error"]
    assert isinstance(table.loc["new/deep.png", "class"], str)


def test_what_the_data_decide_cannot_be_set_as_well() -> None:
    """Weights of classes beside `data.balance` would count an imbalance twice."""
    node = OmegaConf.create({"_target_": "tocsin.models.classifier.Classifier", "class_weights": [1.0, 2.0]})
    with pytest.raises(ConfigError, match=r"model\.class_weights comes from the data"):
        build_detector(node, {"height": 8, "width": 8, "n_classes": 2, "class_weights": None})
