"""The search itself: quick stage, promotion, full stage, and what is kept of them.

Nothing here knows Hydra: `launch` runs jobs of a stage in a folder and returns when they have ended. Which jobs are
promoted depends on their numbers alone, so that a search that is started again in its folder takes the same way, and
a launcher that returns what is finished repeats nothing.

What decides is measured on validation data. The default is the value that the runs monitor (`val_loss`), which is
fair where all jobs minimise the same loss. Where the grid changes the loss itself, what it hides or how it weighs,
values of `val_loss` tell nothing of who detects better; then `metric=planted.vus_pr` with `task.planted=true` is
fair: how well scores find synthetic anomalies planted in the validation part, the same ones for every job (Goswami
et al., "Unsupervised Model Selection for Time-Series Anomaly Detection", ICLR 2023). No label of the
test split is read by either.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tocsin.checkpoints import replace_with_copy
from tocsin.errors import TocsinError
from tocsin.search.plan import STAGES, Plan, check_plan, read_plan, write_plan
from tocsin.search.promotion import promote, ranking
from tocsin.search.tables import write_table
from tocsin.search.trials import Trial, read_trials, record_missing, refuse_unknown_metric

log = logging.getLogger(__name__)

# Runs jobs, given by their overrides, in a folder; their values, NaN or an error where one failed.
Launch = Callable[[Path, Sequence[Sequence[str]]], Sequence[float | BaseException]]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A search that was run, or a part of it.

    Attributes:
        folder: The folder of the sweep.
        plan: What was searched.
        quick: Jobs of the first stage, in the order of the grid.
        full: Jobs of the second stage, in the order of the grid.
    """

    folder: Path
    plan: Plan
    quick: list[Trial]
    full: list[Trial]

    @property
    def best(self) -> Trial | None:
        """The best job of the second stage; None where none has finished."""
        order = ranking([trial.quality for trial in self.full], self.plan.mode)
        return self.full[order[0]] if order else None


def search(plan: Plan, sweep_dir: Path, launch: Launch) -> Study:
    """Run both stages, and write `search.json`, the two tables and `best_model.ckpt`.

    Args:
        plan: What to search.
        sweep_dir: Folder of the sweep; its stages lie in `quick/` and `full/`.
        launch: Runs the jobs of a stage.

    Raises:
        ConfigError: The plan cannot be searched.
        TocsinError: No job of a stage has finished.
    """
    check_plan(plan)
    write_plan(plan, sweep_dir)
    settings = plan.settings()
    log.info("quick stage: %d jobs", len(settings))
    _run_stage(plan, "quick", [plan.overrides("quick", setting) for setting in settings], sweep_dir, launch)
    study = read_study(sweep_dir)
    write_tables(study)
    refuse_unknown_metric(study.quick, plan.metric)
    _require_one(study.quick, "quick", sweep_dir)
    promoted = [trial for trial in study.quick if trial.reasons]
    log.info("full stage: %d jobs of %d, chosen by %s", len(promoted), len(study.quick), plan.decides)
    by_bare = {_bare(setting): setting for setting in settings}
    chosen = [by_bare[_bare(trial.setting)] for trial in promoted]
    _run_stage(plan, "full", [plan.overrides("full", setting) for setting in chosen], sweep_dir, launch)
    study = read_study(sweep_dir)
    write_tables(study)
    _require_one(study.full, "full", sweep_dir)
    _keep_best(study)
    return study


def read_study(sweep_dir: Path) -> Study:
    """A search as its folder tells of it, promotions included.

    Raises:
        TocsinError: The folder is not that of a search, or a file in it cannot be read.
    """
    plan = read_plan(sweep_dir)
    if plan is None:
        raise TocsinError(f"{sweep_dir} is not the folder of a two-stage search: it has no search.json")
    quick, full = (read_trials(plan, stage, sweep_dir / stage) for stage in STAGES)
    return Study(folder=sweep_dir, plan=plan, quick=with_reasons(quick, plan), full=full)


def with_reasons(quick: Sequence[Trial], plan: Plan) -> list[Trial]:
    """The jobs of the first stage, those that deserve a full run with the reasons."""
    reasons = promote(
        [trial.quality for trial in quick],
        [trial.setting for trial in quick],
        overall=plan.promote,
        per_value=plan.per_value,
        mode=plan.mode,
        limit=plan.limit,
    )
    return [replace(trial, reasons=tuple(reasons.get(index, ()))) for index, trial in enumerate(quick)]


def _run_stage(
    plan: Plan, stage: str, overrides: Sequence[Sequence[str]], sweep_dir: Path, launch: Launch
) -> None:
    outcomes = launch(sweep_dir / stage, overrides)
    record_missing(sweep_dir / stage, overrides, outcomes)


def _bare(setting: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((key.lstrip("+"), value) for key, value in setting.items())


def write_tables(study: Study) -> None:
    """Write `quick_results.csv` and, if anything was run in full, `full_results.csv`."""
    write_table(study.folder / "quick_results.csv", study.plan, study.quick)
    if study.full:
        write_table(study.folder / "full_results.csv", study.plan, study.full, study.quick)


def _require_one(trials: Sequence[Trial], stage: str, sweep_dir: Path) -> None:
    if any(math.isfinite(trial.quality) for trial in trials):
        return
    errors = [trial.job.error for trial in trials if trial.job.error]
    raise TocsinError(
        f"none of the {len(trials)} jobs of the {stage} stage has finished with a result; the first error: "
        f"{errors[0] if errors else 'none was recorded'}; all of them are in {sweep_dir / stage}_results.csv"
    )


def _keep_best(study: Study) -> None:
    """Copy the best model of the second stage to where it is found at once."""
    best = study.best
    assert best is not None
    setting = " ".join(f"{key}={value}" for key, value in best.setting.items())
    log.info("best: full/%s, %s %.6g: %s", best.job.folder.name, study.plan.decides, best.quality, setting)
    source = best.job.folder / "checkpoints" / "best.ckpt"
    if source.is_file():
        replace_with_copy(source, study.folder / "best_model.ckpt")
    else:
        log.warning("no best_model.ckpt: %s does not exist", source)
