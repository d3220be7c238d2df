import numpy as np
import pytest
import torch
from scipy import ndimage

from tocsin.scoring import (
    ErrorScorer,
    error_statistics,
    join_channels,
    smooth_over_time,
    surprise,
    tail_knots,
)


def errors(steps: int = 500, channels: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-3, 3, channels)
    return torch.randn(steps, channels, generator=generator).square() * scale


@pytest.mark.parametrize("normalize", ["scale", "zscore", "robust", "tail"])
def test_every_channel_counts_alike_whatever_its_unit(normalize: str) -> None:
    scorer = ErrorScorer(normalize=normalize, smooth="none").fit(errors())
    spread = scorer.normalised(errors(seed=1)).std(dim=0)
    channels = slice(2, None) if normalize != "tail" else slice(None)  # the smallest two are floored
    assert spread[channels].max() < 1.6 * spread[channels].min()
    assert spread.max() < 2 * spread[-1]


def test_statistics_against_numpy() -> None:
    e = errors(channels=3)
    center, scale = error_statistics(e, "zscore")
    np.testing.assert_allclose(center.numpy(), e.numpy().mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(scale.numpy()[1:], e.numpy().std(axis=0)[1:], rtol=1e-5)
    center, scale = error_statistics(e, "robust")
    np.testing.assert_allclose(center.numpy(), np.median(e.numpy(), axis=0), rtol=1e-2)
    assert error_statistics(torch.zeros(9, 2), "zscore")[1].min() > 0


def test_channel_without_error_in_validation_does_not_explode() -> None:
    normal = torch.cat([errors(channels=4)[:, 1:], torch.zeros(500, 1)], dim=1)
    scorer = ErrorScorer(normalize="zscore", smooth="none").fit(normal)
    assert scorer.normalised(torch.full((1, 4), 1e-3)).abs().max() < 10


def test_surprise_is_the_log_of_the_tail_probability() -> None:
    normal = torch.rand(20_000, 2) * torch.tensor([1.0, 50.0])
    knots = tail_knots(normal)
    got = surprise(torch.tensor([[0.5, 25.0], [0.9, 45.0]]), knots) * np.log(20_000) / 63
    expected = -torch.log(torch.tensor([[0.5, 0.5], [0.1, 0.1]]))
    torch.testing.assert_close(got, expected, atol=0.1, rtol=0.05)
    far = surprise(torch.tensor([[1.0, 50.0], [2.0, 100.0], [9.0, 450.0]]), knots)
    assert (far.diff(dim=0) > 0).all()


def test_joining_channels() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 10.0], [4.0, 0.0, 0.0, 0.0]])
    assert join_channels(values, "mean", 1.0).tolist() == [4.0, 1.0]
    assert join_channels(values, "max", 1.0).tolist() == [10.0, 4.0]
    assert join_channels(values, "topk_mean", 0.5).tolist() == [6.5, 2.0]
    assert join_channels(values[:, :1], "topk_mean", 0.1).tolist() == [1.0, 4.0]


@pytest.mark.parametrize("kind", ["mean", "gaussian", "median"])
def test_smoothing_against_scipy(kind: str) -> None:
    x = torch.randn(200)
    got = smooth_over_time(x, kind, 9).numpy()[10:-10]
    expected = {
        "mean": lambda v: ndimage.uniform_filter1d(v, 9),
        "gaussian": lambda v: ndimage.gaussian_filter1d(v, 9 / 4, radius=4),
        "median": lambda v: ndimage.median_filter(v, 9),
    }[kind](x.double().numpy())[10:-10]
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["mean", "gaussian", "ewma", "median"])
def test_smoothing_keeps_a_constant_up_to_the_ends(kind: str) -> None:
    for causal in (False, True):
        got = smooth_over_time(torch.full((5,), 3.0), kind, 11, causal=causal)
        torch.testing.assert_close(got, torch.full((5,), 3.0))


def test_causal_smoothing_does_not_look_ahead() -> None:
    x = torch.zeros(50)
    x[30] = 1.0
    for kind in ("mean", "gaussian", "ewma"):
        smoothed = smooth_over_time(x, kind, 9, causal=True)
        assert smoothed[:30].abs().max() == 0.0
        assert smoothed[30] > 0


def test_missing_steps_stay_missing_and_spoil_no_neighbour() -> None:
    x = torch.ones(20)
    x[5] = torch.nan
    for kind in ("mean", "median"):
        smoothed = smooth_over_time(x, kind, 5)
        assert smoothed.isnan().nonzero().flatten().tolist() == [5]
        assert smoothed[4] == 1.0


def test_smoothing_stops_at_series_borders() -> None:
    e = torch.zeros(20, 2)
    e[9] = 5.0
    scorer = ErrorScorer(normalize="none", smooth="mean", width=5).fit(e)
    together = scorer(e, lengths=(10, 10))
    assert together[7:10].min() > 0
    assert together[10:].abs().max() == 0
    torch.testing.assert_close(together[:10], scorer(e[:10]))


@pytest.mark.parametrize("kind", ["none", "mean", "gaussian", "ewma", "median"])
def test_stream_of_blocks_equals_the_whole(kind: str) -> None:
    e = errors(60)
    scorer = ErrorScorer(smooth=kind, width=8, causal=True).fit(e)
    pieces, carry = [], None
    for block in torch.split(e, [1, 3, 20, 2, 34]):
        scores, carry = scorer.stream(block, carry)
        pieces.append(scores)
    torch.testing.assert_close(torch.cat(pieces), scorer(e))
    assert len(carry) == 7


@pytest.mark.parametrize("normalize", ["zscore", "tail"])
def test_state_loads_into_a_fresh_unfitted_object(normalize: str) -> None:
    scorer = ErrorScorer(normalize=normalize).fit(errors())
    fresh = torch.nn.ModuleDict({"scorer": ErrorScorer(normalize=normalize)})
    fresh.load_state_dict({f"scorer.{key}": value for key, value in scorer.state_dict().items()})
    assert torch.equal(fresh["scorer"](errors(seed=3)), scorer(errors(seed=3)))


def test_planted_error_ranks_first_in_any_channel() -> None:
    scorer = ErrorScorer().fit(errors())
    for channel in range(2, 6):
        e = errors(seed=5)
        e[200:220, channel] *= 100
        assert 195 <= int(scorer(e).argmax()) <= 225


def test_errors_say_what_is_possible() -> None:
    with pytest.raises(ValueError, match="normalize='z' is not one of 'none'"):
        ErrorScorer(normalize="z")
    with pytest.raises(ValueError, match=r"top_share=0.0 is not in"):
        ErrorScorer(top_share=0.0)
    with pytest.raises(ValueError, match="width=4 is not a positive odd number"):
        ErrorScorer(width=4)
    with pytest.raises(RuntimeError, match="not fitted"):
        ErrorScorer()(errors())
    with pytest.raises(RuntimeError, match="cannot stream"):
        ErrorScorer().fit(errors()).stream(errors())
    with pytest.raises(ValueError, match="fitted on 6 channels, but got 2"):
        ErrorScorer().fit(errors())(errors()[:, :2])
    with pytest.raises(ValueError, match="got none that are scored"):
        ErrorScorer().fit(torch.full((5, 2), torch.nan))
    with pytest.raises(ValueError, match="'wrong' has no centre"):
        error_statistics(errors(), "wrong")
