import pytest
import torch
from torch import Tensor, nn

from tocsin.batch import SeriesBatch
from tocsin.models.patchtrad import PatchTrad, patch_steps
from tocsin.models.patchtrad_encoder import ChannelHeads, ScoreResidualAttention, small_positions

PARAMETERS = {"patchtrad": 8_080}  # of window 60 and 3 channels

TINY = {"d_model": 16, "n_heads": 2, "feedforward": 32}


def tiny(**changes: object) -> PatchTrad:
    torch.manual_seed(0)
    return PatchTrad(**{"window": 40, "n_channels": 3, **TINY, **changes})


def batch_of(x: Tensor) -> SeriesBatch:
    return SeriesBatch(x, torch.zeros(len(x), dtype=torch.int64))


def noise(batch: int = 2, window: int = 40) -> Tensor:
    return torch.randn(batch, window, 3, generator=torch.Generator().manual_seed(1))


def waves(batch: int, window: int = 40) -> Tensor:
    phase = torch.rand(batch, 1, 1) * 6.283
    time = torch.arange(window)[None, :, None] * 0.4
    return torch.sin(time * torch.tensor([1.0, 0.5, 1.0]) + phase + torch.tensor([0.0, 0.7, 1.5]))


def trained(steps: int, **changes: object) -> PatchTrad:
    model = tiny(**changes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        loss = model.loss(batch_of(waves(16)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


# --- patches ------------------------------------------------------------------------------------------------


def test_padded_patches_are_the_published_ones() -> None:
    steps = patch_steps(100, 8, 6, pad_end=True)
    assert steps.shape == (17, 8)
    assert steps[-1].tolist() == [96, 97, 98, 99, 99, 99, 99, 99]  # four steps, four copies of the last
    steps = patch_steps(32, 8, 6, pad_end=True)
    assert steps.shape == (6, 8)
    assert steps[-1].tolist() == [30] + [31] * 7


def test_without_padding_the_last_patch_ends_with_the_window() -> None:
    assert patch_steps(104, 8, 6, pad_end=False)[:, 0].tolist() == [*range(0, 97, 6)]  # the stride fits
    assert patch_steps(100, 8, 6, pad_end=False)[:, 0].tolist() == [*range(0, 91, 6), 92]


@pytest.mark.parametrize("pad_end", [False, True])
@pytest.mark.parametrize(("patch_size", "stride"), [(8, 6), (8, 8), (16, 12), (5, 1)])
def test_patches_of_every_window_show_every_step(patch_size: int, stride: int, pad_end: bool) -> None:
    for window in range(30, 301, 7):
        steps = patch_steps(window, patch_size, stride, pad_end=pad_end)
        assert steps.unique().tolist() == [*range(window)]
        if not pad_end:
            assert torch.equal(steps, steps[:, :1] + torch.arange(patch_size))  # no value twice in a patch


@pytest.mark.parametrize("pad_end", [False, True])
@pytest.mark.parametrize("window", [30, 33, 100, 300])
def test_patches_put_together_are_the_window(window: int, pad_end: bool) -> None:
    model = tiny(window=window, pad_end=pad_end)
    x = noise(window=window)
    torch.testing.assert_close(model.from_patches(model.to_patches(x)), x)
    assert model.eval().deviations(x).shape == x.shape


def test_overlaps_are_averaged() -> None:
    model = tiny(window=14)  # steps 6 and 7 are in both patches
    patches = torch.stack([torch.zeros(8), torch.ones(8)]).expand(1, 3, 2, 8)
    assert model.from_patches(patches)[0, :, 1].tolist() == [0.0] * 6 + [0.5] * 2 + [1.0] * 6


def test_channels_are_not_interleaved() -> None:
    model = tiny()
    x = torch.tensor([3.0, 5.0, 7.0]).expand(2, 40, 3)
    patches = model.to_patches(x)
    assert torch.equal(patches, x[:, 0, :, None, None].expand_as(patches))
    assert torch.equal(model.from_patches(patches), x)


# --- network ------------------------------------------------------------------------------------------------


def test_patch_changes_only_its_own_embedding_and_output() -> None:
    model = tiny().eval()
    x = noise()
    changed = x.clone()
    changed[:, 20:22, 1] += 1.0  # in patches 3 (steps 18 to 25) and, of channel 1, in no other
    before, after = (model.encoder.embed(model.to_patches(one)) for one in (x, changed))
    assert (before != after).any(dim=3).any(dim=0).nonzero().tolist() == [[1, 3]]
    tokens = torch.randn(2, 3, 7, 16)
    other = tokens.clone()
    other[:, 1, 3] += 1.0
    differs = (model.heads(tokens) != model.heads(other)).any(dim=3).any(dim=0)
    assert differs.nonzero().tolist() == [[1, 3]]


def test_channels_do_not_see_each_other_but_patches_do() -> None:
    model = tiny().eval()
    x = noise()
    changed = x.clone()
    changed[:, 18:26, 1] += 1.0
    differs = (model.reconstruct_patches(x) - model.reconstruct_patches(changed)).abs().amax(dim=(0, 3))
    assert torch.equal(differs[[0, 2]], torch.zeros(2, differs.shape[1]))
    assert (differs[1] > 0).all()


def test_each_channel_has_its_own_head() -> None:
    heads = ChannelHeads(3, 16, 8)
    tokens = torch.randn(2, 3, 7, 16)
    for channel in range(3):
        expected = nn.functional.linear(tokens[:, channel], heads.weight[channel], heads.bias[channel])
        torch.testing.assert_close(heads(tokens)[:, channel], expected)
    assert not torch.equal(heads.weight[0], heads.weight[1])


def test_attention_is_that_of_torch_plus_the_scores_before() -> None:
    torch.manual_seed(0)
    ours, theirs = ScoreResidualAttention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    ours.queries_keys_values.load_state_dict({"weight": theirs.in_proj_weight, "bias": theirs.in_proj_bias})
    ours.project.load_state_dict(theirs.out_proj.state_dict())
    tokens, before = torch.randn(2, 5, 16), torch.randn(2, 4, 5, 5)
    first, scores = ours(tokens, None)
    torch.testing.assert_close(first, theirs(tokens, tokens, tokens)[0])
    second, summed = ours(tokens, before)
    torch.testing.assert_close(summed, scores + before)
    mask = before.flatten(0, 1)  # torch adds a mask of floats to its scores
    torch.testing.assert_close(second, theirs(tokens, tokens, tokens, attn_mask=mask)[0])


def test_second_layer_gets_the_scores_of_the_first() -> None:
    model = tiny(n_layers=2).eval()
    second = model.encoder.layers[1].attention
    nn.init.zeros_(second.queries_keys_values.weight[:32])  # queries and keys: no scores of its own
    nn.init.zeros_(second.queries_keys_values.bias[:32])
    seen: list[Tensor] = []
    for layer in model.encoder.layers:
        layer.attention.register_forward_hook(lambda *call: seen.append(call[2][1]))
    model.reconstruct_patches(noise())
    assert seen[0].std() > 0
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("attn_residual", [True, False])
def test_only_the_skip_connection_carries_a_patch_past_silent_attention(attn_residual: bool) -> None:
    model = tiny(n_layers=1, attn_residual=attn_residual).eval()
    nn.init.zeros_(model.encoder.layers[0].attention.project.weight)
    made = model.reconstruct_patches(noise())
    assert bool((made.std(dim=2) > 1e-3).all()) == attn_residual


def test_positions_are_small_and_fixed() -> None:
    positions = small_positions(17, 32)
    torch.testing.assert_close(positions.mean(), torch.tensor(0.0), rtol=0, atol=1e-6)
    torch.testing.assert_close(positions.std(), torch.tensor(0.1))
    assert len(positions.unique(dim=0)) == 17
    model = tiny()
    assert "encoder.positions" not in dict(model.named_parameters())
    torch.testing.assert_close(model.encoder.positions, small_positions(7, 16))


def test_scoring_leaves_the_statistics_of_the_normalisation_alone() -> None:
    model = tiny().train()
    norm = model.encoder.layers[0].attention_norm.norm
    before = norm.running_mean.clone()
    model.loss(batch_of(noise()))
    trained_on = norm.running_mean.clone()
    assert not torch.equal(trained_on, before)
    model.eval().deviations(100.0 * noise())
    assert torch.equal(norm.running_mean, trained_on)


# --- loss and score -----------------------------------------------------------------------------------------


def silent(**changes: object) -> PatchTrad:
    """A network that reconstructs 0 everywhere."""
    model = tiny(**changes).eval()
    nn.init.zeros_(model.heads.weight)
    nn.init.zeros_(model.heads.bias)
    return model


def test_silent_network_has_the_values_as_deviations_and_copies_nothing() -> None:
    model, x = silent(), noise()
    torch.testing.assert_close(model.deviations(x), x)
    terms = model.loss(batch_of(x))
    torch.testing.assert_close(terms["loss"], model.to_patches(x).square().mean())
    assert terms["copied"] == 0
    assert set(model.train().loss(batch_of(x))) == {"loss"}


def test_network_that_copies_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny().eval()
    monkeypatch.setattr(model, "reconstruct_patches", model.to_patches)
    terms = model.loss(batch_of(noise()))
    assert terms["loss"] == 0
    torch.testing.assert_close(terms["copied"], torch.tensor(1.0))


def test_loss_in_evaluation_is_deterministic() -> None:
    model, batch = tiny().eval(), batch_of(noise(8))
    first, state = model.loss(batch), torch.get_rng_state()
    again = model.loss(batch)
    assert first["loss"] == again["loss"]
    assert first["copied"] == again["copied"]
    assert torch.equal(torch.get_rng_state(), state)  # training draws what it would have drawn
    model.train()
    assert model.loss(batch)["loss"] != model.loss(batch)["loss"]  # dropout


def test_padded_last_step_has_the_published_score() -> None:
    model, x = tiny(window=100, pad_end=True, attn_residual=False).eval(), noise(window=100)
    errors = model.to_patches(x) - model.reconstruct_patches(x)
    last = errors[:, :, -1]
    torch.testing.assert_close(model.point_scores(x)[:, -1], last.square().mean(dim=(1, 2)))
    assert torch.equal(model.deviations(x)[:, -1] < 0, last.mean(dim=-1) < 0)
    torch.testing.assert_close(model.deviations(x)[:, 50], model.from_patches(errors)[:, 50])
    low = silent(window=100, pad_end=True).deviations(torch.full((1, 100, 3), -2.0))
    torch.testing.assert_close(low, torch.full((1, 100, 3), -2.0))


def test_windows_on_their_own_scales_forget_their_level() -> None:
    model, x = tiny(instance_norm=True).eval(), noise()
    torch.testing.assert_close(model.deviations(x + 5.0), model.deviations(x), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.deviations(3.0 * x), 3.0 * model.deviations(x), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(tiny().eval().deviations(x + 5.0), tiny().eval().deviations(x), atol=1e-2)
    with torch.no_grad():  # a network that says 0 says the mean of the window
        expected = x - x.mean(dim=1, keepdim=True)
        torch.testing.assert_close(silent(instance_norm=True).deviations(x), expected)


@pytest.mark.parametrize("attn_residual", [True, False])
def test_learns_and_does_not_copy_a_planted_anomaly(attn_residual: bool) -> None:
    model = trained(120, attn_residual=attn_residual)
    x = waves(8)
    with torch.no_grad():
        normal = model.point_scores(x).mean()
        assert normal < 0.1 * x.square().mean()
        x[3, 21:24, 1] += 3.0
        scores = model.channel_scores(x)
        assert scores[3, 21:24, 1].mean() > 20 * normal
    assert abs(int(scores[3, :, 1].argmax()) - 22) <= 8  # in a patch that shows it
    assert scores.flatten().argmax() // (40 * 3) == 3


def test_bfloat16_gives_a_finite_loss_in_full_precision() -> None:
    model = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(batch_of(noise()))["loss"]
        scores = model.eval().deviations(noise())
    assert loss.dtype == scores.dtype == torch.float32
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 40}, "patch_size=40 is not between 1 and 39"),
        ({"stride": 9}, "stride=9 is not between 1 and patch_size=8"),
        ({"d_model": 18, "n_heads": 4}, "d_model=18 is not an even multiple of n_heads=4"),
        ({"d_model": 3, "n_heads": 1}, "d_model=3 is not an even multiple of n_heads=1"),
        ({"n_heads": 0}, "n_heads=0 is not at least 1"),
        ({"n_layers": 0}, "n_layers=0 is not at least 1"),
        ({"dropout": 1.0}, r"dropout=1.0 is not in \[0, 1\)"),
    ],
)
def test_error_says_what_is_possible(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)
