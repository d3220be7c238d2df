"""From the command line to files and back: tiny runs of the real commands, in fresh processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

ROOT = Path(__file__).parents[1]
TINY = [
    "trainer=cpu",
    "model.d_model=16",
    "model.n_heads=2",
    "model.feedforward=16",
    "model.encoder_layers=1",
    "model.teacher_layers=1",
]


def command(
    script: str, *arguments: str, cwd: Path, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOCSIN_CACHE": str(cwd / "cache")}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cwd,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        timeout=300,
    )


def waves(n_steps: int, seed: int, *, anomalous: bool) -> pd.DataFrame:
    """Three coupled channels; anomalies are steps where one of them leaves the others."""
    rng = np.random.default_rng(seed)
    time_axis = np.arange(n_steps)
    load = np.sin(2 * np.pi * time_axis / 50) + 0.1 * rng.standard_normal(n_steps)
    frame = pd.DataFrame(
        {name: load * (i + 1) + 0.05 * rng.standard_normal(n_steps) for i, name in enumerate("abc")}
    )
    frame.insert(0, "timestamp", pd.date_range("2026-01-01", periods=n_steps, freq="min"))
    frame["label"] = 0
    if anomalous:
        for start in range(300, n_steps - 60, 400):
            frame.loc[start : start + 30, "b"] += 4
            frame.loc[start : start + 30, "label"] = 1
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    waves(1500, 0, anomalous=False).to_csv(path / "train.csv", index=False)
    waves(1300, 1, anomalous=True).to_csv(path / "test.csv", index=False)
    return path


SERIES = [
    "data=series",
    "data.train=train.csv",
    "data.test=test.csv",
    "data.label_column=label",
    "data.window=40",
]


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """Folder of a finished run."""
    done = command(
        "train.py", "model=mae", *SERIES, *TINY, "trainer.max_epochs=12", "hydra.run.dir=run", cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


def metrics(path: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((path / "metrics.json").read_text())
    return loaded


def test_run_folder_holds_what_the_pages_promise(run: Path) -> None:
    for name in ("metrics.json", "scores.npz", "train.log", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (run / name).is_file(), name
    assert {path.stem for path in (run / "plots").glob("*.png")} >= {
        "signal", "zoom", "score_histogram", "precision_recall", "confusion_matrix", "training", "reconstruction"
    }  # fmt: skip
    assert list((run / "tensorboard").glob("events.*"))
    found = metrics(run)
    assert set(found) >= {
        "run",
        "data",
        "threshold",
        "val",
        "test",
        "oracle",
        "baselines",
        "timing",
        "resources",
    }
    assert found["run"]["model"] == "mae"  # type: ignore[index]
    assert found["threshold"]["split"] == "validation"  # type: ignore[index]
    assert set(found["baselines"]) == {"random", "abs_z"}  # type: ignore[call-overload]
    with np.load(run / "scores.npz") as arrays:
        assert arrays["scores"].shape == arrays["labels"].shape == (1300,)


def test_planted_anomalies_are_found(run: Path) -> None:
    found = metrics(run)
    assert found["test"]["vus_pr"] > 0.6  # type: ignore[index]
    assert found["test"]["vus_pr"] > 2 * found["baselines"]["random"]["vus_pr"]  # type: ignore[index]


def test_both_stages_ran_and_the_checkpoint_is_plain_data(run: Path) -> None:
    log = (run / "train.log").read_text()
    assert "teacher" in log
    assert "student" in log
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["stage"]["index"] == 1
    assert torch.isfinite(checkpoint["state_dict"]["point_threshold"])
    assert checkpoint["choices"] == {"model": "mae", "data": "series"}


def test_evaluate_gives_the_same_numbers(run: Path, folder: Path) -> None:
    done = command("evaluate.py", "ckpt_path=run/checkpoints/best.ckpt", "hydra.run.dir=again", cwd=folder)
    assert done.returncode == 0, done.stderr
    before, after = metrics(run), metrics(folder / "again")
    assert after["run"]["model"] == "mae"  # type: ignore[index]
    for section in ("test", "oracle", "threshold"):
        for name, value in before[section].items():  # type: ignore[attr-defined]
            assert after[section][name] == pytest.approx(value, abs=1e-6), name  # type: ignore[index]


@pytest.mark.slow  # one more process; that a threshold may be chosen anew, tests/test_config.py says
def test_evaluate_with_another_threshold(run: Path, folder: Path) -> None:
    done = command(
        "evaluate.py", "ckpt_path=run/checkpoints/best.ckpt", "threshold=quantile", "threshold.level=0.9",
        "hydra.run.dir=quantile", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = metrics(run), metrics(folder / "quantile")
    assert after["threshold"]["method"] == "quantile"  # type: ignore[index]
    assert after["threshold"]["value"] < before["threshold"]["value"]  # type: ignore[index]
    assert after["test"]["vus_pr"] == pytest.approx(before["test"]["vus_pr"], abs=1e-6)  # type: ignore[index]


def test_predict_scores_a_file_as_the_test_did(run: Path, folder: Path) -> None:
    done = command(
        "predict.py", "ckpt_path=run/checkpoints/best.ckpt", "input=test.csv", "output=scores.csv", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(folder / "scores.csv")
    assert list(rows.columns[:3]) == ["timestamp", "score", "is_anomaly"]
    assert {"contribution_a", "contribution_b", "contribution_c"} <= set(rows.columns)
    with np.load(run / "scores.npz") as arrays:
        np.testing.assert_allclose(rows["score"], arrays["scores"], rtol=2e-4, atol=1e-5)
        labels = arrays["labels"]
    threshold = metrics(run)["threshold"]["value"]  # type: ignore[index]
    np.testing.assert_array_equal(rows["is_anomaly"], (rows["score"] >= threshold).astype(int))
    contributions = rows.loc[labels, ["contribution_a", "contribution_b", "contribution_c"]]
    assert contributions.mean().idxmax() == "contribution_b"  # the channel that was moved


def test_predict_scores_rows_as_they_arrive(run: Path, folder: Path) -> None:
    lines = (folder / "test.csv").read_text().splitlines(keepends=True)[:420]
    arguments = ["ckpt_path=run/checkpoints/best.ckpt", "input=-", "task.min_duration=3"]
    done = command("predict.py", *arguments, cwd=folder, text="".join(lines))
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert rows[0] == "timestamp,score,is_anomaly"
    assert len(rows) == len(lines)  # one output row per input row
    assert rows[39].endswith(",,")
    scores = np.array([float(row.split(",")[1]) for row in rows[40:]])  # from step 39 on
    above = scores >= metrics(run)["threshold"]["value"]  # type: ignore[index]
    lasting = above & np.roll(above, 1) & np.roll(above, 2)  # the first rows of a stream are normal
    assert [int(row[-1]) for row in rows[40:]] == lasting.astype(int).tolist()
    assert 3 <= lasting.sum() < above.sum()
    steps = np.arange(39, 419)
    before, inside = scores[steps < 300], scores[(steps >= 310) & (steps <= 330)]
    assert np.median(inside) > before.max()  # a mean over past steps fades in, and out after the event


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate.py"], "evaluate needs ckpt_path="),
        pytest.param(
            ["evaluate.py", "ckpt_path=nowhere.ckpt"],
            "nowhere.ckpt: there is no such file",
            marks=pytest.mark.slow,
        ),
        (["train.py", "data=series", "data.path=nowhere.csv"], "nowhere.csv: not found"),
        pytest.param(
            ["train.py", "ckpt_path=last", "model=pca"],
            "no run below .* has a checkpoint",
            marks=pytest.mark.slow,
        ),
        (["train.py", "ckpt_path=test.csv"], "test.csv is not a readable checkpoint of plain data"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, folder: Path) -> None:
    done = command(*arguments, cwd=folder)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert re.search(message, last)


def test_new_data_shorter_than_a_window_are_refused(run: Path, folder: Path) -> None:
    lines = (folder / "test.csv").read_text().splitlines()
    (folder / "short.csv").write_text("\n".join(lines[:11]))
    done = command("predict.py", "ckpt_path=run/checkpoints/best.ckpt", "input=short.csv", cwd=folder)
    assert done.returncode == 1
    assert re.search(
        r"^error: short\.csv: a series has 10 rows, fewer than the \d+ of a window", done.stderr, re.M
    )


def test_config_with_a_foreign_target_is_refused(run: Path, folder: Path) -> None:
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["config"]["model"] = {"_target_": "os.system", "command": "touch hacked"}
    torch.save(checkpoint, folder / "foreign.ckpt")
    done = command("evaluate.py", "ckpt_path=foreign.ckpt", cwd=folder)
    assert done.returncode == 2
    assert "os.system is not an allowed target" in done.stderr
    assert not (folder / "hacked").exists()


@pytest.mark.slow
def test_same_seed_same_numbers(run: Path, folder: Path) -> None:
    done = command(
        "train.py", "model=mae", *SERIES, *TINY, "trainer.max_epochs=12", "hydra.run.dir=twin", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert metrics(folder / "twin")["test"] == metrics(run)["test"]


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_weights(folder: Path) -> None:
    """SIGKILL in mid-epoch, once in each stage; bitwise the same weights as an uninterrupted run."""
    options = ["model=mae", *SERIES, *TINY, "trainer.max_epochs=8", "data.stride=1", "data.batch_size=16"]
    whole = command("train.py", *options, "hydra.run.dir=whole", cwd=folder)
    assert whole.returncode == 0, whole.stderr
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOCSIN_CACHE": str(folder / "cache")}
    log = folder / "killed" / "train.log"
    for attempt, epochs in enumerate((2, 7)):
        resume = [] if attempt == 0 else ["ckpt_path=killed/checkpoints/last.ckpt"]
        place = ["hydra.run.dir=killed"] if attempt == 0 else []
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *options, *place, *resume],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 200
        while not (log.exists() and f"epoch {epochs}/8" in log.read_text()):
            assert time.monotonic() < deadline
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        time.sleep(0.1)  # into the next epoch
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = command("train.py", *options, "ckpt_path=killed/checkpoints/last.ckpt", cwd=folder)
    assert done.returncode == 0, done.stderr
    expected = torch.load(folder / "whole" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    resumed = torch.load(folder / "killed" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in expected.items():
        assert torch.equal(value.nan_to_num(), resumed[name].nan_to_num()), name
    assert metrics(folder / "killed")["test"] == metrics(folder / "whole")["test"]
