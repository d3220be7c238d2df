"""Stages: what is frozen, where the next one starts, how epochs are shared, and what stops a run."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from tocsin.batch import SeriesBatch
from tocsin.callbacks.checkpoint import BestAndLast
from tocsin.callbacks.early_stopping import EarlyStopping
from tocsin.errors import ConfigError, TocsinError
from tocsin.models.base import SeriesDetector, Stage
from tocsin.schedulers import WarmupCosine, WarmupCosineSteps
from tocsin.tasks.base import Task


class TwoParts(SeriesDetector):
    """First `a` learns, then `b`; the loss of each is its distance from 3."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.stages = (Stage("first", 0.75), Stage("second", 0.25))
        self.a, self.b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.broken = broken
        self.prepared: list[int] = []
        self.begun: list[tuple[str, int]] = []
        self.a_seen: list[float] = []

    def trainable(self, stage: str) -> Iterable[nn.Parameter]:
        return [self.a if stage == "first" else self.b]

    def prepare(self, train_batches: Iterable[SeriesBatch]) -> None:
        self.prepared.append(sum(len(batch.x) for batch in train_batches))

    def begin_stage(self, stage: str, train_batches: Iterable[SeriesBatch]) -> None:
        self.begun.append((stage, sum(len(batch.x) for batch in train_batches)))

    def loss(self, batch: SeriesBatch) -> dict[str, Tensor]:
        part = self.a if self.stage == "first" else self.b
        if self.training:
            self.a_seen.append(float(self.a))
        loss = (part - 3).square().sum()
        return {"loss": loss * torch.nan if self.broken else loss, "fine": loss.detach()}


class OnlyTraining(Task):
    accepts = "series"

    def assess(self, trainer: L.Trainer, datamodule: object) -> None:  # type: ignore[override]
        raise NotImplementedError


class Batches(torch.utils.data.Dataset[SeriesBatch]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> SeriesBatch:
        if index >= 3:
            raise IndexError
        return SeriesBatch(torch.zeros(4, 5, 1), torch.zeros(4, dtype=torch.int64))


def run(
    detector: SeriesDetector,
    folder: Path,
    max_epochs: int,
    *extra: L.Callback,
    patience: int = 100,
    scheduler: Callable[..., LRScheduler] | None = None,
    accumulate: int = 1,
    resume: Path | None = None,
) -> OnlyTraining:
    task = OnlyTraining(detector=detector, optimizer=partial(torch.optim.SGD, lr=0.1), scheduler=scheduler)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        accumulate_grad_batches=accumulate,
        callbacks=[EarlyStopping(patience=patience, min_delta=0.5), BestAndLast(), *extra],
    )
    loader = DataLoader(Batches(), batch_size=None)
    trainer.fit(task, loader, loader, ckpt_path=resume)
    return task


def test_each_stage_trains_its_own_part_and_starts_from_the_best_of_the_one_before(tmp_path: Path) -> None:
    detector = TwoParts()
    task = run(detector, tmp_path, max_epochs=8)
    assert detector.prepared == [12]
    assert detector.begun == [("first", 12), ("second", 12)]  # once, with all training batches
    assert len(set(detector.a_seen[-6:])) == 1  # frozen in the second stage
    assert float(detector.a) == pytest.approx(3, abs=0.1)
    assert task.stage == "second"
    best = torch.load(tmp_path / "checkpoints" / "best_first.ckpt", weights_only=True)["state_dict"]
    assert float(best["detector.a"]) == detector.a_seen[-1]
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()


def test_early_stopping_ends_the_stage_and_then_the_run(tmp_path: Path) -> None:
    detector = TwoParts()
    task = run(detector, tmp_path, max_epochs=100, patience=2)
    assert task.stage == "second"  # the first stage had 75 epochs, but stopped on its own
    assert task.trainer.current_epoch < 30
    assert float(detector.b.detach()) > 1


@pytest.mark.parametrize(("total", "shares"), [(2, (1, 1)), (3, (2, 1)), (8, (6, 2)), (16, (12, 4))])
def test_epochs_are_shared_and_every_stage_gets_one(total: int, shares: tuple[int, int]) -> None:
    task = OnlyTraining(detector=TwoParts(), optimizer=partial(torch.optim.SGD, lr=0.1))
    task.trainer = L.Trainer(accelerator="cpu", max_epochs=total, logger=False, enable_checkpointing=False)
    found = []
    for task.stage_index in range(2):
        found.append(task.stage_epochs)
    assert tuple(found) == shares


