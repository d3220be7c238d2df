"""Folders of sweeps as runs leave them, drawn without running anything."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tocsin.jobs import Job, State, write_job


def write_run(
    folder: Path,
    overrides: dict[str, Any],
    *,
    value: float | None = 0.5,
    model: str = "mae",
    seed: int = 1,
    source: str | None = "smd/machine-1.npz",
    fingerprint: str = "f1",
    metric: str = "vus_pr",
    baselines: dict[str, dict[str, float]] | None = None,
    pretrained: bool = True,
    config: dict[str, Any] | None = None,
    plots: tuple[str, ...] = (),
    job: bool = False,
    finished: str = "2026-11-26T10:00:00",
    **sections: Any,
) -> Path:
    """A finished run with its configuration: the overrides, one file line each, unless `config` says otherwise."""
    data: dict[str, Any] = {"fingerprint": fingerprint}
    written = {
        "run": {
            "model": model,
            "data": "series",
            "seed": seed,
            "tags": [],
            "overrides": [
                f"{key}={value}" for key, value in {"model": model, **overrides, "seed": seed}.items()
            ],
            "pretrained": pretrained,
            "git": "abc",
            "finished": finished,
        },
        "data": data | ({"source": source} if source else {}),
        "test": {} if metric == "" else {metric: value, "point_f1": 0.25},
        "baselines": {"random": {metric: 0.1}, "abs_z": {metric: 0.2}} if baselines is None else baselines,
        "timing": {"fit_s": 12.0},
        **sections,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(written))
    write_config(folder, {"model.name": model, **overrides, "seed": seed} if config is None else config)
    for name in plots:
        draw(folder / "plots" / f"{name}.png", seed)
    if job:
        number = int(folder.name) if folder.name.isdecimal() else 0
        record = Job(folder=folder, number=number, overrides=tuple(written["run"]["overrides"]))
        write_job(record.begin().end(State.FINISHED, value=value))
    return folder


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Dotted keys become nested ones; JSON is YAML."""
    nested: dict[str, Any] = {}
    for key, value in config.items():
        *groups, name = key.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra" / "config.yaml").write_text(json.dumps(nested))


def write_failed(folder: Path, overrides: dict[str, Any], *, state: State, error: str | None = None) -> Path:
    """A job without a result, with its configuration."""
    texts = tuple(f"{key}={value}" for key, value in overrides.items())
    job = Job(folder=folder, number=int(folder.name), overrides=texts).begin()
    write_job(job if state is State.RUNNING else job.end(state, error=error))
    config = {key: value for key, value in overrides.items() if key != "model"}
    write_config(folder, {"model.name": overrides.get("model", "mae"), **config})
    return folder


def draw(path: Path, seed: int) -> None:
    """A picture of noise with a line in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(200, 255, (120, 1000, 3), dtype=np.uint8)
    cv2.line(pixels, (0, 100), (999, 20), (180, 80, 0), 3)
    assert cv2.imwrite(str(path), pixels)
