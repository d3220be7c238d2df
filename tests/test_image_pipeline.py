"""Images from the command line to files and back: tiny runs of the real commands, in fresh processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


def command(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOCSIN_CACHE": str(cwd / "cache")}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def draw(folder: Path, n: int, seed: int, spot: bool = False) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(n):
        pixels = rng.integers(90, 110, (24, 40), dtype=np.uint8)
        if spot:
            pixels[4:10, 20:30] = 220
        assert cv2.imwrite(str(folder / f"{number:03}.png"), pixels)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a finished run in `run/`."""
    cwd = tmp_path_factory.mktemp("images")
    draw(cwd / "data" / "train" / "good", 20, seed=0)
    draw(cwd / "data" / "test" / "good", 8, seed=1)
    draw(cwd / "data" / "test" / "spot", 8, seed=2, spot=True)
    done = command(
        "train.py", "model=pixel_gaussian", "data=folder", "data.root=data", "data.height=24", "data.width=40",
        "trainer=cpu", "hydra.run.dir=run", cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test image_auroc: 1.0000" in done.stdout
    return cwd


def test_run_folder_holds_numbers_pictures_and_splits(run: Path) -> None:
    metrics = json.loads((run / "run" / "metrics.json").read_text())
    assert metrics["test"]["image_auroc"] == 1.0
    assert metrics["test"]["pixel_auroc"] is None  # there is no mask
    assert metrics["run"]["pretrained"] is True
    assert metrics["data"]["test_classes"] == {"good": 8, "spot": 8}
    splits = pd.read_csv(run / "run" / "splits.csv")
    assert splits.groupby("split").size().to_dict() == {"train": 16, "val": 4, "test": 16}
    assert not splits["path"].duplicated().any()
    pictures = {path.stem for path in (run / "run" / "plots").glob("*.png")}
    assert {"anomaly_maps", "score_histogram", "roc", "precision_recall", "confusion_matrix"} <= pictures


@pytest.mark.slow  # a process of its own; tests/test_pipeline.py has one for series
def test_evaluate_repeats_the_numbers(run: Path) -> None:
    done = command(
        "evaluate.py", "ckpt_path=run/checkpoints/best.ckpt", "hydra.run.dir=again", "logger=none", cwd=run
    )
    assert done.returncode == 0, done.stderr
    first, again = (json.loads((run / name / "metrics.json").read_text()) for name in ("run", "again"))
    assert again["test"] == pytest.approx(first["test"], abs=1e-6)
    assert again["threshold"] == pytest.approx(first["threshold"])


def test_predict_scores_a_folder_and_goes_on_after_a_corrupt_file(run: Path) -> None:
    new = run / "new"
    draw(new / "a", 2, seed=5)
    draw(new / "b", 2, seed=6, spot=True)
    (new / "a" / "broken.png").write_bytes(b"no image")
    done = command(
        "predict.py", "ckpt_path=run/checkpoints/best.ckpt", "input=new", "output=out/scores.csv", cwd=run
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(run / "out" / "scores.csv").set_index("path")
    assert table.loc["new/b/000.png", "is_anomaly"] == 1
    assert table.loc[["new/b/000.png", "new/b/001.png"], "score"].min() > table.loc["new/a/000.png", "score"]
    assert np.isnan(table.loc["new/a/broken.png", "score"])
    assert "broken.png" in table.loc["new/a/broken.png", "error"]
    assert cv2.imread(str(run / "out" / "overlays" / "b" / "000.png")).shape == (24, 40, 3)
    assert not (run / "out" / "overlays" / "a" / "broken.png").exists()


def test_wrong_input_is_one_line(run: Path) -> None:
    done = command("predict.py", "ckpt_path=run/checkpoints/best.ckpt", "input=nowhere", cwd=run)
    assert done.returncode != 0
    assert "input=nowhere: there is no such image or folder" in done.stderr
