"""Schedules against torch's own and against hand arithmetic."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from tocsin.schedulers import MultiStep, WarmupCosine, WarmupCosineSteps, WarmupPlateau

# Falls, then stands still for long enough to lower the rate several times.
LOSSES = [1.0 / (epoch + 1) for epoch in range(12)] + [0.5 + 0.01 * (epoch % 3) for epoch in range(40)]


def optimizer(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


def rates(made: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in made.param_groups]


def run(made: torch.optim.Optimizer, scheduler: LRScheduler, losses: list[float]) -> list[list[float]]:
    seen = []
    for loss in losses:
        seen.append(rates(made))
        made.step()
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(loss)
        else:
            scheduler.step()
    return seen


@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_warmup_values(warmup: int) -> None:
    made = optimizer(0.1, 0.02)
    seen = run(made, WarmupPlateau(made, warmup_epochs=warmup, patience=100), LOSSES[: warmup + 3])
    for epoch, (first, second) in enumerate(seen):
        share = min(1.0, (epoch + 1) / (warmup + 1))
        assert first == pytest.approx(0.1 * share)
        assert second == pytest.approx(0.02 * share)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_after_the_warmup_it_is_torchs_plateau(warmup: int, mode: str) -> None:
    ours, theirs = optimizer(0.1), optimizer(0.1)
    options = {"factor": 0.5, "patience": 4, "min_lr": 1e-3, "mode": mode}
    scheduler = WarmupPlateau(ours, warmup_epochs=warmup, **options)
    got = run(ours, scheduler, LOSSES)
    expected = run(theirs, ReduceLROnPlateau(theirs, **options), LOSSES[warmup:])
    assert got[warmup:] == expected
    assert len({rate for (rate,) in expected}) > 3  # it did fall, several times


@pytest.mark.parametrize("stop", [1, 3, 20, 45])
@pytest.mark.parametrize(
    "make",
    [
        lambda made: WarmupPlateau(made, warmup_epochs=3, patience=4),
        lambda made: WarmupCosine(made, epochs=50, warmup_epochs=3),
        lambda made: WarmupCosineSteps(made, steps=50, warmup_steps=10),
    ],
)
def test_resumed_schedule_goes_on_like_an_uninterrupted_one(
    make: Callable[[torch.optim.Optimizer], LRScheduler], stop: int
) -> None:
    whole = optimizer(0.1)
    expected = run(whole, make(whole), LOSSES)

    first = optimizer(0.1)
    scheduler = make(first)
    run(first, scheduler, LOSSES[:stop])
    saved, saved_optimizer = scheduler.state_dict(), first.state_dict()

    fresh = optimizer(0.1)
    resumed = make(fresh)
    fresh.load_state_dict(saved_optimizer)
    resumed.load_state_dict(saved)
    assert run(fresh, resumed, LOSSES[stop:]) == expected[stop:]


@pytest.mark.parametrize("make", [WarmupPlateau, lambda made: WarmupCosine(made, epochs=9)])
def test_state_is_plain_data(make: Callable[[torch.optim.Optimizer], LRScheduler], tmp_path) -> None:  # type: ignore[no-untyped-def]
    made = optimizer(0.1)
    scheduler = make(made)
    run(made, scheduler, LOSSES[:8])
    torch.save(scheduler.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == scheduler.state_dict()


def test_cosine_values() -> None:
    made = optimizer(0.1)
    seen = run(made, WarmupCosine(made, epochs=25, warmup_epochs=4, min_fraction=0.2), LOSSES[:30])
    for epoch, (rate,) in enumerate(seen):
        if epoch < 4:
            expected = (epoch + 1) / 5
        else:
            progress = min(1.0, (epoch - 4) / 20)
            expected = 0.2 + 0.8 * (1 + math.cos(math.pi * progress)) / 2
        assert rate == pytest.approx(0.1 * expected)
    assert max(rate for (rate,) in seen) == pytest.approx(0.1)
    assert seen[24][0] == pytest.approx(0.02)  # the last epoch, and none below it
    assert seen[29][0] == pytest.approx(0.02)


def test_cosine_of_steps_has_the_published_values() -> None:
    made = optimizer(2e-3)
    seen = run(made, WarmupCosineSteps(made, steps=5000), [0.0] * 5001)
    assert seen[0][0] == 0.0
    assert seen[50][0] == pytest.approx(50 / 99 * 2e-3)  # 1.01e-3: 100 points from 0 to the peak
    assert seen[99][0] == pytest.approx(2e-3)
    assert seen[100][0] == pytest.approx(2e-3)
    assert seen[2550][0] == pytest.approx(1.1e-3, rel=1e-3)  # half way down
    assert seen[4999][0] == seen[5000][0] == pytest.approx(2e-4)
    assert all(later < sooner for (sooner,), (later,) in pairwise(seen[100:5000]))


def test_run_shorter_than_its_warmup_stays_below_the_peak() -> None:
    made = optimizer(0.1)
    seen = run(made, WarmupCosineSteps(made, steps=4, warmup_steps=11), [0.0] * 4)
    assert [rate for (rate,) in seen] == pytest.approx([0.0, 0.01, 0.02, 0.03])


def test_rate_falls_at_shares_of_the_epochs() -> None:
    made = optimizer(1e-4)
    seen = run(made, MultiStep(made, epochs=200), [0.0] * 200)
    expected = [1e-4] * 160 + [2e-5] * 20 + [4e-6] * 20
    assert [rate for (rate,) in seen] == pytest.approx(expected)
    other = optimizer(1.0)
    seen = run(other, MultiStep(other, epochs=7, milestones=(0.5,), gamma=0.1), [0.0] * 7)
    assert [rate for (rate,) in seen] == pytest.approx([1.0] * 4 + [0.1] * 3)


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode best is unknown"):
        WarmupPlateau(optimizer(0.1), mode="best")
