import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from tocsin.batch import ImageBatch
from tocsin.errors import ConfigError
from tocsin.models.base import ImageScores
from tocsin.models.dinomaly import Dinomaly, Features, easy_gradients, smooth
from tocsin.models.dinomaly_decoder import LinearAttention, NoisyMlp
from tocsin.models.pretrained import timm_network
from tocsin.optimizers import StableAdamW
from tocsin.schedulers import WarmupCosineSteps

PARAMETERS = {
    "dinomaly": 133_827_072
}  # 61.4 million of them are trained; the size of the images does not matter
TRAINED = 61_425_408

SMALL_OPTIONS = {
    "dinomaly": [
        "model.weights=random",
        "++model.encoder=vit_tiny_patch16_224",
        "++model.encoder_options={embed_dim:32,depth:4,num_heads:2,patch_size:8,img_size:64}",
        "++model.target_layers=[0,1,2,3]",
    ]
}

VIT = "vit_tiny_patch16_224"
OPTIONS = {
    "embed_dim": 32,
    "depth": 5,
    "num_heads": 2,
    "patch_size": 8,
    "img_size": 32,
    "reg_tokens": 4,
    "no_embed_class": True,
}


def tiny(*, vit: dict[str, object] | None = None, **changes: object) -> Dinomaly:
    torch.manual_seed(0)
    options = {"encoder": VIT, "weights": None, "target_layers": (0, 1, 2, 3), **changes}
    return Dinomaly(encoder_options={**OPTIONS, **(vit or {})}, **options)


def batch_of(images: Tensor) -> ImageBatch:
    return ImageBatch(images, torch.arange(len(images)))


