"""From a configuration to results: the only place where configurations become objects.

cfg -> check -> datamodule -> task -> trainer -> fit -> best weights -> calibrate and test -> files
"""

import contextlib
import inspect
import logging
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning
import lightning.pytorch as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from tocsin import __version__
from tocsin.callbacks.embed_run import EmbedRun
from tocsin.callbacks.progress import EpochLine
from tocsin.callbacks.report import Report
from tocsin.checkpoints import find_last, read_checkpoint, write_checkpoint
from tocsin.config import check, check_packages, locate
from tocsin.data.module import DataModule
from tocsin.devices import resolve_devices, resolve_precision
from tocsin.distributed import in_step, resolve_strategy
from tocsin.errors import ConfigError, TocsinError
from tocsin.members import embed_members, load_members
from tocsin.models.base import Detector, FitOnceDetector
from tocsin.results import Results, Timing, timing_section, write_files, write_metrics, write_scores
from tocsin.tasks.base import Task

log = logging.getLogger(__name__)

# What Lightning says about itself, and about choices made here on purpose.
for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)
for message in (
    ".*does not have many workers.*",  # a batch is one gather; worker processes only cost
    ".*configure_optimizers` returned `None`.*",  # methods without gradient steps
    ".*training_step` returned `None`.*",
    ".*no gradient clipping will occur.*",
    ".*smaller than the logging interval.*",  # values are logged per epoch
    ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6 on a newer torch
    ".*dataloader.*shuffl.*",
    ".*sync_dist=True.*",  # what is logged is that of the whole batch already
    ".*in eval mode at the start of training.*",  # frozen networks
):
    warnings.filterwarnings("ignore", message=message)


def train(cfg: DictConfig) -> float:
    """Train, calibrate and test as configured.

    Returns:
        The best value of `cfg.monitor`, for sweepers.
    """
    started = datetime.now()
    members = embed_members(cfg)
    check(cfg)
    check_packages(cfg)
    if cfg.ckpt_path not in (None, "last"):
        read_checkpoint(cfg.ckpt_path)  # a file that is none fails here, before any data are made
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = build_datamodule(cfg)
    dims = datamodule.dims()
    task = build_task(cfg, dims)
    load_members(task.detector, members, dims, datamodule.scoring_state())
    embed = EmbedRun(
        config=plain(cfg),
        choices=chosen_names(),
        dims=dims,
        data=datamodule.scoring_state(),
        monitor=cfg.monitor,
    )
    trainer = build_trainer(cfg, embed)
    run_dir = Path(trainer.default_root_dir)
    resume = find_last(run_dir) if cfg.ckpt_path == "last" else cfg.ckpt_path
    with in_step(trainer):
        timing = fit(trainer, task, datamodule, resume)
        best = task.best_path(run_dir)
        checkpoint = read_checkpoint(best)
        task.load_state_dict(checkpoint["state_dict"])
        monitored = float(checkpoint["monitored"])
        begin = time.monotonic()
        task.finalize(datamodule)
        results = task.assess(trainer, datamodule)
        timing = replace(timing, assess_s=time.monotonic() - begin)
        if trainer.is_global_zero:
            # The thresholds are part of the weights: with them the checkpoint alone can raise alarms.
            write_checkpoint({**checkpoint, "state_dict": task.state_dict()}, best)
            run = run_section(cfg, trainer, embed.choices, started)
            save(run_dir, run, cfg, trainer, task, datamodule, results, timing)
    log.info("run folder: %s", run_dir)
    log.info("%s: %.6g", cfg.monitor, monitored)
    return monitored


