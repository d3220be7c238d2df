"""The tables of a sweep are there when it has ended."""

import json
from pathlib import Path

import pytest
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


def test_page_is_written_when_a_sweep_has_ended(sweep: Path) -> None:
    callback = ResultsPage(page=str(sweep / "results.md"), name="sweep")
    callback.on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep)}}}))
    assert "| pca | 0.625 |" in (sweep / "results.md").read_text()


def test_a_sweep_without_a_result_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = ResultsPage(page=str(tmp_path / "results.md"), name="sweep")
    callback.on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert "no results page: no metrics.json below" in caplog.text
    assert not (tmp_path / "results.md").exists()
