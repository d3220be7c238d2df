"""Two finished runs beside each other: what can be compared, and what must not be."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tocsin.compare import NONE, compare
from tocsin.errors import TocsinError
from tocsin.finished_runs import Pairs, better, pair, read_run
from tocsin.metrics.bootstrap import paired_difference
from tocsin.metrics.calibration import tempered
from tocsin.metrics.classification import classification_metrics, per_class

CLASSES = ["ok", "crack", "stain"]
N = 90


def logits(seed, margin):
    rng = np.random.default_rng(seed)
    labels = np.arange(N) % 3
    return labels, rng.normal(size=(N, 3)) + margin * np.eye(3)[labels]


def write_run(folder, *, metrics, arrays=None, config="seed: 1\n", run=None, **sections):
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(config)
    facts = {"model": "classifier", "data": "defects", "seed": 1, "git": "abc"} | (run or {})
    text = json.dumps({"run": facts, "test": metrics, "data": {"fingerprint": "same"}} | sections)
    (folder / "metrics.json").write_text(text.replace("NaN", "null"))
    if arrays:
        np.savez_compressed(folder / "scores.npz", **arrays)
    return folder


def write_classifier(folder, seed=0, margin=1.5, **options):
    labels, z = logits(seed, margin)
    p = tempered(z, 1.0).astype(np.float32)
    arrays = {
        "probabilities": p,
        "labels": labels,
        "paths": np.array([f"parts/{i:03}.png" for i in range(N)]),
        "classes": np.array(CLASSES),
        "groups": np.arange(N) // 2,
    }
    arrays |= options.pop("changed", {})
    metrics = classification_metrics(labels, p, 0, 0.5)
    return write_run(
        folder, metrics=metrics, arrays=arrays, per_class=per_class(labels, p.argmax(1), CLASSES), **options
    )


def rows_of(text):
    """Cells of all table rows by the first cell; later tables win."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip("| "): cells[1:] for cells in lines}


@pytest.fixture
def runs(tmp_path):
    return (
        write_classifier(
            tmp_path / "a", seed=0, margin=1.5, config="seed: 1\nmodel:\n  head: mlp\n  dropout: [0.5, 0.3]\n"
        ),
        write_classifier(tmp_path / "b", seed=1, margin=3.0, config="seed: 1\nmodel:\n  head: linear\n"),
    )


# --- image by image -----------------------------------------------------------------------------------------


def test_classifiers_on_the_same_images_get_intervals_and_mcnemar(runs):
    text = compare(*runs).read_text()
    (labels, first), (_, second) = logits(0, 1.5), logits(1, 3.0)
    expected = paired_difference(
        labels,
        tempered(first, 1).astype(np.float32),
        tempered(second, 1).astype(np.float32),
        np.arange(N) // 2,
    )
    accuracy = expected.metrics["accuracy"]
    row = next(line for line in text.splitlines() if line.startswith("| accuracy |"))
    assert f"{accuracy.low:+.4f} to {accuracy.high:+.4f}" in row
    assert "▲ better" in row
    assert (
        f"{expected.only_first_right} only the first run got right, {expected.only_second_right} only the second"
        in text
    )
    assert f"p = {expected.p_value:.3g}" in text
    assert "same 90 images" in text


def test_images_are_paired_by_path_and_classes_by_name(runs, tmp_path):
    labels, z = logits(1, 3.0)
    p = tempered(z, 1.0).astype(np.float32)
    images, order = np.random.default_rng(0).permutation(N), [2, 0, 1]  # stain, ok, crack
    shuffled = write_classifier(
        tmp_path / "c",
        changed={
            "probabilities": p[images][:, order],
            "labels": np.array([1, 2, 0])[labels][images],
            "paths": np.array([f"parts/{i:03}.png" for i in images]),
            "classes": np.array(CLASSES)[order],
        },
    )
    plain, mixed = (pair(read_run(runs[0]), read_run(other)) for other in (runs[1], shuffled))
    assert isinstance(plain, Pairs)
    for one, other in zip(plain, mixed, strict=True):
        np.testing.assert_array_equal(one, other)
    compare(runs[0], shuffled)  # other columns: no pair of matrices, but a picture all the same
    assert (shuffled / "compare" / "compare.png").is_file()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"paths": np.array([f"parts/{i:03}.png" for i in range(1, N + 1)])},
            r"90 before, 90 after, 89 in both.*not comparable image by image",
        ),
        ({"classes": np.array(["ok", "crack", "dent"])}, "The classes differ"),
        ({"labels": (np.arange(N) + (np.arange(N) < 5)) % 3}, "5 test images have another class after"),
    ],
)
def test_what_cannot_be_compared_image_by_image_stands_side_by_side(runs, tmp_path, changed, message):
    other = write_classifier(tmp_path / "c", seed=1, changed=changed)
    found = pair(read_run(runs[0]), read_run(other))
    assert isinstance(found, str)
    text = compare(runs[0], other).read_text()
    assert found in text
    assert re.search(message, found)
    assert "interval" not in text
    assert "McNemar" not in text
    assert "| accuracy |" in text


# --- the page -----------------------------------------------------------------------------------------------


