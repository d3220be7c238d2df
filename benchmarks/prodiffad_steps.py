"""Quality and speed of ProDiffAD at each number of steps, distilled students beside the undistilled teacher.

`python benchmarks/prodiffad_steps.py <run folder>/checkpoints/best.ckpt [name=value ...]`

Scorer and thresholds are fitted on validation anew for each row. Where the teacher by plain DDIM is as good at the
same number of steps, distillation has gained nothing on these data.
"""

import logging
import statistics
import sys
import tempfile
from time import perf_counter
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from tocsin import pipeline
from tocsin.checkpoints import read_checkpoint
from tocsin.data.base import SeriesDataModule
from tocsin.models.prodiffad import ProDiffAD, Weights
from tocsin.tasks.base import Task

BATCH = 256  # windows per call where many are scored at once
ROUNDS = 7


def config_of(checkpoint: dict[str, Any], changes: list[str], folder: str) -> DictConfig:
    """The run's configuration on this machine's CPU, without plots and logs."""
    own = {**checkpoint["config"], "callbacks": {}, "logger": {}}
    place = [f"trainer.default_root_dir={folder}", "trainer.accelerator=cpu", "trainer.devices=1"]
    cfg = OmegaConf.merge(OmegaConf.create(own), OmegaConf.from_dotlist([*changes, *place]))
    assert isinstance(cfg, DictConfig)
    return cfg


def milliseconds(detector: ProDiffAD, x: torch.Tensor) -> float:
    """Median time to score windows x (B, T, C)."""
    taken = []
    with torch.inference_mode():
        for _ in range(ROUNDS):
            begin = perf_counter()
            detector.deviations(x)
            taken.append(perf_counter() - begin)
    return 1000 * statistics.median(taken)


def bench(cfg: DictConfig, task: Task, datamodule: SeriesDataModule) -> None:
    detector = task.detector
    assert isinstance(detector, ProDiffAD)
    trainer = pipeline.build_trainer(cfg)
    window, n_channels = detector.noise.shape[1:]
    x = torch.randn(BATCH, window, n_channels)
    print(f"{'weights':<8} {'steps':>5} {'vus_pr':>8} {'series_f1':>9} {'ms/window':>9} {f'ms/{BATCH}':>9}")
    for steps in detector.step_counts:
        kinds: tuple[Weights, ...] = ("teacher", "student")
        for weights in kinds[: 1 + (steps != detector.step_counts[0])]:  # the first student is the teacher
            detector.use(steps=steps, weights=weights)
            found = task.assess(trainer, datamodule).test
            detector.cpu().eval()
            print(
                f"{weights:<8} {steps:>5} {found['vus_pr']:>8.4f} {found['series_f1']:>9.4f} "
                f"{milliseconds(detector, x[:1]):>9.2f} {milliseconds(detector, x):>9.1f}",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give the checkpoint of a run: <run folder>/checkpoints/best.ckpt")
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    read = read_checkpoint(sys.argv[1])
    with tempfile.TemporaryDirectory() as run_folder:
        config = config_of(read, sys.argv[2:], run_folder)
        data = pipeline.build_datamodule(config, state=read["data"])
        bench(config, pipeline.build_task(config, read["dims"], checkpoint=read), data)
