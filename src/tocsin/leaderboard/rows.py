"""The lines of a table: means over entities for each seed, what sets a line apart, and why it may not compete."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tocsin.leaderboard.entries import ENTITY, NO_PART, Entry, place_of
from tocsin.leaderboard.runs import CLASSES, KINDS, Kind, Run
from tocsin.leaderboard.significance import LEVEL
from tocsin.overrides import differing
from tocsin.results_table import BASELINES, NAMES

PATCHES = KINDS[3]
Measured = dict[int, dict[str, dict[str, float | None]]]  # metrics by seed and entity


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table.

    Attributes:
        name: Model with its tags, or a score that needs no model.
        options: Overrides that set it apart from other lines, by short names.
        baseline: Whether it is what others must beat.
        entry: Its runs; None for a score that needs no model.
        values: Metric that ranks by seed, mean over entities.
        metrics: All test metrics by name: one number for each seed that has it.
        reason: Why it has no rank; empty if it has one.
        rank: From 1; equals share one. None without a rank.
        lead: Mean minus that of the best baseline; None for baselines and without a rank.
        p: Of that lead, adjusted for the table; None where seeds cannot tell.
    """

    name: str
    options: dict[str, str] = field(default_factory=dict)
    baseline: bool = False
    entry: Entry | None = None
    values: dict[int, float] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    reason: str = ""
    rank: int | None = None
    lead: float | None = None
    p: float | None = None

    @property
    def mean(self) -> float:
        """Over seeds; NaN without any value."""
        return statistics.fmean(self.values.values()) if self.values else math.nan

    @property
    def label(self) -> str:
        """Name and options in one line."""
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def runs(self) -> list[Run]:
        """Its runs, by seed and entity."""
        if self.entry is None:
            return []
        return [self.entry.runs[place] for place in sorted(self.entry.runs, key=lambda at: (at[1], at[0]))]

    @property
    def lost(self) -> int:
        """Jobs of the same configuration without a result."""
        return 0 if self.entry is None else len(self.entry.lost)

    @property
    def marked(self) -> bool:
        """Whether it beats the best baseline by more than the luck of the seeds."""
        return self.p is not None and self.p < LEVEL


def row_of(entry: Entry, options: dict[str, str], kind: Kind, entities: Sequence[str]) -> Row:
    """The line of an entry.

    Args:
        entry: Its runs.
        options: What sets it apart.
        kind: Of the test data.
        entities: All that the table is about.
    """
    measured: Measured = {}
    for (entity, seed), run in sorted(entry.runs.items()):
        measured.setdefault(seed, {})[entity] = run.sections["test"]
    values, metrics = _means(measured, kind, entities)
    return Row(
        name=entry.first.name,
        options=options,
        baseline=entry.first.sections["run"]["model"] in BASELINES,
        entry=entry,
        values=values,
        metrics=metrics,
        reason=_reason(entry, values, kind, entities),
    )


def _means(
    measured: Measured, kind: Kind, entities: Sequence[str]
) -> tuple[dict[int, float], dict[str, list[float]]]:
    """Means over entities: of the metric that ranks for each seed with all of them, of every metric for each seed."""
    values: dict[int, float] = {}
    metrics: dict[str, list[float]] = {}
    for seed, by_entity in sorted(measured.items()):
        found: dict[str, list[float]] = {}
        for test in by_entity.values():
            for name, value in test.items():
                if value is not None:
                    found.setdefault(name, []).append(float(value))
        for name, numbers in found.items():
            metrics.setdefault(name, []).append(statistics.fmean(numbers))
        if len(by_entity) == len(entities) and kind.metric in found:
            values[seed] = statistics.fmean(found[kind.metric])
    return values, metrics


def _reason(entry: Entry, values: dict[int, float], kind: Kind, entities: Sequence[str]) -> str:
    """Why an entry does not compete; empty if it does. Classifiers learn even from random weights, and say so."""
    if not entry.first.sections["run"].get("pretrained", True) and kind is not CLASSES:
        return "random weights where pretrained ones belong (pretrained: false)"
    if values:
        return ""
    missing = [entity for entity in entities if entity not in {place[0] for place in entry.runs}]
    if missing:
        return f"no result on {', '.join(missing)}"
    return f"{kind.metric} is not defined" if len(entities) == 1 else "no seed has a result on every series"


def rows_without_model(runs: Sequence[Run], kind: Kind, entities: Sequence[str]) -> list[Row]:
    """The scores that need no model, as the runs measured them beside their own."""
    measured: dict[str, Measured] = {}
    for run in runs:
        entity = place_of(run)[1]
        for name, test in _free(run, kind).items():
            measured.setdefault(name, {}).setdefault(run.seed, {}).setdefault(entity, test)
    rows = []
    for name, by_seed in measured.items():
        values, metrics = _means(by_seed, kind, entities)
        if values:
            rows.append(Row(name=NAMES.get(name, name), baseline=True, values=values, metrics=metrics))
    return rows


def _free(run: Run, kind: Kind) -> dict[str, dict[str, float | None]]:
    baselines: dict[str, dict[str, float | None]] = run.sections.get("baselines", {})
    if (
        kind is PATCHES
    ):  # what a patch does is measured against the strongest control, which so has nothing of it
        return {
            "strongest control": {**baselines.get(run.sections.get("best_control", ""), {}), kind.metric: 0.0}
        }
    return baselines


def told_apart(rows: list[Row]) -> list[Row]:
    """Rows of one name and the same overrides get what else differs in their configurations, or their folder."""
    labels = [row.label for row in rows]
    twins = {label for label in labels if labels.count(label) > 1}
    told = list(rows)
    for label in twins:
        places = [place for place, row in enumerate(rows) if row.label == label]
        configs = [{key: str(value) for key, value in rows[place].runs[0].config.items()} for place in places]
        extra = differing(configs, (*NO_PART, *ENTITY))
        if len({str(options) for options in extra}) < len(places):
            extra = [{"run": rows[place].runs[0].folder.name} for place in places]
        for place, options in zip(places, extra, strict=True):
            told[place] = replace(rows[place], options={**rows[place].options, **options})
    return told
