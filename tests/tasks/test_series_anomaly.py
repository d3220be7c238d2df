"""Options of the task that every detector for series shares: noisy copies, folding, samples, lasting alarms."""

from functools import partial

import pytest
import torch
from torch import Tensor

from tocsin.errors import ConfigError
from tocsin.metrics.thresholds import Mad
from tocsin.models.base import SeriesDetector
from tocsin.scoring import ErrorScorer
from tocsin.tasks.series_anomaly import SeriesAnomaly


class Square(SeriesDetector):
    """Deviations that noise moves: the square of each value; it counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def deviations(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x.square()


def task(**changes: object) -> SeriesAnomaly:
    parts = {"threshold": Mad(), "scorer": ErrorScorer()}
    return SeriesAnomaly(
        **{"detector": Square(), "optimizer": partial(torch.optim.SGD, lr=0.1), **parts, **changes}
    )


X = torch.randn(6, 30, 2, generator=torch.Generator().manual_seed(0))


def test_without_copies_errors_are_the_deviations() -> None:
    plain = task()
    assert torch.equal(plain.errors(X), X.square())
    assert len(plain.detector.seen) == 1
    torch.testing.assert_close(task(tta=3, tta_sigma=0.0).errors(X), X.square())


def test_errors_are_the_mean_over_noisy_copies() -> None:
    noisy = task(tta=400, tta_sigma=0.5)
    found = noisy.errors(X)
    copies = torch.stack(noisy.detector.seen)
    assert copies.shape == (400, *X.shape)
    noise = copies - X
    assert noise.std() == pytest.approx(0.5, abs=0.01)
    assert (noise[0] - noise[1]).abs().max() > 0.1
    torch.testing.assert_close(noise[:, 0], noise[:, 1])  # the same for every window
    torch.testing.assert_close(found, copies.square().mean(dim=0))
    assert (found - X.square()).mean() == pytest.approx(0.25, abs=0.02)  # E[(x + e)^2] = x^2 + sigma^2


def test_noisy_copies_are_repeatable_and_do_not_depend_on_the_batch() -> None:
    noisy, before = task(tta=3, tta_sigma=0.1), torch.get_rng_state()
    found = noisy.errors(X)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(noisy.errors(X), found)
    assert torch.equal(torch.cat([noisy.errors(part) for part in X.split(1)]), found)
    assert not torch.equal(task(tta=3, tta_sigma=0.1, seed=1).errors(X), found)


def test_what_is_not_scored_stays_so_with_noisy_copies() -> None:
    class Half(Square):
        def deviations(self, x: Tensor) -> Tensor:
            return torch.cat([torch.full_like(x[:, :10], torch.nan), x[:, 10:]], dim=1)

    found = task(detector=Half(), tta=2).errors(X)
    assert found[:, :10].isnan().all()
    assert found[:, 10:].isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_duration": 0}, "task.min_duration=0 is not a positive number of steps"),
        ({"tta": -1}, "task.tta=-1 or task.tta_sigma=0.01 is negative"),
        ({"tta": 2, "tta_sigma": -0.1}, "task.tta=2 or task.tta_sigma=-0.1 is negative"),
        ({"fold": "median"}, "task.fold='median' is not one of mean, max, last"),
        ({"series_agg": "median"}, "task.series_agg='median' is not one of topk_mean, mean, max"),
    ],
)
def test_error_comes_before_the_training_and_says_what_is_possible(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        task(**changes)
