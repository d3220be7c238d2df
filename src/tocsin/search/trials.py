"""The jobs of a stage as their folders tell of them: setting, state, quality, and what was measured."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tocsin.errors import ConfigError, TocsinError
from tocsin.jobs import Job, State, job_key, read_jobs, write_job
from tocsin.search.plan import Plan, bare_key


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A job of a stage.

    Attributes:
        job: Its record.
        setting: Value of each swept key.
        quality: What decides; NaN where the job did not finish or has no such number.
        sections: As in metrics.json; empty where there is none.
        reasons: Why it was promoted; empty where it was not.
    """

    job: Job
    setting: dict[str, str]
    quality: float
    sections: dict[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    @property
    def seconds(self) -> float | None:
        """How long it took: of its record, or from start to end of the run."""
        run = self.sections.get("run") or {}
        if self.job.seconds is None and run.get("started") and run.get("finished"):
            begin, end = (datetime.fromisoformat(run[name]) for name in ("started", "finished"))
            return (end - begin).total_seconds()
        return self.job.seconds

    @property
    def finished(self) -> bool:
        """Whether it ran to its end."""
        return self.job.state == State.FINISHED


def record_missing(
    stage_dir: Path, overrides: Sequence[Sequence[str]], outcomes: Sequence[float | BaseException]
) -> None:
    """Write the records that a launcher did not: Hydra's own keep none.

    Args:
        stage_dir: Folder of the stage.
        overrides: Those of each job.
        outcomes: Value of each job, NaN = failed; or its error.
    """
    known = {job.key for job in read_jobs(stage_dir)}
    for number, (own, outcome) in enumerate(zip(overrides, outcomes, strict=True)):
        if job_key(own) in known:
            continue
        job = Job(folder=stage_dir / str(number), number=number, overrides=tuple(own))
        if isinstance(outcome, BaseException):
            error = str(outcome).partition("\n")[0] or type(outcome).__name__
            write_job(replace(job, state=State.FAILED, error=error))
        elif math.isnan(outcome):
            write_job(replace(job, state=State.FAILED, error="it returned no number"))
        else:
            write_job(replace(job, state=State.FINISHED, value=float(outcome)))


def read_trials(plan: Plan, stage: str, stage_dir: Path) -> list[Trial]:
    """The jobs of a stage that are part of the search, in the order of the grid.

    A job that another grid left in the folder is no part of it; one without a record has not been started.

    Raises:
        TocsinError: A record or a metrics.json cannot be read.
    """
    jobs = {job.key: job for job in read_jobs(stage_dir)}
    trials = []
    for setting in plan.settings():
        job = jobs.get(job_key(plan.overrides(stage, setting)))
        if job is not None:
            bare = {bare_key(key): value for key, value in setting.items()}
            trials.append(_trial(job, bare, plan.metric))
    return trials


def sweep_trials(jobs: Iterable[Job], metric: str | None = None) -> list[Trial]:
    """The jobs of an ordinary sweep; its swept keys are those whose values differ between jobs."""
    jobs = list(jobs)
    settings = [dict(_split(text) for text in job.overrides) for job in jobs]
    keys = list(dict.fromkeys(key for setting in settings for key in setting))
    swept = [key for key in keys if len({setting.get(key) for setting in settings}) > 1]
    return [
        _trial(job, {key: setting.get(key, "") for key in swept}, metric)
        for job, setting in zip(jobs, settings, strict=True)
    ]


def refuse_unknown_metric(trials: Sequence[Trial], metric: str | None) -> None:
    """Name the possible metrics if no finished job has the one that shall decide.

    Raises:
        ConfigError: There are finished jobs, and none has it.
    """
    finished = [trial for trial in trials if trial.finished]
    if metric is None or not finished or any(math.isfinite(trial.quality) for trial in finished):
        return
    sections = finished[0].sections
    known = [f"{name}.{key}" for name in ("val", "planted") for key in sections.get(name) or {}]
    raise ConfigError(
        f"hydra.sweeper.metric={metric}: no finished job has it; there are: {', '.join(known) or 'none'}; "
        "planted.* needs task.planted=true"
    )


def read_metrics(folder: Path) -> dict[str, Any]:
    """The metrics.json of a run; empty where there is none."""
    path = folder / "metrics.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise TocsinError(f"{path} is not a metrics.json of a run: {error}") from error


def _trial(job: Job, setting: dict[str, str], metric: str | None) -> Trial:
    sections = read_metrics(job.folder)
    found = job.value if metric is None else _number(sections, metric)
    done = job.state == State.FINISHED and found is not None
    return Trial(
        job=job, setting=setting, quality=float(found or 0.0) if done else math.nan, sections=sections
    )


def _number(sections: Mapping[str, Any], metric: str) -> float | None:
    section, _, name = metric.partition(".")
    found = (sections.get(section) or {}).get(name)
    return float(found) if isinstance(found, int | float) else None


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+"), value
