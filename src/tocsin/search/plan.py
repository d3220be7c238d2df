"""What a search is: the grid, the overrides of its two stages, and how the second one is chosen.

It is written to `search.json` in the folder of the sweep, so that tables and pictures can be made again.
"""

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tocsin.errors import ConfigError, TocsinError

FILE = "search.json"
STAGES = ("quick", "full")
FORBIDDEN = ("test", "oracle", "baselines", "event_recall", "targets")  # sections that test labels went into


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search.

    Attributes:
        swept: Values of each key of the grid, as they are written on the command line.
        fixed: Overrides that all jobs share: `key=value`.
        quick: Overrides of the first stage.
        full: Overrides of the second stage.
        promote: The best so many of the first stage are run in full.
        per_value: And the best so many of each value of each key.
        limit: Most jobs of the second stage; None for no limit.
        metric: What decides: `<section>.<name>` of metrics.json; None for the value that the runs monitor.
        mode: `min` or `max`: which is better.
        monitor: Name of the value that the runs monitor.
    """

    swept: dict[str, list[str]]
    fixed: list[str] = field(default_factory=list)
    quick: list[str] = field(default_factory=list)
    full: list[str] = field(default_factory=list)
    promote: int = 10
    per_value: int = 1
    limit: int | None = None
    metric: str | None = None
    mode: str = "min"
    monitor: str = "val_loss"

    @property
    def decides(self) -> str:
        """Name of what decides."""
        return self.metric or self.monitor

    def settings(self) -> list[dict[str, str]]:
        """Every combination of the grid, the last key fastest."""
        return [
            dict(zip(self.swept, values, strict=True)) for values in itertools.product(*self.swept.values())
        ]

    def overrides(self, stage: str, setting: Mapping[str, str]) -> tuple[str, ...]:
        """Overrides of the job of a combination in one stage; those of the stage replace what all jobs share."""
        own = self.quick if stage == "quick" else self.full
        keys = set(map(bare_key, own))
        shared = [text for text in self.fixed if bare_key(text) not in keys]
        return (*shared, *(f"{key}={value}" for key, value in setting.items()), *own)


def bare_key(override: str) -> str:
    """The key of an override, without the signs that add keys."""
    return override.partition("=")[0].lstrip("+")


def as_overrides(options: Mapping[str, Any] | Sequence[str] | None) -> list[str]:
    """Overrides of a stage, given as a mapping of keys to values, flat or nested, or as a list of `key=value`."""
    if isinstance(options, Mapping):
        return [f"{key}={_written(value)}" for key, value in _flat(options)]
    return list(options or ())


def _flat(options: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        full = f"{name}.{key}" if name else str(key)
        if isinstance(value, Mapping) and value:
            yield from _flat(value, full)
        else:
            yield full, value


def _written(value: Any) -> str:
    """A value as the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(_written, value))}]"
    text = str(value)
    plain = re.fullmatch(r"[\w./+-]+", text) is not None
    return text if plain else "'" + text.replace("'", "\\'") + "'"


def check_plan(plan: Plan) -> None:
    """Refuse what cannot be searched, before anything is run.

    Raises:
        ConfigError: Nothing is swept; a stage sets what is swept; a number is not positive; or test labels would
            choose.
    """
    if not plan.swept:
        raise ConfigError(
            "a two-stage search needs a grid: give model.d_model=32,64 on the command line, or search=mae_ablation"
        )
    for stage in STAGES:
        for text in getattr(plan, stage):
            if "=" not in text and not text.startswith("~"):
                raise ConfigError(f"hydra.sweeper.{stage}: {text} is not key=value")
            if bare_key(text) in set(map(bare_key, plan.swept)):
                raise ConfigError(
                    f"hydra.sweeper.{stage} sets {bare_key(text)}, which is swept: take it out of one"
                )
    if plan.mode not in ("min", "max"):
        raise ConfigError(f"hydra.sweeper.mode={plan.mode} is neither min nor max")
    if plan.promote < 0 or plan.per_value < 0 or plan.promote + plan.per_value == 0:
        raise ConfigError(
            f"hydra.sweeper.promote={plan.promote} and per_value={plan.per_value} promote nothing: set one above 0"
        )
    if plan.limit is not None and plan.limit < 1:
        raise ConfigError(
            f"hydra.sweeper.limit={plan.limit} is not a positive number of jobs; null sets no limit"
        )
    if plan.metric is not None and plan.metric.partition(".")[0] in FORBIDDEN:
        raise ConfigError(
            f"hydra.sweeper.metric={plan.metric}: test labels must not choose; take val.*, planted.*, or "
            "null for the value that the runs monitor"
        )


def write_plan(plan: Plan, sweep_dir: Path) -> None:
    """Write `search.json`, whole or not at all."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    temporary = sweep_dir / f".{FILE}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(asdict(plan), indent=2) + "\n")
    temporary.replace(sweep_dir / FILE)


def read_plan(sweep_dir: Path) -> Plan | None:
    """The search whose sweep lies in a folder; None where it is none.

    Raises:
        TocsinError: Its file cannot be read.
    """
    path = sweep_dir / FILE
    if not path.is_file():
        return None
    try:
        return Plan(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise TocsinError(
            f"{path} is not the plan of a search: {error}; run the search again in that folder"
        ) from error
