"""Finished runs as their folders tell of them, and the predictions of two runs for the same images."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import OmegaConf

from tocsin.errors import TocsinError

# How a metric's name ends tells its direction; of what is named in neither nothing is claimed.
HIGHER: tuple[str, ...] = (
    "accuracy",
    "f1",
    "precision",
    "recall",
    "auroc",
    "auc_roc",
    "auc_pr",
    "vus_pr",
    "vus_roc",
    "_ap",
    "aupro",
)
HIGHER += ("items_per_s",)
LOWER: tuple[str, ...] = (
    "ece",
    "nll",
    "brier",
    "miss_rate",
    "false_alarm_rate",
    "fpr_01",
    "fpr_05",
)
LOWER += ("false_alarms_per_1000", "detection_delay", "fit_s")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where it lies.
        sections: As in metrics.json.
        config: Its configuration, flat, with dotted keys.
        arrays: As in scores.npz.
    """

    folder: Path
    sections: dict[str, Any]
    config: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def classifies(self) -> bool:
        """Whether it gave each test image the probabilities of some classes."""
        return {"probabilities", "labels", "paths", "classes"} <= self.arrays.keys()


class Pairs(NamedTuple):
    """The predictions of two classifiers for the same images, in the same order.

    Attributes:
        labels: (N,) int64.
        first: (N, K) probabilities.
        second: (N, K) probabilities.
        groups: (N,) int64, or None.
        classes: K names.
    """

    labels: np.ndarray
    first: np.ndarray
    second: np.ndarray
    groups: np.ndarray | None
    classes: list[str]


def read_run(folder: Path) -> Run:
    """What a finished run left behind.

    Raises:
        TocsinError: There is no such folder, or it is not that of a finished run.
    """
    if not folder.is_dir():
        raise TocsinError(
            f"{folder}: there is no such folder; give that of a run, outputs/<model>/<data>/<time>"
        )
    path, config = folder / "metrics.json", folder / ".hydra" / "config.yaml"
    if not path.is_file():
        if (folder / "train.log").is_file() or config.is_file():
            raise TocsinError(
                f"{folder} has no metrics.json: the run has not finished; ckpt_path=last resumes it"
            )
        raise TocsinError(f"{folder} is not the folder of a run: it has no metrics.json")
    try:
        sections = json.loads(path.read_text())
        sections["run"]["model"], sections["test"].keys()
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise TocsinError(f"{path} is not a metrics.json of a run: {error}") from error
    plain = OmegaConf.to_container(OmegaConf.load(config)) if config.is_file() else {}
    return Run(folder, sections, dict(flat(plain)), _arrays(folder / "scores.npz"))


def pair(before: Run, after: Run) -> Pairs | str:
    """Predictions for the same images in the same order, or one line on why there are none."""
    if not (before.classifies and after.classifies):
        prints = [run.sections.get("data", {}).get("fingerprint") for run in (before, after)]
        same = prints[0] == prints[1]
        return "" if same else "The data of the two runs differ: compare their metrics with care."
    a, b = before.arrays, after.arrays
    _, at_a, at_b = np.intersect1d(a["paths"], b["paths"], return_indices=True)
    if not len(at_a) == len(a["paths"]) == len(b["paths"]):
        return (
            f"The test images differ ({len(a['paths'])} before, {len(b['paths'])} after, {len(at_a)} in both): the "
            "metrics stand beside each other, but the runs are not comparable image by image."
        )
    classes = [str(name) for name in a["classes"]]
    if sorted(classes) != sorted(map(str, b["classes"])):
        return "The classes differ: the metrics stand beside each other, but are not of the same task."
    place = np.array(
        [classes.index(str(name)) for name in b["classes"]]
    )  # of each class after among those before
    labels, others = a["labels"][at_a], place[b["labels"][at_b]]
    if wrong := int((labels != others).sum()):
        return f"{wrong} test images have another class after: the runs are not comparable image by image."
    second = np.empty_like(b["probabilities"])
    second[:, place] = b["probabilities"][at_b]
    groups = a["groups"][at_a] if "groups" in a else None
    return Pairs(labels, a["probabilities"][at_a], second, groups, classes)


def better(name: str, first: float, second: float) -> bool | None:
    """Whether the second value of a metric is better; None if they are equal, or its direction is unknown."""
    if name == "train_val_gap":  # the nearer to none, on either side
        first, second = -abs(first), -abs(second)
    elif not name.endswith(HIGHER + LOWER):
        return None
    if first == second:
        return None
    return (second > first) != name.endswith(LOWER)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Keys and values of a nested configuration, keys joined by dots."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    elif name:
        yield name, value


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """What scores.npz holds; nothing if there is none."""
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise TocsinError(f"{path} cannot be read, evaluate.py writes it anew: {error}") from error
