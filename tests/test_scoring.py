import numpy as np
import pytest
import torch
from scipy import ndimage

from tocsin.scoring import ErrorScorer, center_and_scale, join_channels, moving_mean


def noise(steps: int = 2000, channels: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, channels, generator=generator) * torch.logspace(-1, 2, channels)


@pytest.mark.parametrize("width", [1, 3, 21])
def test_moving_mean_against_scipy_inside_and_by_loop_at_the_ends(width: int) -> None:
    x = noise(60, 2)
    got = moving_mean(x, width).numpy()
    half = width // 2
    inside = ndimage.uniform_filter1d(x.double().numpy(), width, axis=0)
    np.testing.assert_allclose(got[half : 60 - half], inside[half : 60 - half], rtol=1e-5, atol=1e-5)
    for step in (0, 1, 58, 59):
        around = x[max(0, step - half) : step + half + 1].mean(dim=0)
        np.testing.assert_allclose(got[step], around.numpy(), rtol=1e-5, atol=1e-5)


def test_missing_steps_count_as_zero_if_asked() -> None:
    assert moving_mean(torch.ones(5), 3, partial=False).tolist() == pytest.approx([2 / 3, 1, 1, 1, 2 / 3])


def test_the_first_steps_of_a_stream_do_not_alarm() -> None:
    scorer = ErrorScorer().fit(noise())
    x = noise(300, seed=5)
    starts = [float(scorer.score_last(x[: n + 1])) for n in range(60)]
    assert max(starts) < float(scorer.score(x, causal=True).max()) * 1.05


def test_causal_mean_looks_back_only() -> None:
    x = noise(50, 1)
    changed = x.clone()
    changed[30:] += 100
    torch.testing.assert_close(moving_mean(x, 7, causal=True)[:30], moving_mean(changed, 7, causal=True)[:30])
    torch.testing.assert_close(moving_mean(x, 7, causal=True)[20], x[14:21].mean(dim=0))


def test_statistics_against_numpy() -> None:
    x = noise(channels=3)
    center, scale = center_and_scale(x, "zscore")
    np.testing.assert_allclose(center.numpy(), x.numpy().mean(axis=0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(scale.numpy()[1:], x.numpy().std(axis=0)[1:], rtol=1e-4)
    center, scale = center_and_scale(x, "robust")
    np.testing.assert_allclose(center.numpy(), np.median(x.numpy(), axis=0), atol=0.2)
    np.testing.assert_allclose(scale.numpy()[1:], x.numpy().std(axis=0)[1:], rtol=0.1)
    assert center_and_scale(torch.zeros(9, 2), "zscore")[1].min() > 0


def test_every_channel_counts_alike_whatever_its_unit() -> None:
    scorer = ErrorScorer().fit(noise())
    spread = scorer.normalised(noise(seed=1))[:, 1:].std(dim=0)  # the smallest channel is floored
    assert spread.max() < 1.3 * spread.min()


def test_channel_that_hardly_varies_does_not_explode() -> None:
    normal = torch.cat([noise(channels=3), torch.zeros(2000, 1)], dim=1)
    scorer = ErrorScorer().fit(normal)
    assert scorer.normalised(torch.full((1, 4), 1e-3)).abs().max() < 10


def test_a_small_lasting_shift_shows_only_in_the_wide_mean() -> None:
    normal, test = noise(channels=2), noise(channels=2, seed=1)
    spread = normal[:, 1].std()
    test[1000:1100, 1] += spread  # one standard deviation, for a hundred steps
    inside, outside = slice(1030, 1070), slice(0, 900)
    narrow = ErrorScorer(widths=(1,), smooth=1).fit(normal)(test)
    wide = ErrorScorer(widths=(1, 61), smooth=1).fit(normal)(test)
    assert wide[inside].min() > wide[outside].quantile(0.999)
    assert narrow[inside].min() < narrow[outside].quantile(0.5)


def test_errors_without_a_sign_are_unusual_only_when_large() -> None:
    normal = noise().square()
    scorer = ErrorScorer(widths=(1,), smooth=1).fit(normal)
    quiet, loud = scorer(torch.zeros(1, 4)), scorer(normal.max(dim=0).values[None])
    assert quiet < 0 < loud
    signed = ErrorScorer(widths=(1,), smooth=1).fit(noise())
    torch.testing.assert_close(signed(-noise(seed=2)), signed(noise(seed=2)), atol=0.3, rtol=0)


def test_joining_channels() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 10.0], [4.0, 0.0, 0.0, 0.0]])
    assert join_channels(values, "mean", 1.0).tolist() == [4.0, 1.0]
    assert join_channels(values, "max", 1.0).tolist() == [10.0, 4.0]
    assert join_channels(values, "topk_mean", 0.5).tolist() == [6.5, 2.0]
    assert join_channels(values[:, :1], "topk_mean", 0.1).tolist() == [1.0, 4.0]