def noise(batch: int = 2, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def after(model: Dinomaly, steps: int) -> Dinomaly:
    for _ in range(steps):
        model.after_step()
    return model


def given(
    monkeypatch: pytest.MonkeyPatch, model: Dinomaly, target: list[Tensor], made: list[Tensor]
) -> Dinomaly:
    """A model whose features are these, as of 4 x 4 patches."""
    monkeypatch.setattr(model, "features", lambda images: Features(target, made, (4, 4)))
    return model


def random_features(n: int, seed: int, spread: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [spread * torch.randn(3, 16, 8, generator=generator) for _ in range(n)]


# --- encoder ------------------------------------------------------------------------------------------------


def test_default_has_the_published_size() -> None:
    with torch.device("meta"):
        model = Dinomaly(weights=None)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS["dinomaly"]
    assert sum(p.numel() for p in model.trainable("train")) == TRAINED
    assert len(model.encoder.blocks) == 10  # the last two are never run
    assert len(model.decoder) == 8
    assert model.fuse_groups == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert model.n_prefix == 5
    assert model.decoder[0].attention.n_heads == 12


def by_blocks(model: Dinomaly, images: Tensor) -> list[Tensor]:
    """Outputs of all blocks, one after the other."""
    encoder = model.encoder
    tokens = encoder.norm_pre(encoder._pos_embed(encoder.patch_embed(model.normalise(images))))
    outputs = []
    for block in encoder.blocks:
        tokens = block(tokens)
        outputs.append(tokens)
    return outputs


def test_targets_are_the_outputs_of_the_blocks_without_the_final_norm() -> None:
    model, images = tiny(target_layers=(1, 3)), noise()
    layers, outputs = model.encode(images), by_blocks(model, images)
    assert len(outputs) == 4  # of five blocks
    torch.testing.assert_close(layers[0], outputs[1])
    torch.testing.assert_close(layers[1], outputs[3])
    assert layers[0].shape == (2, 1 + 4 + 16, 32)  # class, registers, patches


def test_pixels_are_normalised_as_the_encoder_was_trained() -> None:
    seen: list[Tensor] = []
    model = tiny()
    model.encoder.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.score(torch.full((1, 3, 32, 32), 0.75))
    torch.testing.assert_close(seen[0], torch.full((1, 3, 32, 32), 0.5))  # this one: mean 0.5, deviation 0.5
    with torch.device("meta"):
        default = Dinomaly(weights=None).encoder.pretrained_cfg
    assert default["mean"] == (0.485, 0.456, 0.406)
    assert default["std"] == (0.229, 0.224, 0.225)


def test_encoder_is_frozen_stays_in_evaluation_mode_and_gets_no_gradient() -> None:
    model = tiny(vit={"drop_path_rate": 0.5, "proj_drop_rate": 0.5}).train()
    assert not model.encoder.training
    assert model.bottleneck.training
    assert torch.equal(model.encode(noise())[-1], model.encode(noise())[-1])
    model.loss(batch_of(noise()))["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in model.encoder.parameters())
    trained = list(model.trainable("train"))
    assert not any(tokens.requires_grad for tokens in tiny().encode(noise().requires_grad_()))
    assert {id(p) for p in trained} == {id(p) for n, p in model.named_parameters() if "encoder" not in n}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


def test_images_of_any_size_are_seen_at_the_nearest_multiple_of_the_patch() -> None:
    model = tiny().eval()
    assert model.seen_size(64, 96) == (64, 96)
    assert model.seen_size(67, 93) == (64, 96)
    assert model.seen_size(69, 91) == (72, 88)
    assert model.seen_size(3, 69) == (8, 72)
    with torch.device("meta"):
        assert Dinomaly(weights=None).seen_size(448, 640) == (448, 644)
    scores = model.score(noise(2, 35, 51))
    assert scores.map.shape == (2, 35, 51)
    assert scores.image.shape == (2,)
    assert tiny(image_size=(16, 40)).features(noise(2, 35, 51)).grid == (2, 5)
    assert tiny(image_size=40).features(noise(2, 35, 51)).grid == (5, 5)
    features = model.features(noise(2, 24, 48))
    assert features.grid == (3, 6)
    assert features.target[0].shape == features.made[0].shape == (2, 18, 32)


@pytest.mark.parametrize(
    ("encoder", "vit", "n_prefix"),
    [
        (VIT, {"reg_tokens": 0, "class_token": False, "global_pool": "avg"}, 0),
        (VIT, {"reg_tokens": 0, "no_embed_class": False}, 1),
        ("vit_small_patch16_dinov3", {}, 5),  # rotary positions
    ],
)
def test_other_transformers_are_encoders_too(encoder: str, vit: dict[str, object], n_prefix: int) -> None:
    options = {**OPTIONS, **vit}
    if encoder != VIT:
        options = {key: options[key] for key in ("embed_dim", "depth", "num_heads", "patch_size", "img_size")}
    model = Dinomaly(encoder=encoder, weights=None, encoder_options=options, target_layers=(1, 2)).eval()
    assert model.n_prefix == n_prefix
    features = model.features(noise(1, 24, 40))
    assert features.target[0].shape == (1, 15, 32)
    assert model.encode(noise(1, 24, 40))[0].shape == (1, 15 + n_prefix, 32)


def test_weights_of_the_authors_of_dinov2_fit(tmp_path: Path) -> None:
    """Their file names the registers otherwise, and adds the position of the class token when it runs."""
    name = "vit_small_patch14_reg4_dinov2"
    options = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 518}
    torch.manual_seed(5)
    saved = timm_network(name, weights=None, options=options).state_dict()
    for key in ("reg_token", "cls_token", "pos_embed"):
        saved[key] = torch.randn_like(saved[key])
    theirs = {key: saved[key] for key in saved if key not in ("reg_token", "cls_token", "pos_embed")}
    position = torch.randn(1, 1, 32)
    theirs["pos_embed"] = torch.cat([position, saved["pos_embed"]], dim=1)
    theirs["cls_token"] = saved["cls_token"] - position
    theirs["register_tokens"] = saved["reg_token"]
    theirs["mask_token"] = torch.zeros(1, 32)
    torch.save(theirs, tmp_path / "dinov2_vits14_reg4_pretrain.pth")
    model = Dinomaly(
        encoder=name,
        weights=str(tmp_path / "dinov2_vits14_reg4_pretrain.pth"),
        encoder_options=options,
        target_layers=(0, 1),
    )
    loaded = model.encoder.state_dict()
    assert loaded.keys() == {key for key in saved if not key.startswith(("norm.", "blocks.2."))}
    for key, value in loaded.items():
        torch.testing.assert_close(value, saved[key])


def test_recentred_patches_are_relative_to_the_class_token() -> None:
    plain, recentred = tiny().encode(noise()), tiny(recenter=True).encode(noise())
    for tokens, patches in zip(plain, recentred, strict=True):
        torch.testing.assert_close(patches, tokens[:, 5:] - tokens[:, :1])
    model = tiny(recenter=True)
    features = model.features(noise())
    torch.testing.assert_close(features.target[1], (recentred[2] + recentred[3]) / 2)
    assert features.made[0].shape == (2, 16, 32)


# --- bottleneck and decoder ---------------------------------------------------------------------------------


def test_linear_attention_is_the_explicit_sum_over_all_tokens() -> None:
    attention, x = LinearAttention(12, 3), torch.randn(2, 7, 12)
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    expected = torch.zeros(2, 7, 12)
    for b in range(2):
        for head in (slice(0, 4), slice(4, 8), slice(8, 12)):
            for i in range(7):
                weights = torch.stack(
                    [((F.elu(q[b, i, head]) + 1) * (F.elu(k[b, j, head]) + 1)).sum() for j in range(7)]
                )
                expected[b, i, head] = (weights / (weights.sum() + 1e-6)) @ v[b, :, head]
    torch.testing.assert_close(attention(x), attention.proj(expected))


def test_attention_of_queries_that_match_nothing_is_finite() -> None:
    attention = LinearAttention(8, 2)
    nn.init.constant_(attention.qkv.bias[:16], -200.0)  # elu(-200) + 1 is 0 in floating point
    assert torch.isfinite(attention(torch.randn(1, 5, 8))).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_of_many_tokens_stays_in_the_range_of_half_precision(dtype: torch.dtype) -> None:
    attention, x = LinearAttention(32, 1), torch.randn(1, 3000, 32)
    nn.init.constant_(attention.qkv.bias, 3.0)
    with torch.autocast("cpu", dtype=dtype):
        found = attention(x).float()
    torch.testing.assert_close(found, attention(x), rtol=0.03, atol=0.03)


def test_noise_of_the_bottleneck_is_on_its_input_hidden_layer_and_output() -> None:
    mlp, x = NoisyMlp(64, dropout=0.3).train(), torch.ones(8, 50, 64)
    seen: list[Tensor] = []
    for layer in (mlp.fc1, mlp.fc2):
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    seen.append(mlp(x))
    for noisy in seen:
        assert float((noisy == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(seen[0].max(), torch.tensor(1 / 0.7))
    torch.testing.assert_close(mlp.eval()(x), mlp.fc2(F.gelu(mlp.fc1(x))))
    assert tiny().bottleneck.dropout.p == 0.2
    assert all(block.mlp.dropout.p == 0 for block in tiny().decoder)


def test_biases_are_there_unless_they_are_not_wanted() -> None:
    for bias in (True, False):
        model = tiny(bias=bias)
        layers = [model.bottleneck, *(block.mlp for block in model.decoder)]
        assert all((layer.fc1.bias is not None) == bias for layer in layers)
        assert all((layer.fc2.bias is not None) == bias for layer in layers)
        assert all(block.attention.qkv.bias is not None for block in model.decoder)


def test_weights_start_small() -> None:
    model = tiny(vit={"embed_dim": 64})
    linear = [
        m for part in (model.bottleneck, model.decoder) for m in part.modules() if isinstance(m, nn.Linear)
    ]
    assert len(linear) == 2 + 4 * 4
    for layer in linear:
        assert layer.weight.abs().max() <= 0.03
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
        assert layer.bias is not None
        assert not layer.bias.any()
    assert all(block.norm1.eps == block.norm2.eps == 1e-8 for block in model.decoder)


class Constant(nn.Module):
    """A block whose output is its place, whatever comes in."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.full_like(tokens, float(self.place))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (None, [(3 + 2) / 2, (1 + 0) / 2]),  # the last block rebuilds the first layer
        ([[0], [1], [2], [3]], [3.0, 2.0, 1.0, 0.0]),
        ([[0, 1, 3]], [(3 + 2 + 0) / 3]),
    ],
)
def test_groups_are_honoured_and_the_decoder_rebuilds_backwards(
    groups: list[list[int]] | None, expected: list[float]
) -> None:
    model, images = tiny(fuse_groups=groups), noise()
    model.decoder = nn.ModuleList(Constant(place) for place in range(4))
    features = model.features(images)
    assert [float(made.unique()) for made in features.made] == pytest.approx(expected)
    layers = model.encode(images)
    for target, group in zip(features.target, groups or [[0, 1], [2, 3]], strict=True):
        mean = sum(layers[i] for i in group) / len(group)
        torch.testing.assert_close(target, mean[:, 5:])  # class and registers are not compared


def test_bottleneck_sees_the_mean_of_all_layers_and_all_tokens() -> None:
    seen: list[Tensor] = []
    model = tiny()
    model.bottleneck.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.features(noise())
    torch.testing.assert_close(seen[0], sum(model.encode(noise())) / 4)


# --- loss ---------------------------------------------------------------------------------------------------


def flat_cosine(target: list[Tensor], made: list[Tensor]) -> float:
    """Mean over groups and images of 1 - cos of all numbers of an image, in double precision."""
    terms = []
    for t, m in zip(target, made, strict=True):
        for a, b in zip(t.flatten(1).double().numpy(), m.detach().flatten(1).double().numpy(), strict=True):
            terms.append(1 - a @ b / math.sqrt((a @ a) * (b @ b)))
    return float(np.mean(terms))


@pytest.mark.parametrize("training", [True, False])
def test_loss_is_the_cosine_of_whole_images(monkeypatch: pytest.MonkeyPatch, training: bool) -> None:
    target, made = random_features(2, 1), random_features(2, 2)
    model = given(monkeypatch, after(tiny(), 1000).train(training), target, made)
    assert float(model.loss(batch_of(noise()))["loss"]) == pytest.approx(flat_cosine(target, made), abs=1e-6)


def gradients(
    monkeypatch: pytest.MonkeyPatch, steps: int, **changes: object
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of each patch by the model and without its factors (B * N,), and the distances of the patches."""
    (target,) = random_features(1, 1)
    made = [target + torch.linspace(0.1, 3, 48).reshape(3, 16, 1) * random_features(1, 2)[0]]
    found = []
    for step in (steps, 0):
        leaf = made[0].clone().requires_grad_()
        model = given(monkeypatch, after(tiny(**changes), step).train(), [target], [leaf * 1.0])
        model.loss(batch_of(noise()))["loss"].backward()
        found.append(leaf.grad)
    distances = 1 - F.cosine_similarity(target, made[0], dim=-1)
    return found[0], found[1], distances


@pytest.mark.parametrize(("steps", "easy"), [(0, 0), (250, 11), (500, 22), (1000, 44), (1500, 44)])
def test_gradients_of_the_easy_patches_shrink_as_the_ramp_rises(
    monkeypatch: pytest.MonkeyPatch, steps: int, easy: int
) -> None:
    """All but int(48 * (1 - p)) of 48 patches, with p = 0.9 * step / 1000, at most 0.9."""
    found, plain, distances = gradients(monkeypatch, steps)
    ratio = found / plain
    assert torch.allclose(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-3)  # all numbers of a patch alike
    easiest = distances.flatten().argsort()[:easy]
    expected = torch.ones(48)
    expected[easiest] = 0.1
    torch.testing.assert_close(ratio[..., 0].flatten(), expected, rtol=1e-3, atol=0)


def test_easy_patches_are_found_in_the_whole_batch_and_not_in_each_image() -> None:
    target = torch.ones(2, 10, 4)
    made = torch.ones(2, 10, 4) + 0.01 * torch.rand(2, 10, 4)
    made[1, :, 0] = torch.linspace(-3, -2, 10)  # every patch of the second image is hard
    factors = easy_gradients(target, made, torch.tensor(0.5), 0.1)
    assert factors.shape == (2, 10, 1)
    assert torch.equal(factors[0], torch.full((10, 1), 0.1))
    assert torch.equal(factors[1], torch.ones(10, 1))


def test_options_of_the_gradients_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    found, plain, _ = gradients(monkeypatch, 10, easy_share=0.5, easy_factor=0.25, ramp_steps=10)
    ratio = (found / plain)[..., 0].flatten().sort().values
    torch.testing.assert_close(ratio, torch.tensor([0.25] * 24 + [1.0] * 24), rtol=1e-3, atol=0)


def test_ramp_counts_optimizer_steps_and_not_batches() -> None:
    model = tiny().train()
    for _ in range(3):  # batches whose gradients are accumulated
        model.loss(batch_of(noise()))
    assert int(model.steps) == 0
    assert int(after(model, 2).steps) == 2
    fresh = tiny()
    fresh.load_state_dict(model.state_dict())
    assert int(fresh.steps) == 2


def test_validation_loss_is_deterministic_and_draws_nothing() -> None:
    model, batch = tiny().eval(), batch_of(noise())
    state = torch.get_rng_state()
    assert model.loss(batch)["loss"] == model.loss(batch)["loss"]
    assert torch.equal(torch.get_rng_state(), state)
    model.train()
    assert model.loss(batch)["loss"] != model.loss(batch)["loss"]  # dropout


def test_bfloat16_compares_in_full_precision() -> None:
    model = after(tiny(), 1000).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = model.features(noise())
        loss = model.loss(batch_of(noise()))["loss"]
        scores = model.eval().score(noise())
    assert {t.dtype for t in (*features.target, *features.made, loss, *scores)} == {torch.float32}
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.trainable("train") if p.grad is not None)


# --- score --------------------------------------------------------------------------------------------------


def scored(model: Dinomaly, images: Tensor) -> ImageScores:
    with torch.no_grad():
        return model.eval().score(images)


def test_map_and_score_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    target, made = random_features(2, 1), random_features(2, 2)
    model = given(monkeypatch, tiny(image_size=32), target, made)
    scores = scored(model, noise(3, 256, 256))
    cosines = [
        1 - F.cosine_similarity(t.double(), m.double(), dim=2) for t, m in zip(target, made, strict=True)
    ]
    each = [
        F.interpolate(c.reshape(3, 1, 4, 4), (32, 32), mode="bilinear", align_corners=True) for c in cosines
    ]
    expected = F.interpolate((each[0] + each[1]) / 2, (256, 256), mode="bilinear", align_corners=False)
    for b in range(3):
        blurred = gaussian_filter(expected[b, 0].numpy(), 4.0, mode="nearest", radius=2)
        np.testing.assert_allclose(scores.map[b].numpy(), blurred, rtol=1e-4, atol=1e-6)
        largest = np.sort(blurred.ravel())[-655:]  # 1 % of 65536
        assert float(scores.image[b]) == pytest.approx(largest.mean(), rel=1e-5)


def test_score_is_of_the_map_that_is_returned() -> None:
    model = tiny()
    scores = scored(model, noise(2, 40, 80))
    top = scores.map.flatten(1).sort(dim=1).values[:, -32:].mean(dim=1)
    torch.testing.assert_close(scores.image, top)


def test_smoothing_is_a_gaussian_of_five_pixels_that_does_not_darken_the_border() -> None:
    maps = torch.rand(2, 1, 9, 14)
    for b in range(2):
        expected = gaussian_filter(maps[b, 0].numpy(), 4.0, mode="nearest", radius=2)
        np.testing.assert_allclose(smooth(maps)[b, 0].numpy(), expected, rtol=1e-5)
    torch.testing.assert_close(smooth(torch.ones(1, 1, 6, 8)), torch.ones(1, 1, 6, 8))


def stripes(batch: int, seed: int) -> Tensor:
    """Images of 32 x 64 with stripes that are shifted."""
    generator = torch.Generator().manual_seed(seed)
    shift = torch.rand(batch, 1, 1, 1, generator=generator) * 6.283
    waves = torch.sin(torch.arange(64) * 0.5 + shift).expand(batch, 3, 32, 64)
    return 0.5 + 0.3 * waves + 0.02 * torch.randn(batch, 3, 32, 64, generator=generator)


def trained(steps: int) -> Dinomaly:
    """A random transformer of four blocks: two of its layers are rebuilt."""
    model = tiny(vit={"embed_dim": 64, "depth": 4}, target_layers=(1, 2)).train()
    optimizer = StableAdamW(model.trainable("train"), lr=2e-3)
    scheduler = WarmupCosineSteps(optimizer, steps=steps, warmup_steps=10)
    for step in range(steps):
        loss = model.loss(batch_of(stripes(8, step)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.trainable("train"), 0.1)
        optimizer.step()
        scheduler.step()
        model.after_step()
    return model.eval()


def test_learns_to_rank_and_to_place_a_planted_anomaly(tmp_path: Path) -> None:
    model = trained(80)
    images = stripes(8, 1000)
    images[3, :, 8:24, 40:56] = 0.5 + 0.3 * torch.sin(torch.arange(16) * 0.5)[:, None]  # the stripes lie down
    scores = scored(model, images)
    others = torch.cat([scores.image[:3], scores.image[4:]])
    assert scores.image[3] > 1.5 * others.max()
    row, column = divmod(int(scores.map[3].argmax()), 64)
    assert 4 <= row < 28
    assert 36 <= column < 60

    torch.save(model.state_dict(), tmp_path / "model.pt")
    fresh = tiny(vit={"embed_dim": 64, "depth": 4}, target_layers=(1, 2))
    assert not torch.equal(scored(fresh, images).image, scores.image)
    fresh.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(scored(fresh, images).map, scores.map)
    assert int(fresh.steps) == 80


# --- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tiny(dropout=1.0), r"dropout=1.0 is not in \[0, 1\)"),
        (lambda: tiny(easy_share=1.0), r"easy_share=1.0 is not in \[0, 1\)"),
        (lambda: tiny(easy_factor=-0.1), r"easy_factor=-0.1 is not in \[0, 1\]"),
        (lambda: tiny(ramp_steps=0), "ramp_steps=0 is not at least 1"),
        (lambda: tiny(target_layers=()), r"target_layers=\[\] is not a growing list of blocks"),
        (lambda: tiny(target_layers=(2, 1)), r"target_layers=\[2, 1\] is not a growing list of blocks"),
        (lambda: tiny(target_layers=(3, 5)), r"target_layers=\[3, 5\] is not below the 5 blocks of vit_tiny"),
        (
            lambda: tiny(fuse_groups=[[0, 4]]),
            r"fuse_groups=\[\[0, 4\]\] is not lists of positions from 0 to 3",
        ),
        (lambda: tiny(fuse_groups=[[]]), r"fuse_groups=\[\[\]\] is not lists of positions"),
        (
            lambda: tiny(image_size=36),
            "image_size=36 is not one or two multiples of the patch of 8 x 8 pixels",
        ),
        (lambda: tiny(image_size=(32, 0)), r"image_size=\(32, 0\) is not one or two multiples of the patch"),
        (
            lambda: tiny(recenter=True, vit={"class_token": False, "reg_tokens": 0, "global_pool": "avg"}),
            "recenter=True needs a class token, and vit_tiny_patch16_224 has none",
        ),
        (
            lambda: Dinomaly(encoder="resnet18", weights=None),
            "encoder=resnet18 takes no such options as a vision transformer",
        ),
        (
            lambda: tiny(vit={"heads": 3}),
            "encoder=vit_tiny_patch16_224 takes no such options as a vision transformer: .*heads",
        ),
    ],
)
def test_option_out_of_range_is_named(make: Callable[[], Dinomaly], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_unknown_encoder_names_similar_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"timm has no model 'vit_base_patch14_dinov2_reg'; similar: .*dinov2"
    ):
        Dinomaly(encoder="vit_base_patch14_dinov2_reg", weights=None)
