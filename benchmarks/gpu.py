"""Each detector in 32-bit and in bf16-mixed precision: speed, memory, and whether the result stays the same.

`python benchmarks/gpu.py [--models mae carla] [--batch-size 1024] [--length 440000] [--epochs 4]`

Needs a CUDA GPU. `--accelerator cpu` runs the same on the processor, for rows of GPU against CPU.
The difference of a metric counts beside its spread over seeds, so every precision runs with `--seeds` of them.
"""

import argparse
import logging
import statistics
import sys
import tempfile
from pathlib import Path

import lightning.pytorch as L
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from tocsin import cli, pipeline
from tocsin.config import TrainSchema, conf_dir

MODELS = ("mae", "carla", "tracegpt", "patchad", "patchtrad", "prodiffad")
PRECISIONS = ("32-true", "bf16-mixed")


def measured(cfg: DictConfig) -> tuple[float, float, float, float]:
    """Training items per second, test items per second, peak memory in MiB and VUS-PR of one run."""
    L.seed_everything(cfg.seed, verbose=False)
    datamodule = pipeline.build_datamodule(cfg)
    task = pipeline.build_task(cfg, datamodule.dims())
    trainer = pipeline.build_trainer(cfg)
    on_gpu = trainer.strategy.root_device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    timing = pipeline.fit(trainer, task, datamodule, resume=None)
    memory = pipeline.peak_memory_mb(trainer.strategy.root_device)
    best = torch.load(task.best_path(Path(trainer.default_root_dir)), weights_only=True)
    task.load_state_dict(best["state_dict"])
    results = task.assess(trainer, datamodule)
    return timing.train_items_per_s, results.items_per_s, memory, float(results.test["vus_pr"])


def configuration(arguments: argparse.Namespace, model: str, precision: str, seed: int) -> DictConfig:
    """Everything as in `train.py`, without plots and logs."""
    return compose(
        "train",
        [
            f"model={model}",
            "data=sliding",
            f"data.total_length={arguments.length}",
            f"data.batch_size={arguments.batch_size}",
            f"trainer.max_epochs={arguments.epochs}",
            f"trainer.accelerator={arguments.accelerator}",
            "trainer.devices=1",
            f"trainer.precision={precision}",
            "callbacks=numbers",
            "logger=none",
            f"seed={seed}",
        ],
    )


def bench(arguments: argparse.Namespace) -> None:
    print(f"batch {arguments.batch_size}, {arguments.length} steps, {arguments.epochs} epochs")
    print(f"{'model':<10} {'precision':<10} {'train/s':>9} {'test/s':>9} {'peak MiB':>9} {'VUS-PR':>15}")
    for model in arguments.models:
        fastest: dict[str, float] = {}
        for precision in PRECISIONS:
            runs = []
            for seed in range(1, arguments.seeds + 1):
                with tempfile.TemporaryDirectory() as folder:
                    cfg = configuration(arguments, model, precision, seed)
                    cfg.trainer.default_root_dir = folder
                    runs.append(measured(cfg))
            train, test, memory, vus = zip(*runs, strict=True)
            spread = statistics.stdev(vus) if len(vus) > 1 else float("nan")
            fastest[precision] = max(train)
            print(
                f"{model:<10} {precision:<10} {max(train):>9.0f} {max(test):>9.0f} {max(memory):>9.0f} "
                f"{statistics.fmean(vus):>7.4f} ± {spread:.4f}",
                flush=True,
            )
        print(f"{model:<10} {'ratio':<10} {fastest['bf16-mixed'] / fastest['32-true']:>9.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python benchmarks/gpu.py", description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--length", type=int, default=440_000, help="steps of data=sliding")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--accelerator", default="gpu", choices=("gpu", "cpu"))
    given = parser.parse_args()
    if given.accelerator == "gpu" and not torch.cuda.is_available():
        sys.exit("no CUDA GPU here: use --accelerator cpu, or run this on a machine with one")
    logging.disable(logging.INFO)
    ConfigStore.instance().store("train_schema", TrainSchema)
    cli._register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        bench(given)
