"""What every task shares: losses, stages, optimizer and scheduler, and a stop on non-finite numbers."""

import contextlib
import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import lightning.pytorch as L
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tocsin.data.module import DataModule
from tocsin.data.sharing import SharedBatches, whole_batches
from tocsin.errors import ConfigError, TocsinError
from tocsin.models.base import Detector, FitOnceDetector
from tocsin.models.batch_share import ALONE, BatchShare, CommonNumbers
from tocsin.models.whole_batch import WholeBatch
from tocsin.results import Results

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
SchedulerFactory = Callable[..., LRScheduler]


@runtime_checkable
class StageAware(Protocol):
    """A callback that starts afresh with each stage."""

    def on_stage_start(self) -> None:
        """Forget what belongs to the stage before."""


class Task(L.LightningModule):
    """Wraps a detector for the Trainer.

    A detector with several stages is trained in several parts. A part ends when its share of `max_epochs`
    is used or when early stopping fires; then the best weights of the part are loaded, the detector prepares
    the next one (`begin_stage`), and optimizer, scheduler and early stopping start afresh.

    Args:
        detector: The network and its loss.
        optimizer: Called with the groups of trainable parameters.
        scheduler: Called with the optimizer; None for a constant rate. One that asks for `epochs` gets those of the
            stage, one that asks for `steps` the optimizer steps of the stage, and is stepped with each of them.
        monitor: The logged value that scheduler, early stopping and checkpoints follow.
        seed: Seed of the random numbers of training; each epoch has its own, so that a resumed run draws
            the same ones.
    """

    accepts: ClassVar[str]

    def __init__(
        self,
        *,
        detector: Detector,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        monitor: str = "val_loss",
        seed: int = 42,
    ) -> None:
        super().__init__()
        self.detector = detector
        self._optimizer_factory = optimizer
        self._scheduler_factory = scheduler
        self._scheduler: LRScheduler | None = None
        self._scheduler_counts_steps = False  # else epochs
        self._scheduler_state: dict[str, Any] | None = None
        self.monitor = monitor
        self.seed = seed
        self.stage_index = 0
        self.stage_epoch = 0  # epochs completed in the current stage
        self._stage_over = False
        self._common = CommonNumbers(seed)
        self._enter_stage()

    # --- stages -------------------------------------------------------------------------------------

    @property
    def stage(self) -> str:
        """Name of the current stage."""
        return self.detector.stages[self.stage_index].name

    @property
    def in_last_stage(self) -> bool:
        """Whether no stage follows the current one."""
        return self.stage_index == len(self.detector.stages) - 1

    @property
    def stage_epochs(self) -> int:
        """Most epochs the current stage may take; each gets one at least."""
        total, n_stages = self.trainer.max_epochs or 1, len(self.detector.stages)
        ends = [0]
        for index in range(self.stage_index + 1):
            end = round(total * sum(stage.share for stage in self.detector.stages[: index + 1]))
            ends.append(max(ends[-1] + 1, min(end, total - (n_stages - 1 - index))))
        return ends[-1] - ends[-2]

    @property
    def stage_steps(self) -> int:
        """Most optimizer steps the current stage may take; the rest of an accumulation ends with its epoch."""
        if self.trainer.train_dataloader is None:
            self.trainer.fit_loop.setup_data()  # as the Trainer's own estimate does: the optimizer is built before it
        per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        return self.stage_epochs * per_epoch

    def _enter_stage(self) -> None:
        """Freeze everything but what the stage optimises. Also how a resumed run comes back to its stage."""
        self.detector.stage = self.stage
        self.detector.requires_grad_(False)
        for parameter in self.detector.trainable(self.stage):
            parameter.requires_grad_(True)
        self.detector.train(self.detector.training)  # a detector may keep its frozen parts in evaluation mode

    def _next_stage(self) -> None:
        best = self.best_path(Path(self.trainer.default_root_dir))
        if best.exists():
            state = torch.load(best, map_location=self.device, weights_only=True)["state_dict"]
            self.load_state_dict(state)
        self.stage_index += 1
        self.stage_epoch = 0
        self._stage_over = False
        self._enter_stage()
        if self.trainer.world_size > 1:  # what it draws must not differ between processes
            torch.manual_seed(self.seed + self.current_epoch)
        self.detector.begin_stage(self.stage, self._train_batches())
        self.trainer.strategy.setup_optimizers(self.trainer)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, StageAware):
                callback.on_stage_start()

    def _train_batches(self) -> Any:
        """All training batches, on this device; every process sees all of them."""
        loader = self.trainer.train_dataloader
        for batch in [] if loader is None else whole_batches(loader):
            yield self.trainer.strategy.batch_to_device(batch)

    def best_path(self, run_dir: Path) -> Path:
        """Where the best weights of the current stage are kept: `best.ckpt` for the last stage."""
        name = "best" if self.in_last_stage else f"best_{self.stage}"
        return run_dir / "checkpoints" / f"{name}.ckpt"

    @abstractmethod
    def assess(self, trainer: L.Trainer, datamodule: DataModule) -> Results:
        """Calibrate on the validation split and measure the test split."""

    @abstractmethod
    def figures(self, results: Any) -> Iterable[tuple[str, Figure]]:
        """Pictures of results, by name."""

    def finalize(self, datamodule: DataModule) -> None:
        """Let the trained detector fit what it needs before its scores are used, on the device it was trained on."""
        self.eval()
        strategy = self.trainer.strategy
        self.to(strategy.root_device)
        self.detector.finalize(strategy.batch_to_device(batch) for batch in datamodule.val_dataloader())
        self.cpu()

    # --- training -----------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        epochs, stages = self.trainer.max_epochs, self.detector.stages
        if stage == "fit" and epochs is not None and 0 <= epochs < len(stages):
            names = ", ".join(part.name for part in stages)
            raise ConfigError(
                f"trainer.max_epochs={epochs}, but this model trains in {len(stages)} stages: {names}"
            )

    def configure_optimizers(self) -> Optimizer | None:
        """Build optimizer and scheduler for the parameters of the current stage."""
        groups = [group for group in self.detector.parameter_groups() if group["params"]]
        if not groups:
            return None
        optimizer = self._optimizer_factory(groups)
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("lr_scale", 1.0)
        if self._scheduler_factory is not None:
            wanted = inspect.signature(self._scheduler_factory).parameters
            self._scheduler_counts_steps = "steps" in wanted
            extra = {"epochs": self.stage_epochs} if "epochs" in wanted else {}
            if self._scheduler_counts_steps:
                extra["steps"] = self.stage_steps
            self._scheduler = self._scheduler_factory(optimizer, **extra)
            if self._scheduler_state is not None:
                self._scheduler.load_state_dict(self._scheduler_state)
                self._scheduler_state = None
        return optimizer

    def on_train_start(self) -> None:
        self.detector.prepare(self._train_batches())
        if self.stage_epoch == 0:  # a resumed run is in the middle of its stage
            self.detector.begin_stage(self.stage, self._train_batches())

    def on_train_epoch_start(self) -> None:
        if self._stage_over:
            self._next_stage()
        self.detector.epoch, self.detector.epochs = self.stage_epoch, self.stage_epochs
        self.detector.total_steps = self.stage_steps

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # At the first batch, not at the start of the epoch: making the loader's iterator draws a number too, and
        # a resumed run makes its first one earlier than others do.
        if batch_idx == 0:
            torch.manual_seed(self.seed + self.current_epoch * self.trainer.world_size + self.global_rank)
            self._common = CommonNumbers(self.seed + self.current_epoch)
        self._share(self.trainer.train_dataloader, batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        if isinstance(self.detector, FitOnceDetector):
            self.detector.collect(batch)
            if self.trainer.is_last_batch:  # before validation, which already needs the fitted detector
                self.detector.finish()
            # Lightning knows no steps without a loss where there are several processes.
            return None if self.detector.share.alone else torch.zeros((), requires_grad=True)
        share = self.detector.share
        with contextlib.nullcontext() if share.alone else WholeBatch(share):
            terms = self.detector.loss(batch)
        self._log_terms("train", terms, batch, batch_idx)
        return terms["loss"] if share.alone else terms["loss"] * share.weight

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.detector.after_step()
        if self._scheduler is not None and self._scheduler_counts_steps:
            self._scheduler.step()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._log_terms("val", self.detector.loss(batch), batch, batch_idx)

    def _log_terms(self, split: str, terms: dict[str, Tensor], batch: Any, batch_idx: int) -> None:
        """Log the terms of the whole batch, the same in all processes, so that all of them decide alike."""
        share = self.detector.share
        found = {name: value.detach() for name, value in terms.items()}
        if not share.alone:
            means = share.average(torch.stack([value.float() for value in found.values()]))
            found = dict(zip(found, means, strict=True))
        if split == "train":
            self._stop_if_not_finite(found, batch_idx)
        self.log_dict(
            {f"{split}_{name}": value for name, value in found.items()},
            on_step=False,
            on_epoch=True,
            batch_size=share.total(len(batch[0])),
            add_dataloader_idx=False,
        )

    def _stop_if_not_finite(self, terms: dict[str, Tensor], batch_idx: int) -> None:
        # Looking at a value makes the host wait for the device, so on an accelerator not every step does.
        if self.device.type != "cpu" and batch_idx % 50:
            return
        bad = [name for name, value in terms.items() if not torch.isfinite(value).all()]
        if bad:
            raise TocsinError(
                f"the loss is not finite: {', '.join(bad)} at epoch {self.current_epoch + 1}, batch {batch_idx} "
                f"(stage {self.stage}); lower optimizer.lr, set trainer.gradient_clip_val, or look at the data"
            )

    def on_train_epoch_end(self) -> None:
        if self.learning_rate is not None:
            self.log("lr", self.learning_rate)
        self._step_scheduler()
        self.stage_epoch += 1
        if isinstance(self.detector, FitOnceDetector):
            self.trainer.should_stop = True
        if not self.in_last_stage:
            self._stage_over = self.trainer.should_stop or self.stage_epoch >= self.stage_epochs
            if self._stage_over:
                self.trainer.should_stop = False  # early stopping ends the stage, not the run

    @property
    def learning_rate(self) -> float | None:
        """Rate of the first parameter group; None where nothing is optimised."""
        groups = [group for optimizer in self.trainer.optimizers for group in optimizer.param_groups]
        return float(groups[0]["lr"]) if groups else None

    def _step_scheduler(self) -> None:
        if self._scheduler is None or self._scheduler_counts_steps:
            return
        if isinstance(self._scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self._scheduler.step(float(self.trainer.callback_metrics[self.monitor]))
        else:
            self._scheduler.step()

    # --- several processes --------------------------------------------------------------------------

    def _share(self, loaders: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Tell the detector what this process has of the batch that comes next."""
        loader = loaders[dataloader_idx] if isinstance(loaders, list) else loaders
        batches = getattr(loader, "batch_sampler", None)
        if isinstance(batches, SharedBatches):
            self.detector.share = BatchShare(batches.sizes(batch_idx), batches.rank, self._common)

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._share(self.trainer.val_dataloaders, batch_idx, dataloader_idx)

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._share(self.trainer.predict_dataloaders, batch_idx, dataloader_idx)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.detector.share = ALONE

    def on_validation_batch_end(
        self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.detector.share = ALONE

    def on_predict_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.detector.share = ALONE

    def everywhere(self, rows: Tensor) -> np.ndarray:
        """Rows (N, ...) of a whole batch, of which this process has (R, ...), for every process."""
        return self.detector.share.whole(rows).cpu().numpy()

    # --- checkpoints --------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["stage"] = {
            "index": self.stage_index,
            "epoch": self.stage_epoch,
            "over": self._stage_over,
            "scheduler": None if self._scheduler is None else self._scheduler.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        stage = checkpoint["stage"]
        self.stage_index, self.stage_epoch = stage["index"], stage["epoch"]
        self._stage_over = stage["over"]
        self._scheduler_state = stage["scheduler"]
        self._enter_stage()
