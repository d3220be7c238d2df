"""What a run leaves behind: numbers, arrays, and the files they are written to."""

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Results(ABC):
    """Base of the results of all tasks.

    Attributes:
        val: Metrics of the validation split, where it has labels.
        test: Metrics of the test split; empty without labels.
        oracle: Best values any threshold could reach on the test labels.
        baselines: Test metrics of scores that need no model, by name.
        items_per_s: Items scored per second.
    """

    val: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    oracle: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    items_per_s: float = 0.0
    headline: ClassVar[tuple[str, ...]]  # the test metrics that are shown at the end of a run

    @abstractmethod
    def sections(self) -> dict[str, Any]:
        """The parts of metrics.json that the task knows."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of scores.npz, in the original order of the test split."""

    def files(self) -> Mapping[str, bytes]:
        """Contents of what else belongs into the folder of the run, by name."""
        return {}

    @abstractmethod
    def ranking(self) -> tuple[np.ndarray, np.ndarray | None]:
        """(N,) scores of the test split and (N,) bool labels, where it has some: what curves are drawn of."""


@dataclass(frozen=True)
class Timing:
    """How long a run took.

    Attributes:
        fit_s: Seconds of training, validation included.
        epochs: Epochs run.
        train_items_per_s: Training items per second of `fit_s`.
        assess_s: Seconds of calibration and test.
    """

    fit_s: float = 0.0
    epochs: int = 0
    train_items_per_s: float = 0.0
    assess_s: float = 0.0


def write_metrics(path: Path, sections: Mapping[str, Any]) -> None:
    """Write metrics.json whole or not at all; undefined numbers become null."""
    text = json.dumps(_plain(sections), indent=2, allow_nan=False) + "\n"
    _write(path, text.encode())


def write_scores(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write scores.npz whole or not at all."""
    temporary = _temporary(path)
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    temporary.replace(path)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, each whole or not at all."""
    for name, content in files.items():
        _write(folder / name, content)


def timing_section(timing: Timing, results: Results) -> dict[str, float]:
    """The `timing` section of metrics.json."""
    return {**asdict(timing), "test_items_per_s": results.items_per_s}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _write(path: Path, content: bytes) -> None:
    temporary = _temporary(path)
    temporary.write_bytes(content)
    temporary.replace(path)
