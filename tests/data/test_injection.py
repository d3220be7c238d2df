import pytest
import torch

from tocsin.data.injection import KINDS, Plan, apply_plan, draw_plan, inject_series, inject_windows


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plan_of(kind: str, start: int = 20, duration: int = 12, magnitude: float = 3.0) -> Plan:
    return Plan(
        kind=torch.tensor([KINDS.index(kind)]),
        start=torch.tensor([start]),
        duration=torch.tensor([duration]),
        channels=torch.tensor([[False, True, False]]),
        magnitude=torch.full((1, 3), magnitude),
    )


def paste(kind: str, **changes: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    time = torch.arange(64.0)[None, :, None]
    x = torch.sin(time * torch.tensor([0.3, 0.5, 0.7]))
    changed, mask = apply_plan(x, plan_of(kind, **changes), x.flip(1), generator())
    return x, changed, mask


@pytest.mark.parametrize("kind", KINDS)
def test_changes_exactly_what_the_mask_says(kind: str) -> None:
    x, changed, mask = paste(kind)
    assert mask.nonzero()[:, 1].tolist() == list(range(20, 32))
    assert mask.nonzero()[:, 2].unique().tolist() == [1]
    assert torch.equal(changed[~mask], x[~mask])
    assert (changed[mask] != x[mask]).any()
    assert (changed - x)[mask].abs().max() > 0.3


def test_kinds_do_what_their_names_say() -> None:
    x, changed, mask = paste("level")
    torch.testing.assert_close((changed - x)[mask], torch.full((12,), 3.0))
    x, changed, mask = paste("trend")
    torch.testing.assert_close((changed - x)[mask], torch.linspace(0.25, 3.0, 12))
    x, changed, mask = paste("noise")
    assert 1.0 < (changed - x)[mask].std() < 6.0
    x, changed, mask = paste("flatline")
    assert changed[mask].std() < 0.2 * x[mask].std()
    assert changed[mask].std() > 0  # never noise-free
    x, changed, mask = paste("swap")
    assert torch.equal(changed[mask], x.flip(1)[mask])
    x, changed, mask = paste("warp")
    assert changed[mask].diff().abs().mean() != pytest.approx(float(x[mask].diff().abs().mean()), rel=0.1)


def test_plan_is_heavy_tailed_and_touches_few_channels() -> None:
    plan = draw_plan(20_000, 2000, 38, generator=generator())
    long_kinds = plan.kind != KINDS.index("spike")
    quantiles = plan.duration[long_kinds].float().quantile(torch.tensor([0.1, 0.5, 0.9]))
    assert 10 <= quantiles[1] <= 12
    assert 80 <= quantiles[2] <= 140  # 11 * exp(1.8 * 1.28) = 110
    assert plan.duration[~long_kinds].max() == 3
    count = plan.channels.sum(dim=1)
    assert count.min() == 1
    assert count.max() == 19
    assert 3 <= count.float().median() <= 6
    assert plan.kind.bincount().min() > 20_000 / len(KINDS) * 0.9
    assert plan.magnitude.abs().min() >= 1.0
    assert plan.magnitude.abs().max() <= 5.0
    assert abs(float(plan.magnitude.sign().mean())) < 0.05


@pytest.mark.parametrize("steps", [1, 2, 100])
@pytest.mark.parametrize("channels", [1, 8])
def test_windows_of_any_size(steps: int, channels: int) -> None:
    x = torch.randn(16, steps, channels, generator=generator())
    changed, mask = inject_windows(x, 1.0, generator())
    assert changed.shape == mask.shape == x.shape
    assert changed.isfinite().all()
    assert mask.flatten(1).any(dim=1).all()
    assert torch.equal(changed[~mask], x[~mask])


def test_probability_is_the_share_of_changed_windows() -> None:
    x = torch.randn(4000, 10, 3, generator=generator())
    changed, mask = inject_windows(x, 0.25, generator())
    touched = mask.flatten(1).any(dim=1)
    assert 0.2 < float(touched.float().mean()) < 0.3
    assert torch.equal(changed[~touched], x[~touched])


def test_same_generator_same_anomalies() -> None:
    x = torch.randn(50, 40, 4, generator=generator())
    first, again, other = (inject_windows(x, 0.5, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    series = x.reshape(-1, 4)
    assert torch.equal(inject_series(series, generator(1))[0], inject_series(series, generator(1))[0])


def test_series_keeps_gaps_and_ratio() -> None:
    values = torch.randn(20_000, 8, generator=generator())
    ratios = []
    for seed in range(5):
        changed, mask = inject_series(values, generator(seed), ratio=0.05, gap=50)
        assert torch.equal(changed[~mask], values[~mask])
        inside = mask.any(dim=1).long()
        edges = torch.cat([torch.zeros(1), inside, torch.zeros(1)]).diff()
        starts, ends = (edges == 1).nonzero().flatten(), (edges == -1).nonzero().flatten()
        assert (starts[1:] - ends[:-1]).min() >= 50
        assert starts[0] >= 50
        ratios.append(float(inside.float().mean()))
    assert 0.03 < sum(ratios) / 5 < 0.12


def test_series_too_short_says_so() -> None:
    with pytest.raises(ValueError, match="103 steps are too few"):
        inject_series(torch.zeros(103, 2), gap=50)