def test_the_page_tells_metrics_classes_and_what_differs_in_the_configuration(runs):
    path = compare(*runs)
    assert path == runs[1] / "compare" / "compare.md"
    rows = rows_of(path.read_text())
    assert rows["`model.head`"] == ["`mlp`", "`linear`"]
    assert rows["`model.dropout`"] == ["`[0.5, 0.3]`", NONE]
    assert "`seed`" not in rows
    a, b = (json.loads((run / "metrics.json").read_text()) for run in runs)
    assert rows["nll"][:2] == [f"{a['test']['nll']:.4f}", f"{b['test']['nll']:.4f}"]
    assert rows["nll"][3] == "▲ better"  # it fell
    assert rows["nll"][2].startswith("-")
    crack = a["per_class"]["crack"]["f1"], b["per_class"]["crack"]["f1"]
    assert rows["crack"][:3] == [f"{crack[0]:.4f}", f"{crack[1]:.4f}", f"{crack[1] - crack[0]:+.4f}"]
    assert (path.parent / "compare.png").stat().st_size > 10_000
    assert [file.name for file in sorted(path.parent.iterdir())] == ["compare.md", "compare.png"]


def test_equal_runs_differ_in_nothing(runs):
    text = compare(runs[0], runs[0]).read_text()
    assert "Both are the same." in text
    assert "better" not in text
    assert "worse" not in text


def test_an_interval_that_holds_zero_says_so(tmp_path):
    folders = [write_classifier(tmp_path / str(seed), seed=seed, margin=1.5) for seed in (0, 1)]
    (row,) = (line for line in compare(*folders).read_text().splitlines() if line.startswith("| accuracy |"))
    assert "may be chance" in row


RISING = ["accuracy", "macro_f1", "balanced_accuracy", "auroc", "vus_pr", "image_ap", "aupro", "event_recall"]
FALLING = ["ece", "nll", "brier", "miss_rate", "miss_rate_at_fpr_01", "false_alarm_rate", "train_val_gap"]


@pytest.mark.parametrize("name", [*RISING, *FALLING])
def test_the_direction_of_a_metric_is_known(name):
    rises = name in RISING
    assert better(name, 0.1, 0.2) is rises
    assert better(name, 0.2, 0.1) is not rises
    assert better(name, 0.2, 0.2) is None


def test_a_gap_is_better_the_nearer_it_is_to_none():
    assert better("train_val_gap", -0.083, 0.008) is True
    assert better("train_val_gap", 0.01, -0.02) is False
    assert better("train_val_gap", -0.02, 0.02) is None


def test_of_an_unknown_metric_nothing_is_claimed():
    assert better("point_threshold", 0.1, 0.2) is None
    assert better("vanish_25", 0.1, 0.2) is None


def test_detectors_of_one_kind_are_compared_by_their_metrics(tmp_path):
    labels = np.arange(50) % 5 == 0
    folders = [
        write_run(
            tmp_path / name,
            metrics={"image_auroc": auroc, "pixel_auroc": float("nan"), "image_f1": 0.5},
            arrays={"scores": np.random.default_rng(0).random(50) + labels * auroc, "labels": labels},
            data={"fingerprint": name},
            timing={"fit_s": 100.0 + auroc, "epochs": 3},
        )
        for name, auroc in (("a", 0.7), ("b", 0.6))
    ]
    text = compare(*folders, tmp_path / "out").read_text()
    rows = rows_of(text)
    assert rows["image_auroc"] == ["0.7000", "0.6000", "-0.1000", "▼ worse"]
    assert rows["pixel_auroc"][:2] == [NONE, NONE]
    assert rows["image_f1"][3] == "="
    assert rows["epochs"] == ["3", "3", "0", "="]
    assert "The data of the two runs differ" in text
    assert (tmp_path / "out" / "compare.png").is_file()


# --- wrong folders ------------------------------------------------------------------------------------------


def test_wrong_folders_are_named(runs, tmp_path):
    cases = {
        r"nowhere: there is no such folder": tmp_path / "nowhere",
        r"is not the folder of a run: it has no metrics\.json": tmp_path,
    }
    (runs[1] / "metrics.json").unlink()
    cases[r"b has no metrics\.json: the run has not finished; ckpt_path=last"] = runs[1]
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "metrics.json").write_text("[]")
    cases[r"foreign.metrics\.json is not a metrics\.json of a run"] = foreign
    for message, folder in cases.items():
        with pytest.raises(TocsinError, match=message):
            compare(runs[0], folder)


def test_broken_scores_and_runs_of_another_kind_are_named(runs, tmp_path):
    other = write_run(tmp_path / "series", metrics={"vus_pr": 0.5})
    with pytest.raises(TocsinError, match=r"\(vus_pr\) have none in common"):
        compare(runs[0], other)
    (runs[1] / "scores.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(TocsinError, match=r"scores\.npz cannot be read"):
        compare(*runs)


def test_the_command_says_where_the_page_is_or_what_is_wrong_in_one_line(runs, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "tocsin.compare", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    done = run(*runs, "--output", "out")
    assert (done.returncode, done.stdout) == (0, f"{Path('out') / 'compare.md'}\n"), done.stderr
    failed = run(runs[0], "nowhere")
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith(
        "python -m tocsin.compare: error: nowhere: there is no such folder"
    )
    assert "Traceback" not in failed.stderr
