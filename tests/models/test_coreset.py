import logging
import signal
import time
from collections.abc import Iterator

import pytest
import torch
from live_memory import LiveMemory
from torch import Tensor

from tocsin.models import coreset
from tocsin.models.coreset import coreset_of, covering_radius, farthest_points, principal_axes, rows_of


def cloud(n: int, width: int = 24, seed: int = 0) -> Tensor:
    """Points of few inner dimensions, some of them rare, as features of patches are."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.randn(n, 6, generator=generator) * torch.linspace(1.0, 0.2, 6)
    points = torch.tanh(inner @ torch.randn(6, width, generator=generator))
    return points - points.mean(dim=0)


def one_at_a_time(points: Tensor, size: int) -> Tensor:
    """Greedy k-center as it is written: the reference."""
    picks = [int(points.square().sum(dim=1).argmax())]
    nearest = (points - points[picks[0]]).square().sum(dim=1)
    while len(picks) < size:
        picks.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (points - points[picks[-1]]).square().sum(dim=1))
    return torch.tensor(picks)


# --- greedy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [(1, 1), (16, 16), (1024, 4096)])
@pytest.mark.parametrize("picks", [(1, 1), (64, 1024)])
def test_sweeps_pick_what_one_at_a_time_picks(
    candidates: tuple[int, int], picks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coreset, "_CANDIDATES", candidates)
    monkeypatch.setattr(coreset, "_PICKS", picks)
    points = cloud(1500)
    assert coreset_of(points, 150).indices.tolist() == one_at_a_time(points, 150).tolist()


def test_a_sweep_picks_many(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps = []
    original = coreset._approach
    monkeypatch.setattr(coreset, "_approach", lambda *args: (sweeps.append(1), original(*args)))
    coreset_of(cloud(3000), 600)
    assert len(sweeps) < 40  # passes over all points, instead of 600


def test_radius_is_that_of_the_points_and_no_point_is_picked_twice() -> None:
    points = cloud(2000)
    for method in ("greedy", "random"):
        found = coreset_of(points, 200, method=method)
        assert len(found.indices.unique()) == 200
        torch.testing.assert_close(
            found.radius, covering_radius(points, points[found.indices]), rtol=1e-3, atol=0
        )


def test_covering_radius_is_the_farthest_way_to_the_nearest() -> None:
    points, bank = cloud(300), cloud(20, seed=1)
    torch.testing.assert_close(covering_radius(points, bank), torch.cdist(points, bank).amin(dim=1).amax())


def test_few_components_cover_as_well_as_all_features_do() -> None:
    points = (cloud(1500, width=256) + 0.1 * torch.randn(1500, 256)).half()
    exact = covering_radius(points, points[one_at_a_time(points.float(), 100)])
    narrow = (points.float() @ principal_axes(points, 64)).half()
    found = covering_radius(points, points[coreset_of(narrow, 100).indices])
    assert found <= 1.05 * exact
    drawn = covering_radius(points, points[coreset_of(points, 100, method="random").indices])
    assert drawn > 1.1 * exact  # so that the bound above says something


def test_axes_are_those_of_most_variance() -> None:
    rows = torch.randn(500, 6) * torch.tensor([1.0, 5.0, 0.1, 3.0, 0.2, 0.3]) + 100.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        axes = principal_axes(rows.half(), 3)
    assert axes.abs().argmax(dim=0).tolist() == [1, 3, 0]
    torch.testing.assert_close(axes.T @ axes, torch.eye(3))


def test_copies_are_picked_once() -> None:
    found = coreset_of(cloud(10).repeat(30, 1), 50)
    assert len(found.indices) == 10
    assert sorted((found.indices % 10).tolist()) == [*range(10)]
    assert found.radius < 1e-2
    assert len(coreset_of(torch.zeros(40, 3), 5).indices) == 1


@pytest.mark.parametrize("candidates", [(16, 16), (1024, 4096)])
def test_rounding_does_not_pick_a_point_twice(
    candidates: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coreset, "_CANDIDATES", candidates)
    monkeypatch.setattr(coreset, "_COVERED", 0.0)
    points = cloud(300) + 1_000.0  # far from the origin, a point is some way off itself
    indices = coreset_of(points, 900).indices
    assert 100 < len(indices.unique()) == len(indices)


@pytest.mark.parametrize("method", ["greedy", "random"])
def test_sizes_at_the_border(method: str) -> None:
    assert coreset_of(cloud(1), 5, method=method).indices.tolist() == [0]
    assert len(coreset_of(cloud(30), 1, method=method).indices) == 1
    assert sorted(coreset_of(cloud(30), 99, method=method).indices.tolist()) == [*range(30)]


def test_random_is_drawn_by_its_seed() -> None:
    points = cloud(100)
    state = torch.get_rng_state()
    first = coreset_of(points, 10, method="random", seed=1).indices
    assert torch.equal(first, coreset_of(points, 10, method="random", seed=1).indices)
    assert not torch.equal(first, coreset_of(points, 10, method="random", seed=2).indices)
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_and_autocast_pick_alike() -> None:
    points = cloud(1500).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = coreset_of(points, 100).indices
    assert found.tolist() == one_at_a_time(points.float(), 100).tolist()


# --- going on -----------------------------------------------------------------------------------------------


def test_greedy_goes_on_from_what_is_there() -> None:
    points = cloud(1000)
    first = one_at_a_time(points, 60)
    known = torch.cdist(points, points[first[:40]]).amin(dim=1)
    assert farthest_points(points, 20, distances=known).indices.tolist() == first[40:].tolist()


def test_greedy_stops_where_all_are_near_enough() -> None:
    points = cloud(1000)
    known = torch.cdist(points, points[:1]).amin(dim=1)
    found = farthest_points(points, 1000, distances=known, stop=2.5)
    assert 5 < len(found.indices) < 500
    bank = torch.cat([points[:1], points[found.indices]])
    assert covering_radius(points, bank) <= 2.5 + 1e-4
    assert covering_radius(points, bank[:-1]) > 2.5  # the last one was needed
    assert len(farthest_points(points, 50, distances=torch.full((1000,), 0.9), stop=1.0).indices) == 0


# --- how it runs --------------------------------------------------------------------------------------------


@pytest.fixture
def _interrupted() -> Iterator[None]:
    """Ctrl-C after 0.3 s."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("_interrupted")
def test_ctrl_c_ends_it_at_once() -> None:
    points = cloud(60_000)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        coreset_of(points, 50_000)
    assert time.monotonic() - start < 3.0  # of many


def test_progress_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(coreset, "_REPORT_S", 0.0)
    with caplog.at_level(logging.INFO):
        coreset_of(cloud(1500), 300)
    assert " of 300 picked, radius" in caplog.text


def test_no_value_is_read_back_while_picking() -> None:
    candidates = torch.empty(100, 8, device="meta")  # has no values to read
    picks, heights = coreset._pick(candidates, torch.empty(100, device="meta"), 20)
    assert picks.shape == heights.shape == (20,)


def test_memory_is_a_fraction_of_the_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreset, "_TILE_SIZE", 2**14)
    points = torch.randn(30_000, 64).half()
    with LiveMemory() as memory:
        coreset_of(points, 50)
    assert (
        memory.peak < 0.3 * points.nbytes
    )  # a distance per point, and tiles; all pairs are 1.6 times the points


def test_rows_of_chunks_are_those_of_the_whole() -> None:
    points = cloud(60)
    chunks = [points[:7], points[7:8], points[8:8], points[8:40], points[40:]]
    indices = torch.randperm(60)[:45]
    assert torch.equal(rows_of(chunks, indices), points[indices])
