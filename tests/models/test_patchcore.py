import logging
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from live_memory import LiveMemory
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from tocsin.batch import ImageBatch
from tocsin.errors import TocsinError
from tocsin.models import coreset, patchcore
from tocsin.models.base import ImageScores
from tocsin.models.patch_features import PatchFeatures
from tocsin.models.patchcore import PatchCore, resized_and_smoothed

PARAMETERS = {"patchcore": 24_862_528}  # up to layer3, all of them frozen
SMALL_OPTIONS = {
    "patchcore": ["model.backbone=test_resnet", "model.layers=[layer1,layer2]", "model.weights=random"]
}

TINY = {"backbone": "test_resnet", "layers": ["layer1", "layer2"], "weights": "random"}
CELL = 8  # pixels of a patch of `Cells`


class Cells(nn.Module):
    """In place of a network: mean colours and the place of each cell of 8 x 8 pixels, known exactly."""

    def __init__(self, width: int, scale: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.n_features, self.scale, self.offset = width, scale, offset

    def forward(self, images: Tensor) -> Tensor:
        colours = F.avg_pool2d(images, CELL)  # (B, 3, h, w)
        B, _, h, w = colours.shape
        y = torch.linspace(0, 1, h)[:, None].expand(B, 1, h, w)
        x = torch.linspace(0, 1, w).expand(B, 1, h, w)
        rest = colours.new_zeros(B, self.n_features - 5, h, w)
        features = torch.cat([rest, colours, y, x], dim=1).permute(0, 2, 3, 1)
        return features * self.scale + self.offset


def made(scale: float = 1.0, offset: float = 0.0, **changes: object) -> PatchCore:
    model = PatchCore(**{**TINY, **changes})
    model.features = Cells(model.features.n_features, scale, offset)
    return model


def scenes(n: int, height: int = 64, width: int = 96, seed: int = 0) -> Tensor:
    """Images whose colour says where in them one is, with some noise."""
    generator = torch.Generator().manual_seed(seed)
    red = torch.linspace(0, 1, height)[:, None].expand(n, 1, height, width)
    green = torch.linspace(0, 1, width).expand(n, 1, height, width)
    clean = torch.cat([red, green, torch.full_like(red, 0.5)], dim=1)
    return clean + 0.1 * torch.randn(n, 3, height, width, generator=generator)


def batch_of(images: Tensor) -> ImageBatch:
    return ImageBatch(images, torch.arange(len(images)))


def fitted(model: PatchCore, images: Tensor, batch_size: int = 4) -> PatchCore:
    for part in images.split(batch_size):
        model.collect(batch_of(part))
    model.finish()
    return model.eval()


def blemished(image: int = 1, top: int = 16, left: int = 72) -> Tensor:
    """Three normal images, one of them with a blemish of one cell."""
    images = scenes(3, seed=9)
    images[image, 2, top : top + CELL, left : left + CELL] += 0.4
    return images


# --- features -----------------------------------------------------------------------------------------------


def maps_of(features: PatchFeatures, images: Tensor) -> list[Tensor]:
    return list(features.network(features.normalise(images)))


def test_pooled_features_are_means_of_neighbourhoods() -> None:
    features = PatchFeatures(**TINY)
    images = scenes(2)
    first, second = maps_of(features, images)
    expected = torch.zeros(2, features.n_features, *first.shape[2:])
    pooled = [
        F.conv2d(m.flatten(0, 1)[:, None], torch.ones(1, 1, 3, 3) / 9, padding=1) for m in (first, second)
    ]
    expected[:, : first.shape[1]] = pooled[0].reshape(first.shape)
    deeper = pooled[1].reshape(second.shape)
    expected[:, first.shape[1] :] = F.interpolate(
        deeper, size=first.shape[2:], mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(features(images), expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize("aggregation", ["pooled", "published"])
def test_neighbourhood_may_run_along_the_rows(aggregation: str) -> None:
    """A change in one row reaches the patches of that row, however far, and of no other."""
    features = PatchFeatures(
        **{**TINY, "layers": ["layer1"]}, patch_size=[1, 9], aggregation=aggregation, embedding_dim=40
    )
    maps = torch.zeros(1, features.network.feature_info.channels()[-1], 5, 9)
    maps[0, :, 2, 0] = 1.0
    found = features._pooled(maps) if aggregation == "pooled" else features._published(maps)
    reached = found[0].abs().sum(dim=0) > 0  # (5, 9)
    expected = torch.zeros(5, 9, dtype=torch.bool)
    expected[2, :5] = True  # half of 9 to the right of the first column
    assert torch.equal(reached, expected)


def test_brightness_and_contrast_of_an_image_are_not_seen() -> None:
    features = PatchFeatures(**TINY, instance_norm=True)
    maps = torch.randn(2, 4, 6, 5)
    features.normalise = nn.Identity()
    features.network.forward = lambda images: [images]  # the map itself
    other = maps.clone()
    other[1] = 3.0 * other[1] + 7.0
    torch.testing.assert_close(features(other), features(maps), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(features(other), PatchFeatures(**TINY)._pooled(other).permute(0, 2, 3, 1))
    flat = features(torch.full((1, 4, 6, 5), 2.0))
    assert torch.equal(flat, torch.zeros_like(flat))  # not a division by a spread of 0


def test_published_features_are_those_of_the_papers_code() -> None:
    """Unfold, interpolate each element, then average down: in the order of the paper's code."""
    features = PatchFeatures(**TINY, aggregation="published", embedding_dim=40)
    images = scenes(2)
    maps = maps_of(features, images)
    h, w = maps[0].shape[2:]
    columns = []
    for part in maps:
        _, C, h_l, w_l = part.shape
        elements = F.unfold(part, 3, padding=1).reshape(2, C * 9, h_l, w_l)
        elements = F.interpolate(elements, size=(h, w), mode="bilinear", align_corners=False)
        columns.append(F.adaptive_avg_pool1d(elements.permute(0, 2, 3, 1).reshape(2 * h * w, 1, -1), 40))
    stacked = torch.stack(columns, dim=1).reshape(2 * h * w, 1, -1)
    expected = F.adaptive_avg_pool1d(stacked, 40).reshape(2, h, w, 40)
    torch.testing.assert_close(features(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_network_ends_with_the_last_layer(backbone: str) -> None:
    names = {"test_resnet": "layer", "test_efficientnet": "blocks.", "test_convnext": "stages."}
    number = 1
    shallow = PatchFeatures(backbone=backbone, layers=[f"{names[backbone]}{number}"], weights="random")
    deep = PatchFeatures(backbone=backbone, layers=[f"{names[backbone]}{number + 1}"], weights="random")
    sizes = [sum(p.numel() for p in part.parameters()) for part in (shallow, deep)]
    assert 0 < sizes[0] < 0.7 * sizes[1]


def test_unknown_layer_names_the_possible_ones() -> None:
    with pytest.raises(
        ValueError, match=r"layers=\['layer9'\] of test_resnet: choose from .*layer1, layer2, "
    ):
        PatchCore(**{**TINY, "layers": ["layer9"]})
    with pytest.raises(ValueError, match=r"layers=\[\] of test_resnet"):
        PatchCore(**{**TINY, "layers": []})


def test_order_of_the_layers_does_not_matter() -> None:
    torch.manual_seed(0)
    one = PatchFeatures(**TINY)
    torch.manual_seed(0)
    other = PatchFeatures(**{**TINY, "layers": ["layer2", "layer1"]})
    assert torch.equal(one(scenes(1)), other(scenes(1)))


def test_network_stays_frozen_in_training() -> None:
    model = PatchCore(**TINY).train()
    before = {name: value.clone() for name, value in model.features.state_dict().items()}
    alone = model.features(scenes(1))
    together = model.features(torch.cat([scenes(1), 5.0 * scenes(1)]))
    torch.testing.assert_close(together[:1], alone)  # no statistics of a batch
    assert all(torch.equal(value, before[name]) for name, value in model.features.state_dict().items())
    assert [*model.trainable("train")] == []
    assert not any(parameter.requires_grad for parameter in model.parameters())


# --- finding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("top", "left"), [(16, 72), (48, 0), (0, 88)])
def test_blemish_is_found_where_it_is(top: int, left: int) -> None:
    model = fitted(made(smoothing=2.0), scenes(12))
    scores = model.score(blemished(1, top, left))
    assert scores.map.shape == (3, 64, 96)
    assert scores.image.argmax() == 1
    assert scores.image[1] > 1.5 * scores.image[[0, 2]].max()
    y, x = divmod(int(scores.map[1].argmax()), 96)
    assert top <= y < top + CELL
    assert left <= x < left + CELL


def test_a_real_network_finds_it_too() -> None:
    torch.manual_seed(0)
    model = fitted(PatchCore(**TINY, smoothing=2.0), scenes(12))
    images = scenes(3, seed=9)
    images[1, :, 16:32, 64:80] = torch.rand(3, 16, 16).round()
    scores = model.score(images)
    y, x = divmod(int(scores.map[1].argmax()), 96)
    assert scores.image.argmax() == 1
    assert 12 <= y < 36
    assert 60 <= x < 84


def test_images_may_have_another_size_than_those_of_training() -> None:
    model = fitted(PatchCore(**TINY), scenes(4))
    assert model.score(scenes(2, 51, 39)).map.shape == (2, 51, 39)


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    model = fitted(made(), scenes(12))
    images = blemished()
    together = model.score(images)
    for index in range(3):
        alone = model.score(images[index : index + 1])
        torch.testing.assert_close(together.map[index], alone.map[0])
        torch.testing.assert_close(together.image[index], alone.image[0])


def by_hand(model: PatchCore, image: Tensor, k: int, b: int) -> tuple[Tensor, Tensor]:
    """Scores (h, w) of the patches and () of an image, by the formula of the paper, in double precision."""
    bank = model.bank.double() * model.spread + model.origin
    rows = model.features(image[None]).double()  # (1, h, w, D)
    _, h, w, _ = rows.shape
    distances = torch.cdist(rows.flatten(0, 2), bank, compute_mode="donot_use_mm_for_euclid_dist")
    patches = distances.topk(k, dim=1, largest=False).values.mean(dim=1)
    at = int(patches.argmax())
    nearest = int(distances[at].argmin())
    around = torch.cdist(bank[nearest : nearest + 1], bank)[0].topk(b, largest=False).indices
    weight = 1 - distances[at, nearest].exp() / distances[at, around].exp().sum() if b > 1 else 1.0
    return patches.reshape(h, w), weight * patches[at]


@pytest.mark.parametrize(("k", "b"), [(1, 9), (1, 1), (3, 4)])
def test_scores_are_those_of_the_paper(k: int, b: int) -> None:
    model = fitted(made(n_neighbours=k, reweight_neighbours=b, smoothing=0.0), scenes(12))
    images = blemished()
    found = model.score(images)
    for index in range(3):
        patches, image = by_hand(model, images[index], k, b)
        resized = F.interpolate(patches[None, None], size=(64, 96), mode="bilinear")[0, 0]
        torch.testing.assert_close(found.map[index], resized.float(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.image[index], image.float(), rtol=1e-3, atol=0)
    assert b == 1 or not torch.allclose(found.image, model.score(images).map.amax(dim=(1, 2)), rtol=0.01)


def test_a_place_counts_as_much_as_its_weight_says() -> None:
    """A patch that looks as patches elsewhere do is odd only where places count, and by as much as they do."""

    class Colours(Cells):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * (torch.arange(self.n_features) < self.n_features - 2)

    half = torch.zeros(1, 3, 64, 96)
    half[:, :, 32:] = 1.0
    wrong = half.clone()
    wrong[:, :, 8:16, 40:48] = 1.0  # bright, as the lower half is: three cells above its nearest row
    scores = []
    for weight in (0.0, 2.0):
        model = made(position_weight=weight, coreset_ratio=1.0, smoothing=0.0, reweight_neighbours=1)
        model.features = Colours(model.features.n_features)
        fitted(model, half)
        scores.append(model.score(torch.cat([half, wrong])).image / model.spread)
    assert (scores[0] < 0.01).all()
    torch.testing.assert_close(scores[1], torch.tensor([0.0, 2.0 * 3 / 8]), rtol=0.01, atol=0.01)


def test_share_of_the_patches_makes_the_score_of_an_image() -> None:
    """What is faint and large outranks what is bright and small."""
    images = scenes(3, seed=9)
    images[1, 2, 16:24] += 0.25  # a row of 12 patches
    images[2, 2, 40:48, 40:48] += 0.5  # one patch
    worst = fitted(made(), scenes(12)).score(images).image
    model = fitted(made(image_share=0.125, smoothing=0.0), scenes(12))
    shared = model.score(images)
    assert worst.argmax() == 2
    assert shared.image.argmax() == 1
    for index in range(3):
        patches, _ = by_hand(model, images[index], 1, 1)
        torch.testing.assert_close(
            shared.image[index], patches.flatten().topk(12).values.mean().float(), rtol=1e-4, atol=0
        )


def test_weights_do_not_overflow() -> None:
    model = fitted(made(scale=1e4), scenes(6))
    scores = model.score(blemished())
    assert torch.isfinite(scores.image).all()
    assert scores.image.argmax() == 1


def test_memory_of_one_patch_still_scores() -> None:
    model = fitted(made(coreset_size=1), scenes(2))
    assert len(model.bank) == 1
    assert (model.score(blemished()).image > 0).all()  # alone, the nearest entry would weigh 0


def test_copies_in_memory_do_no_harm() -> None:
    model = fitted(made(coreset_ratio=1.0, coreset="random"), scenes(1).repeat(12, 1, 1, 1))
    scores = model.score(blemished())
    assert torch.isfinite(scores.image).all()
    assert scores.image.argmax() == 1


@pytest.mark.parametrize("size", [(64, 96), (5, 7), (3, 2)])
@pytest.mark.parametrize("sigma", [4.0, 1.3])
def test_map_is_interpolated_and_smoothed(size: tuple[int, int], sigma: float) -> None:
    maps = torch.rand(2, 8, 12)
    resized = F.interpolate(maps[:, None], size=size, mode="bilinear")[:, 0].numpy()
    expected = np.stack([gaussian_filter(one, sigma, mode="nearest", truncate=4.0) for one in resized])
    np.testing.assert_allclose(
        resized_and_smoothed(maps, size, sigma).numpy(), expected, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(resized_and_smoothed(maps, size, 0.0).numpy(), resized, rtol=1e-4, atol=1e-6)


# --- memory -------------------------------------------------------------------------------------------------


def test_fit_needs_little_more_than_the_features_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patchcore, "_SAMPLE", 200)
    monkeypatch.setattr(coreset, "_TILE_SIZE", 2**14)
    model = made(coreset_dim=16, coreset_ratio=0.01, aggregation="published", embedding_dim=256)
    n_patches, width = 80 * 8 * 12, model.features.n_features
    images = scenes(1)
    with LiveMemory() as memory:
        for _ in range(80):
            model.collect(batch_of(images))
        collected = memory.now
        refs = [weakref.ref(rows) for rows in model._collected]
        model.finish()
    assert collected < 1.1 * 2 * n_patches * width  # float32 would be twice as much
    assert memory.peak < 1.5 * 2 * n_patches * width  # joining them would be twice as much, too
    assert memory.now < 0.1 * 2 * n_patches * width
    assert model._collected == []
    assert all(ref() is None for ref in refs)


def test_memory_is_limited_whatever_the_number_of_images() -> None:
    sizes = [len(fitted(made(coreset_size=30), scenes(n)).bank) for n in (2, 4, 20)]
    assert sizes == [20, 30, 30]  # a tenth of 2 * 96 patches, then the limit
    assert len(fitted(made(coreset_ratio=0.5), scenes(1)).bank) == 48


@pytest.mark.parametrize("method", ["greedy", "random"])
def test_memory_is_of_training_patches(method: str) -> None:
    model, images = made(coreset=method), scenes(6)
    fitted(model, images)
    bank = model.bank.float() * model.spread + model.origin
    rows = model.features(images).flatten(0, 2)
    assert torch.cdist(bank, rows).amin(dim=1).max() < 2e-3
    assert len(model.bank.unique(dim=0)) == len(model.bank) == 58


def test_batches_of_training_hardly_matter() -> None:
    images = scenes(12)
    one, other = fitted(made(), images, batch_size=12), fitted(made(), images, batch_size=5)
    a, b = (model.score(blemished()).image for model in (one, other))
    torch.testing.assert_close(a, b, rtol=0.05, atol=0)


@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0.0), (1e5, 0.0), (1.0, 300.0), (1.0, 0.0)])
def test_half_precision_is_enough_whatever_the_scale(scale: float, offset: float) -> None:
    drawn = {
        "reweight_neighbours": 1,
        "coreset": "random",
        "coreset_ratio": 0.3,
    }  # the same patches each time
    model = fitted(made(scale, offset, **drawn), scenes(12))
    plain = fitted(made(**drawn), scenes(12))
    found, expected = (one.score(blemished()).map / one.spread for one in (model, plain))
    torch.testing.assert_close(found, expected, rtol=0.01, atol=1e-3)


def test_fresh_object_with_the_same_state_scores_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(PatchCore(**TINY), scenes(6))
    fresh = PatchCore(**{**TINY, "weights": None}).eval()
    fresh.load_state_dict(model.state_dict())
    images = blemished()
    for one, other in zip(fresh.score(images), model.score(images), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(fresh.loss(batch_of(images))["loss"], model.loss(batch_of(images))["loss"])
    small = fitted(PatchCore(**TINY), scenes(1))
    fresh.load_state_dict(small.state_dict())  # of another size than what is there
    assert torch.equal(fresh.bank, small.bank)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_loaded_memory_can_be_added_to(weight: float) -> None:
    model = fitted(made(coreset_dim=8, position_weight=weight), scenes(6))
    fresh = made(coreset_dim=8, position_weight=weight)
    fresh.load_state_dict(model.state_dict())
    other = scenes(2).flip(3)
    assert fresh.partial_fit(other) == model.partial_fit(other) > 0
    assert torch.equal(fresh.bank, model.bank)


# --- more images --------------------------------------------------------------------------------------------


def test_only_what_is_new_is_added() -> None:
    model = fitted(made(), scenes(12))
    before = len(model.bank)
    assert model.partial_fit(scenes(12)) == 0
    new = scenes(4).flip(3)  # colours where they never were
    worse, loss = model.score(new).image, model.loss(batch_of(scenes(2, seed=5)))["loss"]
    added = model.partial_fit(new)
    assert 5 < added < 4 * 96
    assert len(model.bank) == before + added
    assert (model.score(new).image < 0.5 * worse).all()
    assert model.loss(batch_of(scenes(2, seed=5)))["loss"] <= 1.01 * loss
    assert model.partial_fit(new) == 0


def test_full_memory_says_what_to_do() -> None:
    model = fitted(made(coreset_size=30), scenes(12))
    with pytest.raises(TocsinError, match=r"set model\.coreset_size above 30"):
        model.partial_fit(scenes(1).flip(3))
    model.coreset_size = 33
    assert model.partial_fit(scenes(1).flip(3)) == 3


@pytest.mark.parametrize("use", [PatchCore.score, PatchCore.partial_fit])
def test_without_training_there_is_one_clear_line(
    use: Callable[[PatchCore, Tensor], ImageScores | int],
) -> None:
    with pytest.raises(TocsinError, match="remembers nothing yet: train it, or load"):
        use(made(), scenes(1))
    with pytest.raises(TocsinError, match="saw no training images"):
        made().finish()


# --- loss and precision -------------------------------------------------------------------------------------


def test_loss_is_the_mean_score_whatever_the_scale_of_the_features() -> None:
    normal, wrong = scenes(4, seed=5), blemished()
    losses = []
    for scale in (1.0, 100.0):
        model = fitted(made(scale, reweight_neighbours=1), scenes(12))
        loss = model.loss(batch_of(normal))["loss"]
        torch.testing.assert_close(loss, model.score(normal).image.mean() / model.spread)
        assert model.loss(batch_of(wrong))["loss"] > 1.2 * loss
        losses.append(float(loss))
    assert 0.01 < losses[0] < 1.0
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_bfloat16_features_are_compared_in_full_precision() -> None:
    options = {**TINY, "coreset_dim": 8, "coreset": "random"}
    images, plain = blemished(), fitted(PatchCore(**options), scenes(6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model = PatchCore(**options)
        model.features.load_state_dict(plain.features.state_dict())
        scores = fitted(model, scenes(6)).score(images)
        rows = model.features(images).flatten(0, 2)
        projected = model._projected(rows)
    assert torch.equal(projected, model._projected(rows))
    assert scores.map.dtype == scores.image.dtype == torch.float32
    assert (model.axes.T @ model.axes - torch.eye(8)).abs().max() < 1e-4
    torch.testing.assert_close(scores.image, plain.score(images).image, rtol=0.1, atol=0)


def test_fit_logs_what_it_chooses(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        fitted(made(), scenes(2))
    assert "choosing 20 of 192 patches (greedy coreset)" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aggregation": "mean"}, "aggregation='mean' is not one of 'pooled', 'published'"),
        ({"patch_size": 2}, "patch_size=2 is not odd"),
        ({"patch_size": [1, 4]}, r"patch_size=\[1, 4\] is not odd"),
        ({"patch_size": [1, 3, 5]}, r"patch_size=\[1, 3, 5\] is not odd"),
        ({"position_weight": -1.0}, "position_weight=-1.0 is not at least 0"),
        ({"image_share": 1.5}, r"image_share=1.5 is not in \[0, 1\]"),
        ({"embedding_dim": 0}, "embedding_dim=0 is not at least 1"),
        ({"coreset": "best"}, "coreset='best' is not one of 'greedy', 'random'"),
        ({"coreset_ratio": 0.0}, r"coreset_ratio=0.0 is not in \(0, 1\]"),
        ({"coreset_size": 0}, "coreset_size=0 is not at least 1"),
        ({"coreset_dim": -1}, "coreset_dim=-1 is not at least 1, or null"),
        ({"n_neighbours": 0}, "n_neighbours=0 is not at least 1"),
        ({"reweight_neighbours": 0}, "reweight_neighbours=0 is not at least 1"),
        ({"smoothing": -1.0}, "smoothing=-1.0 is not at least 0"),
    ],
)
def test_error_says_what_is_possible(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchCore(**{**TINY, **changes})
