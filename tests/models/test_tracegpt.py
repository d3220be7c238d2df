import logging
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tocsin.batch import SeriesBatch
from tocsin.models import tracegpt
from tocsin.models.losses import focal_cross_entropy
from tocsin.models.tracegpt import TraceGPT, surprise
from tocsin.models.tracegpt_network import ResidualConv, rotary_turns, rotate
from tocsin.models.value_bins import (
    PointSample,
    bin_edges,
    bin_shares,
    digitise,
    noise_spread,
    target_table,
)

PARAMETERS = {"tracegpt": 171_266}
TINY = {"bins": 32, "d_model": 16, "n_heads": 2, "depth": 1}
T, C = 40, 3


def tiny(**changes: object) -> TraceGPT:
    torch.manual_seed(0)
    return TraceGPT(**{"window": T, "n_channels": C, **TINY, **changes})


def batch_of(x: Tensor) -> SeriesBatch:
    return SeriesBatch(x, torch.zeros(len(x), dtype=torch.int64))


def waves(batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(batch, 1, C, generator=generator) * 6.283
    clean = torch.sin(torch.arange(T)[None, :, None] * 0.4 + phase)
    return clean + 0.05 * torch.randn(batch, T, C, generator=generator)


def trained(steps: int, **changes: object) -> TraceGPT:
    model = tiny(dropout=0.0, **changes)
    model.prepare([batch_of(waves(64))])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(steps):
        optimizer.zero_grad()
        with torch.enable_grad():
            model.train().loss(batch_of(waves(16, seed=step)))["loss"].backward()
        optimizer.step()
    return model.eval()


# --- causality ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", ["continuous", "token"])
@pytest.mark.parametrize("pos", ["learned", "rope", "none"])
@torch.inference_mode()
def test_logits_know_nothing_of_what_they_predict(reads: str, pos: str) -> None:
    model = tiny(input=reads, pos=pos, depth=2).eval()
    rows, channel = model._rows(torch.randn(2, T, C))
    before, _ = model._predict(rows, channel)
    for step in (0, 1, 17, T - 2, T - 1):
        changed = rows.clone()
        changed[:, step] = -rows[:, step] + 1.0
        after, _ = model._predict(changed, channel)
        assert torch.equal(after[:, : step + 1], before[:, : step + 1])  # those that predict x_0 .. x_t
        if step + 1 < T:
            assert (after[:, step + 1] != before[:, step + 1]).any(dim=-1).all()


def test_training_mode_is_causal_too() -> None:
    model = tiny(dropout=0.0).train()  # a norm over time would show here only
    rows, channel = model._rows(torch.randn(2, T, C))
    changed = rows.clone()
    changed[:, 20:] += 1.0
    assert torch.equal(model._predict(changed, channel)[0][:, :21], model._predict(rows, channel)[0][:, :21])


@torch.inference_mode()
def test_convolutions_see_29_steps() -> None:
    tcn = tiny().network.tcn.eval()
    x = torch.randn(1, 1, 60)
    seen = []
    for step in range(60):
        changed = x.clone()
        changed[0, 0, step] += 1.0
        if (tcn(changed)[0, :, 50] != tcn(x)[0, :, 50]).any():
            seen.append(step)
    assert seen == list(range(50 - 28, 51))


@torch.inference_mode()
def test_channels_are_read_one_by_one_and_not_interleaved() -> None:
    model = tiny().eval()
    rows, channel = model._rows(torch.arange(3.0).expand(2, T, C))
    assert torch.equal(rows, torch.tensor([0.0, 1.0, 2.0] * 2)[:, None].expand(6, T))
    assert channel.tolist() == [0, 1, 2, 0, 1, 2]
    x = torch.randn(2, T, C)
    changed = x.clone()
    changed[:, :, 1] += 1.0
    touched = (model.deviations(changed) != model.deviations(x)).any(dim=1)
    assert touched.tolist() == [[False, True, False]] * 2


@torch.inference_mode()
def test_start_vector_tells_channels_apart() -> None:
    model = tiny().eval()
    torch.nn.init.normal_(model.network.start)
    nll = model.deviations(torch.randn(2, T, 1).expand(2, T, C))
    assert (nll[:, :, 0] != nll[:, :, 1]).all()


def test_rotary_products_tell_distances_only() -> None:
    turns = rotary_turns(20, 8)
    q, k = (rotate(torch.randn(8).expand(20, 8), turns) for _ in range(2))
    products = q @ k.T
    for distance in (0, 3, 11):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(q.norm(dim=1), q.norm(dim=1)[:1].expand(20))


@pytest.mark.parametrize("window", [2, 30, 77, 300])
@torch.inference_mode()
def test_any_window_length_works(window: int) -> None:
    deviations = tiny(window=window).eval().deviations(torch.randn(2, window, C))
    assert deviations.shape == (2, window, C)
    assert torch.isfinite(deviations).all()


# --- bins ---------------------------------------------------------------------------------------------------


def test_uniform_edges_have_known_places() -> None:
    points = torch.stack([torch.linspace(0.0, 1.0, 10_001), torch.linspace(-50.0, 50.0, 10_001)], dim=1)
    edges = bin_edges(points[torch.randperm(10_001)], 12, "uniform")
    low, high = 0.001 - 0.1 * 0.998, 0.999 + 0.1 * 0.998
    torch.testing.assert_close(edges[0], torch.linspace(low, high, 13))
    torch.testing.assert_close(edges[1], torch.linspace(low, high, 13) * 100 - 50, rtol=1e-4, atol=1e-4)


def test_quantile_bins_are_equally_full() -> None:
    points = torch.randn(50_000, 2).exp()
    bins = digitise(points.T, bin_edges(points, 20, "quantile"))
    counts = torch.bincount(bins[0], minlength=22)
    assert (counts[2:20] - 2_500).abs().max() < 50
    assert 5 <= counts[21] < 100
    shares = bin_shares(points, bin_edges(points, 20, "quantile"))
    torch.testing.assert_close(shares[0] * 50_000, counts.float())
    assert torch.special.entr(shares).sum(dim=1).min() > 0.99 * math.log(20)


@pytest.mark.parametrize("binning", ["uniform", "quantile"])
def test_constant_channel_gets_bins(binning: str) -> None:
    edges = bin_edges(torch.full((100, 1), 2.0), 8, binning)
    assert (edges.diff(dim=1) >= 0).all()
    bins = digitise(torch.tensor([[1.0, 2.0, 3.0]]), edges)[0].tolist()
    assert bins[0] == 0
    assert 1 <= bins[1] <= 8
    assert bins[2] == 9


def test_values_fall_into_their_bins() -> None:
    edges = torch.tensor([[0.0, 1.0, 2.0], [10.0, 20.0, 30.0]])
    values = torch.tensor([[-5.0, 0.5, 1.5, 2.5], [15.0, 25.0, 35.0, 0.0]])
    assert digitise(values, edges).tolist() == [[0, 1, 2, 3], [1, 2, 3, 0]]


def test_sample_is_bounded_and_takes_every_place_alike() -> None:
    sample = PointSample(1_000)
    for part in torch.arange(100_000.0).reshape(-1, 500)[:, :, None]:
        sample.add(part)
        assert sample._held <= 2_000 + 500
    taken = sample.taken()[:, 0]
    assert len(taken) == len(taken.unique()) == 1_000
    assert taken.mean() == pytest.approx(50_000, abs=3_000)
    in_window = torch.bincount((taken % 100).long() // 10, minlength=10)  # no place in a window is preferred
    assert in_window.min() > 60


def test_sample_without_points_says_so() -> None:
    with pytest.raises(ValueError, match="no training points to learn bins from"):
        tiny().prepare([])


def test_prepare_learns_bins_of_each_channel_once_and_logs_how_fine_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = tiny()
    x = torch.randn(200, T, C) * torch.tensor([1.0, 2.0, 4.0])
    with caplog.at_level(logging.INFO, logger="tocsin"):
        model.prepare([batch_of(part) for part in x.split(50)])
    span = model.edges[:, -1] - model.edges[:, 0]
    torch.testing.assert_close(span, 1.2 * 2 * 3.09 * torch.tensor([1.0, 2.0, 4.0]), rtol=0.1, atol=0.0)
    assert "32 bins: mean width 0.22 of the noise sd" in caplog.text  # 7.4 sd / 32, of a noisy estimate
    assert "0 of 3 channels over 1/3" in caplog.text
    learned = model.edges.clone()
    fresh = tiny()
    fresh.load_state_dict(model.state_dict())
    fresh.prepare([batch_of(10 * x)])  # as a resumed run does, in another order
    assert torch.equal(fresh.edges, learned)


def test_network_begins_at_the_histogram() -> None:
    model = tiny().eval()
    torch.nn.init.zeros_(model.network.head.weight)
    x = torch.randn(400, T, C)
    model.prepare([batch_of(x)])
    assert float(model.loss(batch_of(x))["ce"]) == pytest.approx(
        float(torch.special.entr(bin_shares(x.flatten(0, 1), model.edges)).sum(dim=1).mean()), rel=5e-3
    )


def test_noise_is_measured_below_a_smooth_signal() -> None:
    x = torch.sin(torch.arange(20_000) * 0.02) + 0.1 * torch.randn(20_000)
    second = x[2:] - 2 * x[1:-1] + x[:-2]
    assert noise_spread(second[:, None])[0] == pytest.approx(0.1, rel=0.05)


def test_targets_have_known_values() -> None:
    plain = target_table(8, ordinal_sigma=0.0, overflow_mass=0.02)
    torch.testing.assert_close(plain.sum(dim=1), torch.ones(10))
    assert plain[3, 3] == pytest.approx(0.98)
    assert plain[3, 0] == plain[3, 9] == pytest.approx(0.01)
    assert plain[0, 0] == pytest.approx(0.99)
    smooth = target_table(8, ordinal_sigma=1.0, overflow_mass=0.02)
    torch.testing.assert_close(smooth.sum(dim=1), torch.ones(10))
    assert smooth[4, 5] / smooth[4, 4] == pytest.approx(math.exp(-0.5))
    assert smooth[4, 6] / smooth[4, 4] == pytest.approx(math.exp(-2.0))
    assert smooth[0, 1] == 0.0  # what lies outside has no neighbours


# --- losses -------------------------------------------------------------------------------------------------


def test_focal_cross_entropy_agrees_with_its_formula() -> None:
    logits, classes = torch.randn(5, 7, 4), torch.randint(4, (5, 7))
    by_torch = functional.cross_entropy(
        logits.transpose(1, 2), classes, reduction="none", label_smoothing=0.1
    )
    torch.testing.assert_close(focal_cross_entropy(logits, classes, label_smoothing=0.1), by_torch)
    p = logits.softmax(dim=-1).gather(-1, classes[..., None])[..., 0]
    torch.testing.assert_close(focal_cross_entropy(logits, classes, gamma=2.0), -((1 - p) ** 2) * p.log())
    one_hot = functional.one_hot(classes, 4).float()
    assert torch.equal(focal_cross_entropy(logits, one_hot), focal_cross_entropy(logits, classes))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_cross_entropy_has_a_finite_gradient_where_it_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
    focal_cross_entropy(logits, torch.tensor([0, 0]), gamma=gamma).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_loss_is_the_cross_entropy_of_the_next_bin() -> None:
    model = tiny(overflow_mass=1e-6).eval()
    x = torch.randn(4, T, C)
    with torch.no_grad():
        terms = model.loss(batch_of(x))
        logits, true = model._predict(*model._rows(x))
    assert logits.shape == (12, T, 34)
    expected = functional.cross_entropy(logits.flatten(0, 1), true.flatten())
    torch.testing.assert_close(terms["ce"], expected)
    torch.testing.assert_close(terms["loss"], expected, rtol=1e-3, atol=0.0)
    torch.testing.assert_close(terms["relative_ce"], expected / math.log(34))
    torch.testing.assert_close(model.channel_scores(x).mean(), expected)


def test_what_is_known_nothing_of_costs_the_logarithm_of_the_bins() -> None:
    model = tiny().eval()
    torch.nn.init.zeros_(model.network.head.weight)
    terms = model.loss(batch_of(torch.randn(2, T, C)))
    assert float(terms["relative_ce"]) == pytest.approx(1.0)
    torch.testing.assert_close(
        model.channel_scores(torch.randn(2, T, C)), torch.full((2, T, C), math.log(34))
    )


def test_training_draws_sequences_and_validation_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(rows_per_step=5, dropout=0.0)
    sizes = []
    model.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    batch = batch_of(torch.randn(4, T, C))
    model.train().loss(batch)
    whole = model.eval().loss(batch)["loss"]
    monkeypatch.setattr(tracegpt, "_ROWS", 7)
    in_parts = model.loss(batch)["loss"]
    assert sizes == [5, 12, 7, 5]
    torch.testing.assert_close(in_parts, whole)


def test_trim_leaves_out_what_has_the_highest_loss_after_five_epochs() -> None:
    model = tiny(trim=0.25, dropout=0.0).train()
    model.prepare([batch_of(waves(64))])
    x = torch.zeros(4, T, C)
    x[2] = 50.0  # overflow: none of it is in the other sequences
    with torch.no_grad():
        model.network.head.bias[0] = model.network.head.bias[-1] = -10.0
        all_of_it = model.loss(batch_of(x))
        model.epoch = 5
        rest = model.loss(batch_of(x))
    assert float(rest["loss"]) < 0.7 * float(all_of_it["loss"])
    torch.testing.assert_close(rest["loss"], model.eval().loss(batch_of(x[[0, 1, 3]]))["loss"].detach())
    assert rest["ce"] == all_of_it["ce"]


@pytest.mark.parametrize("changes", [{"focal_gamma": 2.0}, {"label_smoothing": 0.2}, {"ordinal_sigma": 1.5}])
def test_options_of_the_loss_reach_it(changes: dict[str, float]) -> None:
    model, plain = tiny(**changes).eval(), tiny().eval()
    with torch.no_grad():
        for each in (model, plain):
            each.network.head.weight.mul_(30.0)  # predictions that are sure of something
    batch = batch_of(torch.randn(4, T, C))
    logits, true = model._predict(*model._rows(batch.x))
    table = target_table(32, ordinal_sigma=changes.get("ordinal_sigma", 0.0), overflow_mass=1e-5)
    expected = focal_cross_entropy(
        logits,
        table[true],
        gamma=changes.get("focal_gamma", 0.0),
        label_smoothing=changes.get("label_smoothing", 0.0),
    )
    terms, as_published = model.loss(batch), plain.loss(batch)
    torch.testing.assert_close(terms["loss"], expected.mean())
    assert (terms["loss"] - as_published["loss"]).abs() > 0.01 * as_published["loss"]
    assert torch.equal(terms["ce"], as_published["ce"])  # what is reported stays comparable


@torch.no_grad()
def test_instance_norm_forgives_the_level_and_the_size_of_a_window() -> None:
    x = waves(4, seed=500)
    model, plain = trained(20, instance_norm=True), trained(20)
    moved = 3.0 * x + 5.0
    close = (model.channel_scores(moved) - model.channel_scores(x)).abs() < 1e-3
    assert close.float().mean() > 0.98  # but for values on the border of a bin
    assert (plain.channel_scores(moved) - plain.channel_scores(x)).abs().median() > 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {"ordinal_sigma": 1.0},
        {"focal_gamma": 2.0},
        {"label_smoothing": 0.1},
        {"binning": "quantile"},
        {"input": "token"},
        {"pos": "none"},
        {"instance_norm": True},
    ],
)
def test_options_learn(changes: dict[str, object]) -> None:
    batch = batch_of(waves(16, seed=999))
    untrained = tiny(**changes)
    untrained.prepare([batch_of(waves(64))])
    with torch.no_grad():
        before = untrained.eval().loss(batch)
        after = trained(40, **changes).loss(batch)
    assert float(after["ce"]) < 0.93 * float(before["ce"])
    assert float(after["loss"]) < 0.95 * float(before["loss"])


