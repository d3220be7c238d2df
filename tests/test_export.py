"""The command, in fresh processes: from a checkpoint to a graph that computes the same."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch

from tocsin.cli import _program
from tocsin.models.pretrained import timm_network

ROOT = Path(__file__).parents[1]
BEST = "ckpt_path=run/checkpoints/best.ckpt"


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOCSIN_CACHE": str(cwd / "cache")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def train(*arguments: str, cwd: Path) -> None:
    shared = (
        "trainer=cpu",
        "trainer.max_epochs=1",
        "hydra.run.dir=run",
        "callbacks.report=null",
        "logger=none",
    )
    done = command(str(ROOT / "train.py"), *arguments, *shared, cwd=cwd)
    assert done.returncode == 0, done.stderr


def test_program_is_named_as_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "src" / "tocsin" / "export.py")])
    assert _program("export") == "python -m tocsin.export"
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert _program("train") == "python train.py"


def test_help_and_a_mistake_are_short(tmp_path: Path) -> None:
    done = command("-m", "tocsin.export", "--help", cwd=tmp_path)
    assert (
        "python -m tocsin.export ckpt_path=outputs/.../checkpoints/best.ckpt output=model.onnx" in done.stdout
    )
    assert "output=" in done.stdout.split("top-level keys")[1]
    done = command("-m", "tocsin.export", "output=model.onnx", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: export needs ckpt_path=<run folder>/checkpoints/best.ckpt\n"


@pytest.mark.slow
def test_series_detector_becomes_a_graph_of_raw_windows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        values = rng.normal([100.0, -3.0], 1.0, (600, 2))
        pd.DataFrame(values, columns=["a", "b"]).to_csv(tmp_path / f"{name}.csv", index=False)
    train(
        "model=patchtrad",
        "data=series",
        "data.train=train.csv",
        "data.test=test.csv",
        "data.window=40",
        cwd=tmp_path,
    )
    done = command("-m", "tocsin.export", BEST, "output=model.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the graph differs from torch by at most" in done.stderr
    model = onnx.load(tmp_path / "model.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props}["channels"] == "a,b"
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    raw = np.float32(rng.normal([100.0, -3.0], 1.0, (3, 40, 2)))
    (deviations,) = session.run(None, {"windows": raw})
    assert deviations.shape == (3, 40, 2)
    assert abs(deviations).max() < 20  # standardised in the graph: raw values are near 100

    done = command("-m", "tocsin.export", BEST, "output=model.pt", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: output=model.pt: '.pt' cannot be written; give a name with .onnx\n"


@pytest.mark.slow
def test_checkpoint_of_an_image_detector_needs_no_other_file(tmp_path: Path) -> None:
    options = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8, "img_size": 32}
    network = timm_network("vit_tiny_patch16_224", weights=None, options=options)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    train(
        "model=dinomaly",
        "model.weights=weights.pth",
        "model.encoder=vit_tiny_patch16_224",
        "model.encoder_options={embed_dim:32,depth:2,num_heads:2,patch_size:8,img_size:32}",
        "model.target_layers=[0,1]",
        "data=hdmap",
        "data.n_train=20",
        "data.n_test=10",
        "data.steps_per_epoch=3",
        cwd=tmp_path,
    )
    (tmp_path / "weights.pth").unlink()
    done = command("-m", "tocsin.export", BEST, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "run" / "export").glob("*/model.onnx")
    texts = {entry.key: entry.value for entry in onnx.load(written).metadata_props}
    assert texts["model"] == "dinomaly"
    assert float(texts["image_threshold"]) > 0
    session = onnxruntime.InferenceSession(str(written))
    maps, scores = session.run(None, {"images": np.random.default_rng(0).random((3, 3, 32, 96), np.float32)})
    assert maps.shape == (3, 32, 96)
    assert scores.shape == (3,)
