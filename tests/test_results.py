"""metrics.json and scores.npz: complete, plain, and written whole or not at all."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tocsin.data.series_data import SeriesData
from tocsin.evaluation import Calibration
from tocsin.results import Timing, timing_section, write_metrics, write_scores
from tocsin.tasks.series_results import SeriesResults


def results(labels: np.ndarray | None = None) -> SeriesResults:
    scores = np.array([0.1, 0.9, 0.5, 0.2], dtype=np.float32)
    series = SeriesData(values=np.zeros((4, 2), np.float32), channel_names=("a", "b"), labels=labels)
    return SeriesResults(
        series=series,
        scores=scores,
        errors=np.zeros((4, 2), np.float32),
        val_scores=np.array([0.3, 0.4]),
        calibration=Calibration(method="pot", point=0.5, sample=0.6),
        test={"vus_pr": math.nan, "point_f1": np.float64(0.25)},
        baselines={"random": {"vus_pr": 0.1}},
        items_per_s=12.5,
    )


def test_alarm_is_a_score_at_or_above_the_threshold() -> None:
    assert results().predicted.tolist() == [False, True, True, False]


def test_sections_of_metrics_json(tmp_path: Path) -> None:
    made = results()
    timing = timing_section(Timing(fit_s=3.0, epochs=2, train_items_per_s=7.0), made)
    write_metrics(tmp_path / "metrics.json", {**made.sections(), "timing": timing})
    read = json.loads((tmp_path / "metrics.json").read_text())
    assert {"threshold", "val", "test", "oracle", "timing"} <= read.keys()
    assert {"method", "value", "split"} <= read["threshold"].keys()
    assert (read["threshold"]["method"], read["threshold"]["value"]) == ("pot", 0.5)
    assert read["threshold"]["split"] == "validation"
    assert read["timing"] == {
        "fit_s": 3.0,
        "epochs": 2,
        "train_items_per_s": 7.0,
        "assess_s": 0.0,
        "test_items_per_s": 12.5,
    }
    assert read["baselines"] == {"random": {"vus_pr": 0.1}}


def test_undefined_numbers_become_null(tmp_path: Path) -> None:
    values = {
        "nan": math.nan,
        "list": [math.inf, 1, (np.float32("-inf"), np.int64(3))],
        "flag": np.bool_(True),
        "nested": {1: np.float32("nan"), "text": "nan"},
    }
    write_metrics(tmp_path / "new" / "metrics.json", values)
    text = (tmp_path / "new" / "metrics.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "nan": None,
        "list": [None, 1, [None, 3]],
        "flag": True,
        "nested": {"1": None, "text": "nan"},
    }


@pytest.mark.parametrize("labels", [None, np.array([False, True, False, False])])
def test_scores_file(tmp_path: Path, labels: np.ndarray | None) -> None:
    made = results(labels)
    write_scores(tmp_path / "scores.npz", made.arrays())
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as read:
        np.testing.assert_array_equal(read["scores"], made.scores)
        np.testing.assert_array_equal(read["val_scores"], made.val_scores)
        assert read["lengths"].tolist() == [4]
        assert ("labels" in read) == (labels is not None)
        if labels is not None:
            np.testing.assert_array_equal(read["labels"], labels)


def test_failed_write_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_metrics(tmp_path / "metrics.json", {"a": 1})
    write_scores(tmp_path / "scores.npz", {"a": np.ones(3)})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["metrics.json", "scores.npz"]
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_metrics(tmp_path / "metrics.json", {"a": object()})

    def half(file: object, **_: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(OSError, match="disk full"):
        write_scores(tmp_path / "scores.npz", {"a": np.ones(3)})
    for name, content in before.items():
        assert (tmp_path / name).read_bytes() == content