@pytest.mark.parametrize("pos", ["learned", "rope"])
def test_bf16_losses_are_in_float32(pos: str) -> None:
    model = tiny(pos=pos).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(batch_of(torch.randn(4, T, C)))["loss"]
        scores = model.eval().deviations(torch.randn(2, T, C))
    loss.backward()
    assert loss.dtype == scores.dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


# --- scores -------------------------------------------------------------------------------------------------


def test_surprise_has_known_values() -> None:
    logits = torch.tensor([[[math.log(0.5), math.log(0.25), math.log(0.25)]]])
    nll, entropy = surprise(logits, torch.tensor([[1]]))
    assert nll.item() == pytest.approx(math.log(4))
    assert entropy.item() == pytest.approx(1.5 * math.log(2))


@torch.inference_mode()
def test_score_against_the_entropy_does_not_depend_on_the_noise() -> None:
    """The prediction knows two levels of noise: a plain likelihood calls the noisier one anomalous."""
    steps = torch.arange(34.0)
    narrow, wide = (-((steps - 16.5).square()) / (2 * sd**2) for sd in (1.0, 4.0))
    logits = torch.stack([narrow, wide])[:, None].expand(2, 4_000, 34)
    true = torch.distributions.Categorical(logits=logits).sample()
    nll, entropy = (values.mean(dim=1) for values in surprise(logits, true))
    assert nll[1] - nll[0] == pytest.approx(math.log(4), abs=0.1)
    assert (nll - entropy).abs().max() < 0.05