def test_fewer_epochs_than_stages_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_epochs=1, but this model trains in 2 stages: first, second"):
        run(TwoParts(), tmp_path, max_epochs=1)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        TocsinError, match=r"the loss is not finite: loss at epoch 1, batch 0 \(stage first\)"
    ):
        run(TwoParts(broken=True), tmp_path, max_epochs=4)


# --- schedules ----------------------------------------------------------------------------------------------


class OnePart(TwoParts):
    """Only `a`, which stays far from its end however long it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = (Stage("first"),)
        self.followed: list[float] = []

    def after_step(self) -> None:
        self.followed.append(float(self.a.detach()))

    def loss(self, batch: SeriesBatch) -> dict[str, Tensor]:
        return {"loss": (self.a - 1e3).square().sum() * 1e-3}


class Rates(L.Callback):
    """Notes the rate of each optimizer step, and stops the run after so many epochs."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[float] = []
        self.stop_after = stop_after

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == self.stop_after:
            raise Killed


class Killed(BaseException):
    pass


def steps_from(peak: float, steps: int) -> list[float]:
    """The schedule `by_step` by itself."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = by_step(optimizer, steps=steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


by_step = partial(WarmupCosineSteps, warmup_steps=4)


@pytest.mark.parametrize(("accumulate", "steps_per_epoch"), [(1, 3), (2, 2), (3, 1)])
def test_schedule_in_steps_ends_with_the_last_optimizer_step(
    tmp_path: Path, accumulate: int, steps_per_epoch: int
) -> None:
    rates = Rates()
    run(OnePart(), tmp_path, 5, rates, scheduler=by_step, accumulate=accumulate)
    assert rates.seen == steps_from(0.1, 5 * steps_per_epoch)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 6), (2, 4), (3, 2)])
def test_detector_is_told_of_optimizer_steps_and_not_of_batches(
    tmp_path: Path, accumulate: int, steps: int
) -> None:
    detector = OnePart()
    run(detector, tmp_path, 2, accumulate=accumulate)
    assert len(detector.followed) == steps
    assert len(set(detector.followed)) == steps  # after the step, which moves the parameter
    assert detector.followed[-1] == float(detector.a.detach())


def test_each_stage_has_its_own_schedule_in_steps(tmp_path: Path) -> None:
    rates = Rates()
    run(TwoParts(), tmp_path, 8, rates, scheduler=by_step)
    assert rates.seen == steps_from(0.1, 6 * 3) + steps_from(0.1, 2 * 3)


def test_schedule_in_epochs_still_changes_with_epochs_only(tmp_path: Path) -> None:
    rates = Rates()
    run(OnePart(), tmp_path, 4, rates, scheduler=partial(WarmupCosine, warmup_epochs=1))
    assert len(rates.seen) == 12
    assert all(len(set(rates.seen[first : first + 3])) == 1 for first in range(0, 12, 3))
    assert rates.seen[0] == 0.05
    assert rates.seen[-1] == pytest.approx(0.001)


@pytest.mark.parametrize(
    "scheduler", [by_step, partial(WarmupCosine, warmup_epochs=1)], ids=["steps", "epochs"]
)
@pytest.mark.parametrize("stop_after", [1, 3])
def test_resumed_run_has_the_rates_of_an_uninterrupted_one(
    tmp_path: Path, stop_after: int, scheduler: Callable[..., LRScheduler]
) -> None:
    whole, first, rest = Rates(), Rates(stop_after), Rates()
    expected = run(OnePart(), tmp_path / "whole", 5, whole, scheduler=scheduler)
    with pytest.raises(Killed):
        run(OnePart(), tmp_path / "killed", 5, first, scheduler=scheduler)
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    resumed = run(OnePart(), tmp_path / "killed", 5, rest, scheduler=scheduler, resume=last)
    assert len(first.seen) == 3 * stop_after
    assert first.seen + rest.seen == whole.seen
    assert torch.equal(resumed.detector.a, expected.detector.a)