def evaluate(cfg: DictConfig) -> None:
    """Calibrate and test a trained run again, on its own or on other data."""
    started = datetime.now()
    check(cfg)
    check_packages(cfg)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    checkpoint = read_checkpoint(cfg.ckpt_path)
    datamodule = build_datamodule(cfg, state=checkpoint["data"])
    task = build_task(cfg, checkpoint["dims"], checkpoint=checkpoint)
    trainer = build_trainer(cfg)
    run_dir = Path(trainer.default_root_dir)
    with in_step(trainer):
        results = task.assess(trainer, datamodule)
        if trainer.is_global_zero:
            run = run_section(cfg, trainer, {**checkpoint["choices"], **chosen_names()}, started)
            save(run_dir, run, cfg, trainer, task, datamodule, results, Timing())
    log.info("results: %s", run_dir)


# --- building ---------------------------------------------------------------------------------------------


def build(node: DictConfig, **arguments: Any) -> Any:
    """Make the object that a node of the configuration describes.

    Raises:
        ConfigError: Its constructor refuses an option.
    """
    try:
        return instantiate(node, **arguments, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError | TypeError):
            raise ConfigError(str(error.__cause__)) from error
        raise


def build_datamodule(cfg: DictConfig, state: Mapping[str, Any] | None = None) -> DataModule:
    """Datamodule of a configuration, set up; with `state`, scaled as the training data were."""
    datamodule: DataModule = build(cfg.data)
    if state is not None:
        datamodule.restore(state)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def build_detector(node: DictConfig, dims: Mapping[str, int]) -> Detector:
    """Detector of a configuration; what only the data can tell is filled in where its constructor names it."""
    known = inspect.signature(locate(node._target_)).parameters
    if given := sorted(set(dims) & set(map(str, node))):
        raise ConfigError(f"model.{given[0]} comes from the data and cannot be set; see the options of data")
    detector: Detector = build(node, **{name: size for name, size in dims.items() if name in known})
    return detector


def build_task(cfg: DictConfig, dims: Mapping[str, int], checkpoint: dict[str, Any] | None = None) -> Task:
    """Task of a configuration around its detector; with `checkpoint`, with its weights and in its stage."""
    node = cfg.model
    from_hub = ("image", "classification")
    if checkpoint is not None and locate(node._target_).kind in from_hub and "weights" in node:  # type: ignore[attr-defined]
        node = OmegaConf.merge(node, {"weights": None})  # they are in the checkpoint: none are fetched
    detector = build_detector(node, dims)
    takes_threshold = "threshold" in inspect.signature(locate(cfg.task._target_)).parameters
    task: Task = build(
        cfg.task,
        detector=detector,
        optimizer=build(cfg.optimizer, _partial_=True),
        scheduler=build(cfg.scheduler, _partial_=True) if cfg.scheduler else None,
        monitor=cfg.monitor,
        seed=cfg.seed,
        **({"threshold": build(cfg.threshold)} if takes_threshold else {}),
    )
    if checkpoint is not None:
        task.on_load_checkpoint(checkpoint)
        task.load_state_dict(checkpoint["state_dict"])
    return task


