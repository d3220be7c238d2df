"""A two-stage search as a user starts it, and starts it again after it was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARGUMENTS = [
    *("-m", "hydra/sweeper=two_stage", "model=pca", "model.explained=0.7,0.8,0.9", "seed=1,2"),
    *("data=synthetic", "data.passes=1", "trainer=cpu", "logger=none", "callbacks=numbers"),
    *("hydra.sweeper.quick={data.n_samples:60}", "hydra.sweeper.full={data.n_samples:120}"),
    *("hydra.sweeper.promote=2", "hydra.sweep.dir=sweep"),
]


def started(folder: Path) -> dict[str, str]:
    """When each job that has finished was started."""
    records = {path: json.loads(path.read_text()) for path in folder.glob("sweep/*/*/job.json")}
    return {
        str(path.parent.relative_to(folder)): record["started"]
        for path, record in records.items()
        if record["state"] == "finished"
    }


def start(folder: Path, *more: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOCSIN_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *ARGUMENTS, *more],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_search_leaves_every_file_and_repeats_nothing_after_a_kill(tmp_path: Path) -> None:
    process = start(tmp_path)
    deadline = time.monotonic() + 120
    while len(started(tmp_path)) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = started(tmp_path)
    assert 3 <= len(before) < 6
    again = start(tmp_path)
    text, _ = again.communicate(timeout=240)
    assert again.returncode == 0, text
    after = started(tmp_path)
    assert {job: after[job] for job in before} == before
    assert len([job for job in after if job.startswith("sweep/quick/")]) == 6
    sweep = tmp_path / "sweep"
    written = {
        path.relative_to(sweep).as_posix() for path in sweep.rglob("*") if "/checkpoints/" not in str(path)
    }
    assert {
        *("quick_results.csv", "full_results.csv", "best_model.ckpt", "search.json", "multirun.yaml"),
        *("visualization/data/splits.png", "visualization/stage1/effects.png"),
        *("visualization/stage2/ranking.png", "visualization/stage2/quick_against_full.png"),
        "visualization/best_model/signal.png",
    } <= written


@pytest.mark.slow
def test_search_of_which_all_jobs_fail_ends_with_one_line(tmp_path: Path) -> None:
    process = start(tmp_path, "data.noise=-1")
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    last = text.strip().splitlines()[-1]
    assert last.startswith(
        "error: none of the 6 jobs of the quick stage has finished with a result; the first error: "
    )
    assert "Traceback" not in last
    assert (tmp_path / "sweep" / "quick_results.csv").read_text().count(",failed,") == 6
