"""Attacks with a patch: it is trained against frozen victims, then measured beside patches that learnt nothing.

What is measured, and why the controls are part of it, is in `patch_evaluation`.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor

from tocsin.batch import DetectionBatch
from tocsin.data.coco_person import CocoPerson
from tocsin.data.module import DataModule
from tocsin.models.base import PatchModel
from tocsin.models.yolo_victim import YoloVictim, load_victim
from tocsin.plots.patch_sheet import copies_that_fit
from tocsin.tasks.base import OptimizerFactory, SchedulerFactory, Task
from tocsin.tasks.patch_evaluation import evaluate_patch
from tocsin.tasks.patch_figures import patch_figures
from tocsin.tasks.patch_results import PatchResults

MAX_SNAPSHOTS = 12  # of the patch while it grows


class PatchAttack(Task):
    """Task of the patches: the only thing that learns is the patch.

    Args:
        detector: The patch, how it is placed, and the victims it is trained against.
        optimizer: Called with the patch.
        scheduler: Called with the optimizer; None for a constant rate.
        eval_victims: Further victims that the finished patch is tried on: files, names, or `standin`.
        sweeps: Whether the patch is also measured larger, smaller, turned, and in spoilt pictures.
        sheet_cm: Side of the patch on the sheet of A4 that is made for the printer, in centimetres.
        cache_dir: Where a stand-in among `eval_victims` is kept; None trains it anew.
        monitor: The logged value to follow.
        seed: Seed of training, and of the controls that are drawn.

    Raises:
        ConfigError: The sheet is not large enough for the patch.
    """

    accepts = "detection"

    def __init__(
        self,
        *,
        detector: PatchModel,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        eval_victims: Sequence[str] = (),
        sweeps: bool = True,
        sheet_cm: float = 18.0,
        cache_dir: str | Path | None = None,
        monitor: str = "val_loss",
        seed: int = 42,
    ) -> None:
        super().__init__(
            detector=detector, optimizer=optimizer, scheduler=scheduler, monitor=monitor, seed=seed
        )
        self.detector: PatchModel
        self.eval_victims = tuple(eval_victims)
        self.sweeps = sweeps
        copies_that_fit(sheet_cm)  # refuses a size that does not, now and not after the training
        self.sheet_cm = sheet_cm
        self.cache_dir = cache_dir
        self._victims: dict[str, YoloVictim] = {}  # no modules of the task: they have no place in its weights
        self.growth: list[tuple[int, float, Tensor]] = []  # epoch, validation loss, (3, P, P) uint8 patch

    # --- training -------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            self._further_victims()  # one that is not there is an error now, not after the training

    def _further_victims(self) -> dict[str, YoloVictim]:
        """Those of `eval_victims` by the names of their files; by all of their paths where files share a name."""
        stems = [Path(source).stem for source in self.eval_victims]
        names = stems if len(set(stems)) == len(stems) else self.eval_victims
        for name, source in zip(names, self.eval_victims, strict=True):
            if name not in self._victims:
                self._victims[name] = load_victim(source, cache_dir=self.cache_dir)
        return self._victims

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        patch = self.detector.patch.detach()
        loss = float(self.trainer.callback_metrics.get("val_loss", math.nan))
        self.growth.append((self.current_epoch + 1, loss, (patch * 255).round().byte().cpu()))
        self.growth = [row for row in self.growth if is_kept(row[0], self.current_epoch + 1)]
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("patch", patch, self.current_epoch + 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["growth"] = list(self.growth)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.growth = [(int(epoch), float(loss), patch) for epoch, loss, patch in checkpoint["growth"]]

    # --- metrics --------------------------------------------------------------------------------------

    @torch.no_grad()
    def assess(self, trainer: L.Trainer, datamodule: DataModule) -> PatchResults:
        """Measure the patch on the test images, with its controls beside it.

        Args:
            trainer: Knows the device.
            datamodule: Set up.
        """
        assert isinstance(datamodule, CocoPerson)
        self.eval().to(trainer.strategy.root_device)
        batches = _OnDevice(datamodule.test_dataloader(), trainer.strategy.batch_to_device)
        victims = {name: victim.to(self.device).detect for name, victim in self._further_victims().items()}
        begin = time.monotonic()
        evaluation = evaluate_patch(
            self.detector, batches, seed=self.seed, victims=victims, sweeps=self.sweeps
        )
        seconds = time.monotonic() - begin
        self.cpu()
        return PatchResults.of(
            evaluation,
            patch=self.detector.patch.detach().cpu().numpy(),
            growth=[(epoch, loss, patch.numpy()) for epoch, loss, patch in self.growth],
            sheet_cm=self.sheet_cm,
            items_per_s=evaluation.n_views / seconds,
        )

    def figures(self, results: PatchResults) -> Iterable[tuple[str, Figure]]:
        return patch_figures(results)


@dataclass(frozen=True)
class _OnDevice:
    """Batches of a loader, moved one at a time: the test images need not fit into the memory of a device."""

    loader: Iterable[DetectionBatch]
    move: Callable[[DetectionBatch], DetectionBatch]

    def __iter__(self) -> Iterator[DetectionBatch]:
        return map(self.move, self.loader)


def is_kept(epoch: int, now: int) -> bool:
    """Whether the patch of an epoch is kept: the first, the current one, and others evenly between them."""
    stride = 1
    while (now - 1) // stride + 2 > MAX_SNAPSHOTS:
        stride *= 2
    return epoch == now or (epoch - 1) % stride == 0
