"""The end of a sweep: the command fails if a job did, and says which."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tocsin.callbacks.sweep_end import SweepEnd
from tocsin.jobs import Job, State, write_job

METRICS = {
    "run": {
        "model": "pca",
        "data": "sliding",
        "seed": 1,
        "overrides": ["model=pca"],
        "finished": "2026-11-26T10:00:00",
    },
    "data": {"fingerprint": "abc"},
    "test": {"vus_pr": 0.625},
    "oracle": {},
    "baselines": {},
    "timing": {"fit_s": 1.0, "test_items_per_s": 10.0},
}


def job(sweep: Path, number: int, state: State, error: str | None = None) -> None:
    write_job(
        Job(folder=sweep / str(number), number=number, overrides=(f"seed={number}",)).end(state, error=error)
    )


def end(sweep: Path) -> None:
    SweepEnd().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep)}}}))


def test_a_failed_job_is_named_and_the_command_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    job(tmp_path, 0, State.FINISHED)
    (tmp_path / "0" / "metrics.json").write_text(json.dumps(METRICS))
    job(tmp_path, 1, State.FAILED, error="no data")
    with pytest.raises(SystemExit) as stopped:
        end(tmp_path)
    assert stopped.value.code == 1
    assert "1 of 2 jobs failed:\n  #1 seed=1: no data" in caplog.text
    assert f"hydra.sweep.dir={tmp_path} hydra.launcher.retry_failed=true" in caplog.text
    assert "0.625" in caplog.text
    assert (tmp_path / "leaderboard.html").is_file()
    assert (tmp_path / "leaderboard.csv").is_file()


def test_a_sweep_without_results_still_names_its_jobs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job(tmp_path, 0, State.FAILED, error="no data")
    with pytest.raises(SystemExit):
        end(tmp_path)
    assert "#0 seed=0: no data" in caplog.text


def test_a_pruned_job_is_no_failure(tmp_path: Path) -> None:
    job(tmp_path, 0, State.PRUNED)
    end(tmp_path)