def test_series_borders_are_respected() -> None:
    scorer = ErrorScorer().fit(noise())
    a, b = noise(300, seed=1), noise(200, seed=2) + 50
    together = scorer(torch.cat([a, b]), lengths=[300, 200])
    torch.testing.assert_close(together, torch.cat([scorer(a), scorer(b)]))
    assert not torch.allclose(together, scorer(torch.cat([a, b])))


def test_score_depends_on_steps_within_reach_only() -> None:
    scorer = ErrorScorer().fit(noise())
    x = noise(400, seed=3)
    changed = x.clone()
    changed[200] += 1e4
    differs = ((scorer(x) - scorer(changed)).abs() > 0.01).nonzero()[:, 0]
    assert differs.min() == 200 - scorer.reach
    assert differs.max() == 200 + scorer.reach


def test_last_score_of_a_stream_needs_the_steps_within_reach_only() -> None:
    scorer = ErrorScorer().fit(noise())
    x = noise(400, seed=3)
    whole = scorer.score(x, causal=True)[-1]
    torch.testing.assert_close(scorer.score_last(x[-(2 * scorer.reach + 1) :]), whole)


def test_statistics_load_into_a_fresh_object() -> None:
    scorer = ErrorScorer().fit(noise())
    fresh = ErrorScorer()
    fresh.load_state_dict(scorer.state_dict())
    torch.testing.assert_close(fresh(noise(seed=4)), scorer(noise(seed=4)))
    assert fresh.signed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": "minmax"}, "normalize='minmax' is not one of"),
        ({"channels": "sum"}, "channels='sum' is not one of"),
        ({"top_share": 0.0}, "top_share=0.0 is not in"),
        ({"widths": (1, 4)}, "widths: 4 is not a positive odd number"),
        ({"smooth": 0}, "smooth: 0 is not a positive odd number"),
    ],
)
def test_faulty_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ErrorScorer(**options)


def test_faulty_data_are_refused() -> None:
    with pytest.raises(ValueError, match="needs finite deviations"):
        ErrorScorer().fit(torch.full((3, 2), torch.nan))
    with pytest.raises(RuntimeError, match="not fitted"):
        ErrorScorer()(noise())
    with pytest.raises(ValueError, match="fitted on 4 channels, but got 3"):
        ErrorScorer().fit(noise())(noise(channels=3))


def test_a_spike_in_one_of_many_channels_stands_out() -> None:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(20_000, 16, generator=generator)
    scorer = ErrorScorer().fit(normal)
    series = torch.randn(2_000, 16, generator=generator)
    series[1_000, 3] = 8.0
    scores = scorer(series)
    assert int(scores.argmax()) == 1_000
    assert scores[1_000] > 1.5 * scorer(normal).max()
    assert scores[1_001] < 0.5 * scores[1_000]  # and no step beside it is blamed as much


@pytest.mark.parametrize("channels", [1, 40])
def test_one_normal_step_in_a_thousand_exceeds_one_by_either_part(channels: int) -> None:
    normal = torch.randn(50_000, channels, generator=torch.Generator().manual_seed(0))
    scorer = ErrorScorer().fit(normal)
    for part, unit in zip((scorer._lasting(normal), scorer._sharpest(normal)), scorer.units, strict=True):
        assert (part / unit > 1).float().mean() == pytest.approx(1e-3, rel=0.05)


def test_a_short_burst_raises_the_score_of_its_neighbours_by_a_limited_amount() -> None:
    normal, test = noise(channels=2), noise(channels=2, seed=1)
    test[1000:1003] += 200 * normal.std(dim=0)
    near = slice(1012, 1030)  # within the widest mean and beyond the smoothing
    usual, smeared = (ErrorScorer(smooth=1, clip=clip).fit(normal)(test) for clip in (4.0, 1e9))
    assert usual[near].max() < 0.01 * smeared[near].min()
    assert usual[1000:1003].min() > 100 * usual[near].max()
    with pytest.raises(ValueError, match=r"clip=0 is not a positive number"):
        ErrorScorer(clip=0)