def build_trainer(cfg: DictConfig, *extra: L.Callback) -> L.Trainer:
    """Trainer of a configuration, with its callbacks and loggers."""
    callbacks = [build(node) for node in (cfg.callbacks or {}).values() if node]
    loggers = [build(node) for node in (cfg.logger or {}).values() if node]
    on_terminal = sys.stdout.isatty()
    if not on_terminal:
        callbacks.append(EpochLine())
    devices = resolve_devices(plain(cfg.trainer).get("devices", "auto"), cfg.trainer.accelerator)
    kind = locate(cfg.model._target_).kind  # type: ignore[attr-defined]
    trainer: L.Trainer = build(
        cfg.trainer,
        devices=devices,
        strategy=resolve_strategy(
            cfg.trainer.get("strategy", "auto"),
            devices,
            n_nodes=cfg.trainer.get("num_nodes", 1),
            kind=kind,
            ckpt_path=cfg.ckpt_path,
        ),
        use_distributed_sampler=False,  # batches are shared out as they are
        precision=resolve_precision(cfg.trainer.precision, cfg.trainer.accelerator),
        callbacks=[*callbacks, *extra],
        logger=loggers or False,
        enable_progress_bar=on_terminal,
    )
    return trainer


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain data, interpolations left as they are."""
    container = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


# --- running ----------------------------------------------------------------------------------------------


def fit(trainer: L.Trainer, task: Task, datamodule: DataModule, resume: str | Path | None) -> Timing:
    """Train, from the start or from a checkpoint."""
    if isinstance(task.detector, FitOnceDetector):
        datamodule.single_pass()
    begin = time.monotonic()
    try:
        trainer.fit(task, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    except torch.cuda.OutOfMemoryError as error:
        raise TocsinError(
            f"out of GPU memory ({str(error).splitlines()[0]}); lower data.batch_size or the size of an item, or use "
            "trainer.precision=bf16-mixed"
        ) from error
    if trainer.interrupted:
        raise KeyboardInterrupt
    seconds = time.monotonic() - begin
    items = trainer.global_step * datamodule.batch_size
    return Timing(fit_s=seconds, epochs=trainer.current_epoch, train_items_per_s=items / seconds)


def save(
    run_dir: Path,
    run: Mapping[str, Any],
    cfg: DictConfig,
    trainer: L.Trainer,
    task: Task,
    datamodule: DataModule,
    results: Results,
    timing: Timing,
) -> None:
    """Write metrics.json, scores.npz, files of the task, splits.csv where splits are lists of files, and plots."""
    sections = {
        "run": run,
        "data": datamodule.summary(),
        **results.sections(),
        "timing": timing_section(timing, results),
        "resources": {
            "parameters": sum(parameter.numel() for parameter in task.detector.parameters()),
            "peak_memory_mb": peak_memory_mb(task.device),
        },
    }
    write_metrics(run_dir / "metrics.json", sections)
    write_scores(run_dir / "scores.npz", results.arrays())
    write_files(run_dir, results.files())
    if (manifest := datamodule.manifest()) is not None:
        manifest.to_csv(run_dir / "splits.csv", index=False)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Report):
            callback.report(run_dir=run_dir, results=results, task=task, trainer=trainer, config=plain(cfg))
    for name in results.headline:
        if name in results.test:
            log.info("test %s: %.4f", name, results.test[name])


def chosen_names() -> dict[str, str]:
    """Names of the model and data options of this command; empty where none was chosen."""
    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return {group: chosen[group] for group in ("model", "data") if chosen.get(group)}


def run_section(
    cfg: DictConfig, trainer: L.Trainer, choices: Mapping[str, str], started: datetime
) -> dict[str, Any]:
    """The `run` section of metrics.json."""
    return {
        "model": choices.get("model"),
        "data": choices.get("data"),
        "seed": cfg.seed,
        "tags": list(cfg.tags),
        "overrides": [override.lstrip("+") for override in HydraConfig.get().overrides.task]
        if HydraConfig.initialized()
        else [],
        "git": _git_revision(),
        "versions": {
            "python": platform.python_version(),
            "tocsin": __version__,
            "torch": torch.__version__,
            "lightning": lightning.__version__,
        },
        "pretrained": is_pretrained(plain(cfg.model)),
        "device": _device_name(trainer),
        "precision": str(trainer.precision),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now().isoformat(timespec="seconds"),
    }


def is_pretrained(model: Mapping[str, Any]) -> bool:
    """Whether what a model takes as trained is so; a victim by its description alone (.yaml) has random weights."""
    victims = model.get("victim") or []
    sources = [victims] if isinstance(victims, str) else victims
    return model.get("weights") != "random" and not any(source.endswith(".yaml") for source in sources)


def _git_revision() -> str | None:
    """Commit of the checkout that the code runs from, with a mark if it has changes."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return None


def _device_name(trainer: L.Trainer) -> str:
    device = trainer.strategy.root_device
    return (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or device.type
    )


def peak_memory_mb(device: torch.device) -> float:
    """Most memory in use so far: of the GPU on a GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