@torch.inference_mode()
def test_surprise_is_measured_against_the_entropy_of_each_prediction() -> None:
    model = tiny(score="nll_minus_entropy").eval()
    model.network.head.weight.mul_(30.0)
    x = torch.randn(3, T, C)
    logits, true = model._predict(*model._rows(x))
    own = torch.distributions.Categorical(logits=logits)
    expected = (-own.log_prob(true) - own.entropy()).reshape(3, C, T).transpose(1, 2)
    assert own.entropy().std() > 0.1
    torch.testing.assert_close(model.deviations(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reads", ["continuous", "token"])
@torch.no_grad()
def test_overflow_costs_much_but_not_without_bound(reads: str) -> None:
    model = trained(80, input=reads)
    x = waves(4, seed=500)
    usual = model.channel_scores(x).mean()
    x[:, 30, 1] = 1e4
    scores = model.channel_scores(x)
    assert (scores[:, 30, 1] > usual + 6.0).all()
    assert scores[:, 30, 1].max() < 20.0  # log(2 / overflow_mass) = 12.2
    far = x.clone()
    far[:, 30, 1] = 1e8  # what lies further outside looks the same
    assert torch.equal(model.channel_scores(far), scores)
    assert (scores[:, :30] == model.channel_scores(waves(4, seed=500))[:, :30]).all()


@pytest.mark.parametrize("score", ["nll", "nll_minus_entropy"])
@torch.no_grad()
def test_learns_and_ranks_a_planted_anomaly_first(score: str) -> None:
    model = trained(80, score=score)
    normal = model.loss(batch_of(waves(16, seed=999)))
    assert float(normal["relative_ce"]) < 0.8
    x = waves(8, seed=500)
    x[3, 21, 1] += 3.0
    deviations = model.deviations(x)
    assert int(deviations.flatten().argmax()) == (3 * T + 21) * C + 1
    if score == "nll":
        assert (deviations >= 0).all()
        torch.testing.assert_close(model.point_scores(x), deviations.mean(dim=-1))
    else:
        assert deviations.min() < 0 < deviations.max()


@torch.inference_mode()
def test_head_of_a_window_can_be_left_unscored() -> None:
    model = tiny(unscored_share=0.5).eval()
    x = torch.randn(2, T, C)
    for values in (model.deviations(x), model.channel_scores(x)):
        assert values[:, :20].isnan().all()
        assert values[:, 20:].isfinite().all()
    assert torch.equal(model.deviations(x)[:, 20:], tiny().eval().deviations(x)[:, 20:])


def test_residual_block_has_a_shortcut_only_where_widths_differ() -> None:
    assert isinstance(ResidualConv(1, 16, 1, 0.1).shortcut, torch.nn.Conv1d)
    assert isinstance(ResidualConv(16, 16, 2, 0.1).shortcut, torch.nn.Identity)


def test_sizes_of_the_reconstruction_are_about_a_million_parameters() -> None:
    model = TraceGPT(window=100, n_channels=1)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1.1e6, rel=0.05)
    assert model.network.head.out_features == 130


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"binning": "log"}, "binning='log' is not one of 'uniform'"),
        ({"input": "bins"}, "input='bins' is not one of 'continuous'"),
        ({"pos": "sine"}, "pos='sine' is not one of 'learned'"),
        ({"score": "mse"}, "score='mse' is not one of 'nll'"),
        ({"bins": 4}, "bins=4 is not between 8 and 1024"),
        ({"n_heads": 0}, "n_heads=0 is not a positive number"),
        ({"d_model": 18}, r"d_model=18 is not a multiple of 2 \* n_heads=4"),
        ({"depth": 0}, "depth=0 is not a positive number of blocks"),
        ({"rows_per_step": -1}, "rows_per_step=-1 is not a positive number or null"),
        ({"ordinal_sigma": -1.0}, "ordinal_sigma=-1.0 is not 0 or more"),
        ({"overflow_mass": 0.0}, "overflow_mass=0.0 is not between 0 and 1"),
        ({"focal_gamma": -1.0}, "focal_gamma=-1.0 is not 0 or more"),
        ({"trim": 1.0}, r"trim=1.0 is not in \[0, 1\)"),
        ({"dropout": 1.0}, r"dropout=1.0 is not in \[0, 1\)"),
        ({"label_smoothing": 1.0}, r"label_smoothing=1.0 is not in \[0, 1\)"),
        ({"unscored_share": 1.0}, r"unscored_share=1.0 is not in \[0, 1\)"),
    ],
)
def test_error_says_what_is_possible(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)
