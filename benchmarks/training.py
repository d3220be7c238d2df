"""An epoch through Trainer and task against the same loop by hand: `python benchmarks/training.py`."""

import sys
import tempfile
from time import perf_counter

import lightning.pytorch as L
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from tocsin import pipeline
from tocsin.config import TrainSchema, conf_dir
from tocsin.data.base import SeriesDataModule
from tocsin.tasks.base import Task

TARGET = 1.10
ROUNDS = 5
OVERRIDES = (
    "model=mae",
    "++model.schedule=joint",  # one stage: the two of the default cannot share an epoch
    "data=sliding",
    "data.total_length=60000",
    "cache_dir=null",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "++trainer.limit_val_batches=0",
    "++trainer.enable_checkpointing=false",
    "~callbacks",  # the loop by hand writes no checkpoints either
    "~logger",
    "scheduler=constant",  # `plateau` looks at validation
)


def build(cfg: DictConfig) -> tuple[Task, SeriesDataModule]:
    """The same weights and data each time."""
    L.seed_everything(cfg.seed, verbose=False)
    datamodule = pipeline.build_datamodule(cfg)
    return pipeline.build_task(cfg, datamodule.dims()), datamodule


def ours(cfg: DictConfig) -> tuple[float, Task]:
    """Seconds of `Trainer.fit`, its preparations included, and the trained task."""
    task, datamodule = build(cfg)
    trainer = pipeline.build_trainer(cfg)
    begin = perf_counter()
    pipeline.fit(trainer, task, datamodule, resume=None)
    return perf_counter() - begin, task


def by_hand(cfg: DictConfig) -> tuple[float, Task]:
    """Seconds of a bare PyTorch loop, and the trained task."""
    task, datamodule = build(cfg)
    begin = perf_counter()
    detector = task.detector.train()
    optimizer = task.configure_optimizers()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    batches = iter(datamodule.train_dataloader())  # draws a random number, so it comes before the seed
    torch.manual_seed(cfg.seed)
    for batch in batches:
        loss = detector.loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, cfg.trainer.gradient_clip_val)
        optimizer.step()
    return perf_counter() - begin, task


def bench(cfg: DictConfig) -> bool:
    ours_s, hand_s = [], []
    for _ in range(ROUNDS):  # by turns, so that a busy machine slows both
        seconds, trained = ours(cfg)
        ours_s.append(seconds)
        seconds, other = by_hand(cfg)
        hand_s.append(seconds)
    difference = max(
        float((mine - its).detach().abs().max())
        for mine, its in zip(trained.detector.parameters(), other.detector.parameters(), strict=True)
    )
    ratio = min(ours_s) / min(hand_s)
    print(
        f"{'one epoch of mae through the Trainer: by hand':<58} {min(ours_s):>11.5f} s {min(hand_s):>11.3f} s "
        f"{ratio:>8.3f}   largest difference of a weight {difference:g}",
        flush=True,
    )
    return difference <= 1e-6 and ratio <= TARGET


if __name__ == "__main__":
    torch.set_num_threads(1)
    ConfigStore.instance().store("train_schema", TrainSchema)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"), tempfile.TemporaryDirectory() as folder:
        config = compose("train", [*OVERRIDES, f"trainer.default_root_dir={folder}"])
        passed = bench(config)
    sys.exit(0 if passed else f"missed: at most {TARGET} times as long, with the same weights")
