"""The folder `visualization/` of a search or of any sweep: data, architecture, stages and the best model."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from omegaconf import OmegaConf

from tocsin.data.base import SeriesDataModule
from tocsin.errors import TocsinError
from tocsin.jobs import read_jobs
from tocsin.plots.architecture import layer_table
from tocsin.plots.overview import data_overview
from tocsin.plots.save import save
from tocsin.plots.search_effects import cost_and_quality, marginal_effects, pair_heat_map
from tocsin.plots.search_ranking import Promoted, quick_against_full, ranking_chart
from tocsin.plots.splits import splits_overview
from tocsin.run_pictures import Loaded, copy_plots, draw_run, load_run
from tocsin.search.architecture import parts_of
from tocsin.search.effects import agreement, best_so_far, influence
from tocsin.search.promotion import ranking
from tocsin.search.run import Study
from tocsin.search.tables import partners
from tocsin.search.trials import Trial, sweep_trials

log = logging.getLogger(__name__)

FOLDER = "visualization"

Named = Iterator[tuple[str, Figure]]


def draw_study(study: Study) -> list[str]:
    """Draw a two-stage search into `visualization/` of its folder.

    Returns:
        One line for each thing that could not be drawn, with the reason.
    """
    folder = study.folder / FOLDER
    plan = study.plan
    missing = _draw(folder / "stage1", lambda: grid_figures(study.quick, plan.decides, plan.mode))
    missing += _draw(folder / "stage2", lambda: promotion_figures(study))
    best = study.best
    missing += (
        ["best model: no job of the full stage has finished"] if best is None else _draw_best(best, folder)
    )
    return _told(folder, missing)


def draw_sweep(sweep_dir: Path) -> list[str]:
    """Draw an ordinary sweep, whose swept keys are those that differ between its jobs, into `visualization/`.

    Raises:
        TocsinError: The folder holds no jobs.
    """
    jobs = read_jobs(sweep_dir)
    if not jobs:
        raise TocsinError(f"{sweep_dir} is not the folder of a sweep: it holds no job.json")
    trials = sweep_trials(jobs)
    monitor, mode = _monitored(jobs[0].folder)
    missing = _draw(sweep_dir / FOLDER / "sweep", lambda: grid_figures(trials, monitor, mode))
    order = ranking([trial.quality for trial in trials], mode)
    if order:
        missing += _draw_best(trials[order[0]], sweep_dir / FOLDER)
    else:
        missing.append("best model: no job has finished")
    return _told(sweep_dir / FOLDER, missing)


def grid_figures(trials: Sequence[Trial], metric: str, mode: str) -> Named:
    """Effect of each key, of the two most influential ones together, and quality against time."""
    done = [trial for trial in trials if math.isfinite(trial.quality)]
    if not done:
        raise TocsinError("no job has finished")
    settings, qualities = [trial.setting for trial in done], [trial.quality for trial in done]
    shares = influence(settings, qualities)
    if not shares:
        raise TocsinError("the jobs do not differ in any option")
    better = f"{metric} ({'lower' if mode == 'min' else 'higher'} is better)"
    yield "effects", marginal_effects(settings, qualities, better, shares)
    first, *others = shares
    if others:
        yield "heat_map", pair_heat_map(settings, qualities, (first, others[0]), metric, mode)
    seconds = [trial.seconds if trial.seconds is not None else math.nan for trial in done]
    if any(map(math.isfinite, seconds)):
        groups = [setting[first] for setting in settings]
        yield "time_quality", cost_and_quality(seconds, qualities, groups, first, better, mode)


def promotion_figures(study: Study) -> Named:
    """Ranking of the second stage, and how far the first one foretold it."""
    plan = study.plan
    pairs = [
        (trial, quick)
        for trial, quick in zip(study.full, partners(study.full, study.quick), strict=True)
        if quick is not None and math.isfinite(trial.quality)
    ]
    if not pairs:
        raise TocsinError("no job of the full stage has finished")
    jobs = [
        Promoted(
            name=" ".join(f"{key.rpartition('.')[2]}={value}" for key, value in trial.setting.items()),
            quick=quick.quality,
            full=trial.quality,
            overall=any(reason.startswith("overall") for reason in quick.reasons),
        )
        for trial, quick in pairs
    ]
    better = f"{plan.decides} ({'lower' if plan.mode == 'min' else 'higher'} is better)"
    yield "ranking", ranking_chart(jobs, better, plan.mode)
    quick, full = [job.quick for job in jobs], [job.full for job in jobs]
    found = agreement(quick, full)
    log.info(
        "quick against full: Kendall %.3f, Spearman %.3f over %d jobs", found.kendall, found.spearman, found.n
    )
    curve = best_so_far(quick, full, plan.mode)
    yield "quick_against_full", quick_against_full(jobs, plan.decides, (found.kendall, found.spearman), curve)


def data_figures(loaded: Loaded) -> Named:
    """The data in time, and its kinds of anomaly."""
    datamodule = loaded.datamodule
    if not isinstance(datamodule, SeriesDataModule):
        raise TocsinError(
            f"there is no picture for data of kind {datamodule.kind} apart from those of the best model"
        )
    splits = datamodule.ready
    yield (
        "splits",
        splits_overview((("train", splits.train), ("validation", splits.val), ("test", splits.test))),
    )
    if splits.test.events is not None and len(splits.test.events):
        yield "anomalies", data_overview(splits.test)


def architecture_figures(loaded: Loaded) -> Named:
    """The parts of the detector."""
    detector = loaded.task.cpu().detector
    batch = next(iter(loaded.datamodule.val_dataloader()))
    parts = parts_of(detector, batch)
    if not parts:
        raise TocsinError(f"{type(detector).__name__} has no layers")
    total = sum(parameter.numel() for parameter in detector.parameters())
    name = f"{type(detector).__name__}: {total:,} parameters, a batch of {len(batch[0])}"
    yield "layers", layer_table(parts, total, title=name)


def _draw_best(best: Trial, folder: Path) -> list[str]:
    """Data, architecture and pictures of the best model."""
    run = best.job.folder
    for old in (folder / "best_model").glob("*.png"):  # those of an earlier best
        old.unlink()
    try:
        loaded = load_run(run)
    except TocsinError as error:
        return [f"data, architecture: {error}", *_own_pictures(run, folder / "best_model")]
    missing = _draw(folder / "data", lambda: data_figures(loaded))
    missing += _draw(folder / "architecture", lambda: architecture_figures(loaded))
    return missing + _own_pictures(run, folder / "best_model", loaded)


def _own_pictures(run: Path, into: Path, loaded: Loaded | None = None) -> list[str]:
    """The pictures that a run drew itself, or new ones."""
    if copy_plots(run, into):
        return []
    try:
        return draw_run(run, into, loaded)
    except TocsinError as error:
        return [f"{into.name}: {error}"]


def _draw(folder: Path, figures: Callable[[], Named]) -> list[str]:
    """Save the figures of a part; what went wrong with it."""
    try:
        for name, figure in figures():
            save(figure, folder / f"{name}.png")
    except TocsinError as error:
        return [f"{folder.name}: {error}"]
    return []


def _told(folder: Path, missing: list[str]) -> list[str]:
    for line in missing:
        log.warning("not drawn: %s", line)
    log.info("pictures: %s", folder)
    return missing


def _monitored(run: Path) -> tuple[str, str]:
    """Name and mode of the value that a run monitors."""
    path = run / ".hydra" / "config.yaml"
    config = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else {}
    assert isinstance(config, dict)
    return str(config.get("monitor", "val_loss")), str(config.get("mode", "min"))
