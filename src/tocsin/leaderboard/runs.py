"""The runs below some folders, as their metrics.json, configuration and job.json tell of them."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tocsin.errors import TocsinError
from tocsin.finished_runs import flat
from tocsin.jobs import FILE, Job, State, read_job
from tocsin.overrides import as_mapping
from tocsin.results_table import method_name

# The C parser reads a configuration in half a millisecond, the one in Python in seven.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Kind(NamedTuple):
    """A kind of test data.

    Attributes:
        metric: The test metric that ranks, higher = better (docs/evaluation.md).
        title: Its name for a reader.
        beside: Test metrics that are shown beside it, with their names.
    """

    metric: str
    title: str
    beside: dict[str, str]


KINDS = (
    Kind("vus_pr", "VUS-PR", {"auc_pr": "AUC-PR", "point_f1": "point F1"}),
    Kind("image_auroc", "image AUROC", {"pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}),
    Kind("macro_f1", "macro F1", {"accuracy": "accuracy", "auroc": "AUROC"}),
    Kind("ap50_beyond_control", "AP50 lost beyond the control", {"ap50": "AP50", "vanish_25": "vanished"}),
)
CLASSES = KINDS[2]


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        folder: Where it lies.
        sections: As in metrics.json.
        config: Its configuration, flat, with dotted keys; empty where it was not kept.
    """

    folder: Path
    sections: dict[str, Any]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """The model, its tags, and whether it began with random weights."""
        return method_name(self.sections["run"])

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.sections["run"]["seed"])

    @cached_property
    def kind(self) -> Kind | None:
        """By its test metrics; None where the test data have no labels."""
        return next((kind for kind in KINDS if kind.metric in self.sections["test"]), None)

    @cached_property
    def overrides(self) -> dict[str, str]:
        """What its command line said."""
        return as_mapping(self.sections["run"].get("overrides", ()))


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A job that has no result, or none that counts.

    Attributes:
        folder: Where it lies.
        state: `failed`, `pruned`, `unfinished` or `damaged`.
        error: One line on why.
        overrides: What its command line said.
        config: Its configuration, flat; empty where it was not kept.
    """

    folder: Path
    state: str
    error: str
    overrides: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


class Found(NamedTuple):
    """What lies below some folders.

    Attributes:
        runs: Finished runs, by folder.
        lost: Jobs without a result, by folder.
    """

    runs: list[Run]
    lost: list[Lost]


def find(folders: Sequence[Path]) -> Found:
    """Read all runs below some folders; one that cannot be read is named among the lost ones.

    Raises:
        TocsinError: A folder does not exist, or there are no runs at all.
    """
    for folder in folders:
        if not folder.is_dir():
            raise TocsinError(f"{folder}: there is no such folder; give that of a sweep, multirun/<time>")
    places = dict.fromkeys(place for folder in folders for place in run_folders(folder))
    if not places:
        raise TocsinError(f"no runs below {', '.join(map(str, folders))}: give the folder of a sweep")
    runs: list[Run] = []
    lost: list[Lost] = []
    for place in places:
        try:
            found = _read(place)
        except TocsinError as error:
            found = Lost(folder=place, state="damaged", error=str(error))
        (runs if isinstance(found, Run) else lost).append(found)  # type: ignore[arg-type]
    return Found(runs, lost)


def run_folders(folder: Path) -> list[Path]:
    """Folders of runs and jobs at or below a folder, by their numbers; what lies inside of one is no further run."""
    return sorted(_walk(folder), key=_by_number)


def _walk(folder: Path) -> Iterator[Path]:
    for place, inner, files in os.walk(folder):
        if {"metrics.json", FILE} & set(files) or Path(place, ".hydra", "config.yaml").is_file():
            yield Path(place)
            inner.clear()


def _by_number(path: Path) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in path.parts]


def _read(folder: Path) -> Run | Lost:
    job = read_job(folder)
    path, config = folder / "metrics.json", _config(folder / ".hydra" / "config.yaml")
    if path.is_file() and (job is None or job.state is State.FINISHED):
        return Run(folder=folder, sections=_sections(path), config=config)
    state, error = _why(job)
    overrides = as_mapping(job.overrides) if job else _given(folder)
    return Lost(folder=folder, state=state, error=error, overrides=overrides, config=config)


def _why(job: Job | None) -> tuple[str, str]:
    """State of a job without a result, and one line on it."""
    if job is None or job.state is State.RUNNING:
        return "unfinished", "still running, or interrupted: run the sweep again to resume it"
    if job.state is State.FINISHED:
        return "damaged", "it finished, but its metrics.json is gone: delete the folder to run it again"
    return str(job.state), " ".join((job.error or "").split()) or "no reason was recorded"


def _sections(path: Path) -> dict[str, Any]:
    try:
        sections = json.loads(path.read_text())
        int(sections["run"]["seed"]), sections["run"]["model"], sections["data"].keys()
        {**sections["test"], **sections.get("baselines", {})}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TocsinError(
            f"{path} is not a metrics.json of a run: {type(error).__name__}: {error}"
        ) from error
    return dict(sections)


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        loaded = yaml.load(path.read_text(), Loader=LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TocsinError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return dict(flat(loaded)) if isinstance(loaded, Mapping) else {}


def _given(folder: Path) -> dict[str, str]:
    """What the command line of a run without a record said."""
    path = folder / ".hydra" / "overrides.yaml"
    loaded = yaml.load(path.read_text(), Loader=LOADER) if path.is_file() else []
    return as_mapping(map(str, loaded or []))
