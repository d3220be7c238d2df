"""`quick_results.csv` and `full_results.csv`: one line for each job of a stage."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tocsin.results import write_files
from tocsin.search.plan import Plan, bare_key
from tocsin.search.trials import Trial


def write_table(path: Path, plan: Plan, trials: Sequence[Trial], quick: Sequence[Trial] = ()) -> None:
    """Write the jobs of a stage as CSV, whole or not at all.

    The columns: number of the job, value of each swept key, state, the monitored value, what decides if that is
    another, metrics of `val`, `planted` and `test`, seconds, parameters, whether and why it was promoted, its error.
    Test metrics are there to be read; none of them has decided anything.

    Args:
        path: Where.
        plan: The search.
        trials: Jobs in the order of the lines.
        quick: Of the second stage: the jobs of the first one, whose number and quality stand beside each.
    """
    rows = [_row(plan, trial, _partner(trial, quick)) for trial in trials]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    last: list[str] = [name for name in ("promoted", "why", "error") if name in columns]
    columns = [name for name in columns if name not in last] + last
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_files(path.parent, {path.name: text.getvalue().encode()})


def partners(full: Sequence[Trial], quick: Sequence[Trial]) -> list[Trial | None]:
    """The job of the first stage with the same setting, for each of the second."""
    return [_partner(trial, quick) for trial in full]


def _partner(trial: Trial, quick: Sequence[Trial]) -> Trial | None:
    return next((other for other in quick if other.setting == trial.setting), None)


def _row(plan: Plan, trial: Trial, partner: Trial | None) -> dict[str, Any]:
    job, sections = trial.job, trial.sections
    row: dict[str, Any] = {"job": job.number}
    if partner is not None:
        row["quick_job"] = partner.job.number
    row |= {bare_key(key): trial.setting[bare_key(key)] for key in plan.swept}
    row |= {"state": str(job.state), plan.monitor: _text(job.value)}
    if plan.metric is not None:
        row[plan.metric] = _text(trial.quality)
    if partner is not None:
        row[f"quick {plan.decides}"] = _text(partner.quality)
    for section in ("val", "planted", "test"):
        for name, value in (sections.get(section) or {}).items():
            if isinstance(value, int | float):
                row.setdefault(f"{section}.{name}", _text(value))
    row["seconds"] = _text(trial.seconds)
    row["fit_seconds"] = _text(_of(sections, "timing", "fit_s"))
    row["parameters"] = _text(_of(sections, "resources", "parameters"))
    if partner is None:
        row |= {"promoted": "yes" if trial.reasons else "no", "why": "; ".join(trial.reasons)}
    else:
        row["why"] = "; ".join(partner.reasons)
    row["error"] = job.error or ""
    return row


def _of(sections: Mapping[str, Any], section: str, name: str) -> Any:
    return (sections.get(section) or {}).get(name)


def _text(value: float | None) -> str:
    """A number as it is read best; nothing for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
