import time

import pytest
import torch
from torch import Tensor

from tocsin.batch import ImageBatch
from tocsin.models.draem import Draem, map_score
from tocsin.models.draem_networks import DiscriminativeNetwork, ReconstructiveNetwork, padded

PARAMETERS = {"draem": 97_422_725}  # of any height and width

SMALL_OPTIONS = {
    "draem": [
        "++model.recon_width=8",
        "++model.disc_width=8",
        "++model.n_textures=14",
        "++model.score=topk_mean",
        "++model.anomaly_probability=0.8",
    ]
}

TINY = {"recon_width": 2, "disc_width": 4, "n_textures": 14}


def images(n: int, *, seed: int = 0, size: tuple[int, int] = (32, 32)) -> Tensor:
    """Smooth pictures that differ in one number, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    y, x = (torch.arange(side) / side for side in size)
    level = 0.3 + 0.3 * torch.rand(n, 1, 1, generator=generator) * x + 0.2 * y[:, None]
    tint = torch.tensor([1.0, 0.8, 0.6])[:, None, None]
    return level[:, None] * tint + 0.002 * torch.randn(n, 3, *size, generator=generator)


def batch_of(x: Tensor, label: bool | None = None) -> ImageBatch:
    labels = None if label is None else torch.full((len(x),), label)
    return ImageBatch(x, torch.arange(len(x)), labels)


def tiny(size: tuple[int, int] = (32, 32), **changes: object) -> Draem:
    torch.manual_seed(0)
    model = Draem(**{**TINY, **changes})
    model.prepare([batch_of(images(16, size=size))])
    return model


# --- networks -----------------------------------------------------------------------------------------------


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_networks_have_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        counts = parameters(ReconstructiveNetwork()), parameters(DiscriminativeNetwork())
        assert sum(counts) == parameters(Draem()) == PARAMETERS["draem"]
    assert [round(count / 1e6, 2) for count in counts] == [69.05, 28.37]


def test_networks_have_the_published_channels_and_sizes() -> None:
    network = DiscriminativeNetwork(width=4)
    x = torch.rand(2, 3, 64, 96)
    logits, features = network(x, x)
    assert logits.shape == (2, 2, 64, 96)
    assert [(f.shape[1], *f.shape[2:]) for f in features] == [
        (4 * k, 64 // 2**i, 96 // 2**i) for i, k in enumerate((1, 2, 4, 8, 8, 8))
    ]
    painter = ReconstructiveNetwork(width=2)
    assert painter.encoder(x).shape == (2, 16, 4, 6)  # eight times as wide, at a sixteenth
    assert painter(x).shape == x.shape
    assert float(painter(x).detach().min()) < 0  # no activation at the end


def test_what_the_bottleneck_does_not_pass_is_not_painted() -> None:
    """The reconstructive network has no skip connections, the discriminative one has."""
    x = torch.rand(1, 3, 64, 64)
    painter, judge = ReconstructiveNetwork(width=2), DiscriminativeNetwork(width=4)
    with torch.no_grad():
        painter.encoder[-1].apply(lambda module: [p.zero_() for p in module.parameters()])
        assert torch.equal(painter(x), painter(x.flip(2)))
        judge.encoder[-1].apply(lambda module: [p.zero_() for p in module.parameters()])
        assert not torch.allclose(judge(x, x)[0], judge(x.flip(2), x)[0])


@pytest.mark.parametrize("size", [(31, 95), (32, 96), (5, 33), (1, 1)])
def test_images_are_mirrored_up_to_multiples_of_32(size: tuple[int, int]) -> None:
    x = torch.rand(1, 3, *size)
    whole = padded(x)
    assert all(
        side % 32 == 0 and 0 <= side - own < 32 for side, own in zip(whole.shape[2:], size, strict=True)
    )
    assert torch.equal(whole[..., : size[0], : size[1]], x)
    if size == (31, 95):
        assert torch.equal(whole, torch.nn.functional.pad(x, (0, 1, 0, 1), mode="reflect"))
    if size == (5, 33):
        assert torch.equal(
            whole[:, :, :17, :33], torch.cat([x, x[:, :, [3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1, 0]]], 2)
        )


# --- loss ---------------------------------------------------------------------------------------------------


def test_loss_is_the_sum_of_its_terms() -> None:
    terms = tiny().loss(batch_of(images(6)))
    assert sorted(terms) == ["focal", "loss", "mse", "ssim"]
    assert all(float(term.detach()) > 0 for term in terms.values())
    torch.testing.assert_close(terms["loss"], terms["mse"] + terms["ssim"] + terms["focal"])


def test_the_clean_image_is_what_is_to_be_painted() -> None:
    model = tiny(anomaly_probability=1.0, anomaly="cutpaste", amplitude=2.0)
    synthetic = model.synthetic(batch_of(images(6)))
    logits = torch.zeros(6, 2, 32, 32)
    perfect = model.losses(synthetic, synthetic.clean, logits)
    copied = model.losses(synthetic, synthetic.image, logits)
    assert float(perfect["mse"]) == 0
    assert float(perfect["ssim"]) == pytest.approx(0, abs=1e-5)
    assert float(copied["mse"]) > 0.003
    assert float(copied["ssim"]) > 0.003


def test_validation_loss_is_the_same_in_every_epoch_and_batch() -> None:
    model, batch = tiny().eval(), batch_of(images(8))
    with torch.no_grad():
        first = model.loss(batch)
        state = torch.get_rng_state()
        torch.rand(3)
        again = model.loss(batch)
        assert first == again
        torch.set_rng_state(state)
        model.loss(batch)
        assert torch.equal(torch.get_rng_state(), state)  # training draws what it would have drawn
        order = torch.tensor([5, 0, 7, 3, 1, 2, 6, 4])
        shuffled = model.loss(ImageBatch(batch.image[order], batch.position[order]))
        torch.testing.assert_close(shuffled["loss"], first["loss"])
        other = model.loss(batch._replace(position=batch.position + 8))
        assert not torch.allclose(other["focal"], first["focal"])
        assert model.synthetic(batch).mask.any()
    model.train()
    assert not torch.equal(model.synthetic(batch).mask, model.synthetic(batch).mask)


def test_labels_move_no_loss() -> None:
    model = tiny().eval()
    with torch.no_grad():
        assert model.loss(batch_of(images(4), True)) == model.loss(batch_of(images(4)))


def test_gradient_reaches_every_parameter() -> None:
    model = tiny(size=(64, 64))
    model.loss(batch_of(images(4, size=(64, 64))))["loss"].backward()
    dead = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_bfloat16_gives_a_finite_loss_in_full_precision() -> None:
    model = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model.loss(batch_of(images(4)))
        scores = model.eval().score(images(2))
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert scores.map.dtype == scores.image.dtype == torch.float32
    terms["loss"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_loss_before_prepare_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="call prepare with training batches first"):
        Draem(**TINY).loss(batch_of(images(2)))


# --- units --------------------------------------------------------------------------------------------------


def test_the_unit_of_the_images_does_not_matter() -> None:
    """Maps of floats may have any unit; those that exceed the typical largest value are not cut off."""
    x = images(8)
    model, scaled = tiny().eval(), Draem(**TINY).eval()
    scaled.load_state_dict(model.state_dict())
    scaled.prepare([batch_of(1_000 * images(16))])
    assert float(scaled.unit) == pytest.approx(1_000 * float(model.unit), rel=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(scaled.score(1_000 * x), model.score(x), rtol=1e-3, atol=1e-5)
        one, other = (float(m.loss(batch_of(k * x))["loss"]) for m, k in ((model, 1), (scaled, 1_000)))
        assert one == pytest.approx(other, rel=1e-2)
    bright = x.clone()
    bright[0, :, 3, 3] = 40.0
    assert float(model.synthetic(batch_of(bright)).clean.max()) == pytest.approx(
        40 / float(model.unit), rel=1e-4
    )


def test_one_hot_pixel_does_not_set_the_unit() -> None:
    x = images(16)
    x[3, 0, 5, 5] = 1e4
    model = Draem(**TINY)
    model.prepare([batch_of(x)])
    assert float(model.unit) < 1.0


# --- scores -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(31, 95), (64, 96), (40, 33)])
def test_scores_have_the_size_of_the_images(size: tuple[int, int]) -> None:
    model = tiny(size=size).eval()
    with torch.no_grad():
        scores = model.score(images(3, size=size))
        assert scores.map.shape == (3, *size)
        assert scores.image.shape == (3,)
        assert float(scores.map.min()) >= 0
        assert float(scores.map.max()) <= 1
        alone = torch.cat([model.score(image).map for image in images(3, size=size).split(1)])
        torch.testing.assert_close(scores.map, alone, rtol=1e-3, atol=1e-4)


def test_scores_of_images_are_what_their_names_say() -> None:
    spot = torch.zeros(1, 64, 64)
    spot[0, 20:30, 30:40] = 1.0
    lone = torch.zeros(1, 64, 64)
    lone[0, 5, 5] = 1.0
    assert float(map_score(spot, "avgpool_max")) == pytest.approx(100 / 21**2)
    assert float(map_score(lone, "avgpool_max")) == pytest.approx(1 / 21**2)
    assert float(map_score(spot, "topk_mean")) == 1.0
    assert float(map_score(lone, "topk_mean")) == pytest.approx(1 / 41)  # the highest 41 of 4096
    assert float(map_score(spot, "max")) == float(map_score(lone, "max")) == 1.0
    whole = torch.ones(2, 5, 5)
    assert float(map_score(whole, "avgpool_max")[0]) == pytest.approx(25 / 21**2)


def test_a_fresh_detector_with_the_weights_scores_and_learns_alike() -> None:
    model = tiny(texture_source="self")
    model.loss(batch_of(images(4)))  # moves statistics of batch normalisation
    torch.manual_seed(9)
    fresh = Draem(**TINY, texture_source="self").eval()
    x = images(3, seed=5)
    with torch.no_grad():
        assert not torch.equal(fresh.score(x).map, model.eval().score(x).map)
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(fresh.score(x).map, model.score(x).map)
        assert fresh.loss(batch_of(x)) == model.loss(batch_of(x))  # the same textures too


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recon_width": 0}, "recon_width=0 is not at least 1"),
        ({"disc_width": 0}, "disc_width=0 is not at least 1"),
        ({"score": "mean"}, "score='mean' is not one of 'avgpool_max', 'topk_mean', 'max'"),
        ({"anomaly": "hole"}, "anomaly='hole' is not one of"),
        ({"texture_source": "web"}, "texture_source='web' is not one of"),
    ],
)
def test_error_says_what_is_possible(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Draem(**{**TINY, **changes})


# --- learning -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_learns_to_tell_anomalies_from_clean_images() -> None:
    """A class weight of 0 for normal pixels would make everything anomalous, a lost gradient nothing."""
    model = tiny(disc_width=24, n_textures=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (300 - step) / 200)
        loss = model.loss(batch_of(images(16, seed=step)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    x = images(64, seed=1_000)
    with torch.no_grad():
        synthetic = model.synthetic(batch_of(x))
        clean, odd = model.score(x), model.score(synthetic.image * model.unit)
    assert float(clean.map.mean()) < 0.1
    assert float(odd.map[synthetic.mask].mean()) > 0.5
    has = synthetic.mask.flatten(1).any(dim=1)
    right = odd.image[has][:, None] > odd.image[~has]  # the area under the ROC curve
    assert float(right.float().mean()) > 0.9


def test_synthesis_costs_little_beside_a_step_of_narrow_networks() -> None:
    """As trained on two cores: maps of 32 by 96 pixels."""
    model, batch = tiny(size=(32, 96), recon_width=16, disc_width=16), batch_of(images(8, size=(32, 96)))

    def seconds(work: object) -> float:
        times = []
        for _ in range(2):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    step = seconds(lambda: model.loss(batch)["loss"].backward())
    assert seconds(lambda: model.synthetic(batch)) < 0.1 * step
