"""The tables of a sweep are there after each of its jobs."""

import json
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from tocsin.callbacks.results_page import ResultsPage


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of which one job has ended."""
    metrics = {
        "run": {"model": "pca", "data": "series", "seed": 1, "git": "abc", "finished": "2026-11-25T10:00:00"},
        "data": {"source": "asd/omi-1"},
        "test": {"vus_pr": 0.625, "point_f1": 0.5, "series_f1": 0.5},
        "oracle": {},
        "baselines": {},
        "timing": {"fit_s": 1.0, "test_items_per_s": 10.0},
    }
    folder = tmp_path / "sweep" / "0"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder.parent


@pytest.mark.parametrize(
    ("status", "mode", "written"),
    [
        (JobStatus.COMPLETED, RunMode.MULTIRUN, True),
        (JobStatus.FAILED, RunMode.MULTIRUN, False),
        (JobStatus.COMPLETED, RunMode.RUN, False),
    ],
)
def test_page_is_written_after_a_finished_job(
    sweep: Path, status: JobStatus, mode: RunMode, written: bool
) -> None:
    callback = ResultsPage(page=str(sweep / "results.md"), name="sweep")
    config = OmegaConf.create({"hydra": {"mode": mode, "sweep": {"dir": str(sweep)}}})
    callback.on_job_end(config, JobReturn(status=status))
    assert (sweep / "results.md").exists() == written
    if written:
        assert "| pca | 0.625 |" in (sweep / "results.md").read_text()
