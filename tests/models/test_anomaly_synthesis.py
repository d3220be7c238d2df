import pytest
import torch
from torch import Tensor

from tocsin.models.anomaly_synthesis import AnomalySynthesis, Synthetic
from tocsin.models.textures import TextureBank

SIZE = (32, 48)


def synthesis(**changes: object) -> AnomalySynthesis:
    bank = TextureBank(source="procedural", directory=None, n=14)
    bank.fill(images(2))
    options = {"anomaly": "perlin", "probability": 0.5, "amplitude": 0.3, "rotation": 0.0, "bank": bank}
    return AnomalySynthesis(**{**options, **changes})


def images(n: int) -> Tensor:
    return torch.rand(n, 3, *SIZE, generator=torch.Generator().manual_seed(n))


def seeds(n: int, start: int = 0) -> Tensor:
    return torch.arange(start, start + n)


def has_anomaly(made: Synthetic) -> Tensor:
    return made.mask.flatten(1).any(dim=1)


@pytest.mark.parametrize("anomaly", ["perlin", "cutpaste", "mixed"])
def test_half_of_the_images_stay_as_they_are_and_the_rest_changes_in_its_mask_alone(anomaly: str) -> None:
    x = images(400)
    made = synthesis(anomaly=anomaly)(x, seeds(400))
    changed = (made.image != x).any(dim=1)
    assert not (changed & ~made.mask).any()
    assert float(changed[made.mask].float().mean()) > 0.95
    share = float(has_anomaly(made).float().mean())
    assert (0.34 if anomaly == "perlin" else 0.4) < share < 0.57  # a mask may be empty
    assert torch.equal(made.clean, x)
    assert torch.equal(made.amplitude > 0, has_anomaly(made))  # an empty mask is a normal image


def test_opacity_is_between_a_fifth_and_one() -> None:
    """The blend is I + opacity (A - I): on black images with a white texture it can be read off."""
    made_by = synthesis(probability=1.0)
    made_by.bank.pixels.fill_(255)
    made_by.bank.cumulative[:] = (torch.arange(256) == 255).float()
    made = made_by(torch.zeros(500, 3, *SIZE), seeds(500))
    odd = has_anomaly(made)
    peak = made.image.amax(dim=(1, 2, 3))
    assert (peak[odd] <= made.amplitude[odd] + 1e-6).all()
    whole = odd & ((peak - made.amplitude).abs() < 1e-6)  # those whose texture was not darkened
    assert float(whole.float().mean()) > 0.1
    opacity = made.amplitude[odd]
    assert 0.2 <= float(opacity.min()) < 0.23
    assert 0.97 < float(opacity.max()) <= 1.0
    assert float(opacity.mean()) == pytest.approx(0.6, abs=0.03)


def test_strips_are_added_at_their_amplitude_and_not_cut_off() -> None:
    x = 2.0 + images(300)  # beyond 1, as maps of floats may be
    made = synthesis(anomaly="cutpaste", probability=1.0, amplitude=0.5)(x, seeds(300))
    peak = (made.image - x).amax(dim=(1, 2, 3))
    torch.testing.assert_close(peak, 0.5 * made.amplitude, atol=1e-5, rtol=0)
    assert float(made.amplitude.mean()) == pytest.approx(0.5, abs=0.06)
    assert float(made.image.max()) > 3.2


def test_values_beyond_one_are_left_alone_outside_textures() -> None:
    x = 5.0 * images(50)
    made = synthesis(probability=1.0)(x, seeds(50))
    outside = ~made.mask[:, None].expand_as(x)
    assert torch.equal(made.image[outside], x[outside])


def test_an_image_where_nothing_is_stays_normal() -> None:
    made = synthesis(anomaly="cutpaste", probability=1.0)(torch.zeros(20, 3, *SIZE), seeds(20))
    assert not made.mask.any()
    assert not made.amplitude.any()


def test_anomalies_are_a_function_of_the_seed_whatever_the_batch() -> None:
    made_by, x = synthesis(anomaly="mixed", rotation=0.5), images(30)
    whole = made_by(x, seeds(30))
    torch.manual_seed(1)
    parts = [made_by(part, seed) for part, seed in zip(x.split(7), seeds(30).split(7), strict=True)]
    torch.testing.assert_close(torch.cat([part.image for part in parts]), whole.image)
    assert torch.equal(torch.cat([part.mask for part in parts]), whole.mask)
    assert not torch.equal(made_by(x, seeds(30, 30)).mask, whole.mask)


def test_anomalies_do_not_depend_on_the_precision() -> None:
    made_by, x = synthesis(), images(8)
    expected = made_by(x, seeds(8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made_by(x, seeds(8))
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(found.image, expected.image)


def test_amplitude_can_be_set() -> None:
    x = images(40)
    for anomaly in ("perlin", "cutpaste"):
        made_by = synthesis(anomaly=anomaly)
        assert torch.equal(made_by(x, seeds(40), torch.zeros(40)).image, x)
        weak, strong = (made_by(x, seeds(40), torch.full((40,), size)) for size in (0.25, 1.0))
        assert torch.equal(weak.mask, strong.mask)
        torch.testing.assert_close(4 * (weak.image - x), strong.image - x, atol=1e-5, rtol=0)


def test_turned_images_are_turned_in_both_pictures_and_only_if_asked() -> None:
    x = images(200)
    made = synthesis(rotation=0.3)(x, seeds(200))
    turned = (made.clean != x).flatten(1).any(dim=1)
    assert 0.2 < float(turned.float().mean()) < 0.4
    outside = ~made.mask[:, None].expand_as(x)
    assert torch.equal(made.image[outside], made.clean[outside])


def test_kinds_can_be_mixed() -> None:
    x = images(300)
    made = synthesis(anomaly="mixed", probability=1.0)(x, seeds(300))
    area = made.mask.flatten(1).sum(dim=1)
    rectangular = made.mask.any(dim=2).sum(dim=1) * made.mask.any(dim=1).sum(dim=1) == area
    assert 0.35 < float((rectangular & (area > 3)).float().mean()) < 0.65


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"anomaly": "hole"}, "anomaly='hole' is not one of 'perlin', 'cutpaste', 'mixed'"),
        ({"probability": 0.0}, r"probability=0.0 is not in \(0, 1\]"),
        ({"amplitude": 0.0}, "amplitude=0.0 is not greater than 0"),
        ({"rotation": 1.5}, r"rotation=1.5 is not in \[0, 1\]"),
    ],
)
def test_error_says_what_is_possible(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthesis(**changes)


def test_an_empty_bank_is_an_error_where_textures_are_needed() -> None:
    empty = TextureBank(source="procedural", directory=None, n=14)
    with pytest.raises(RuntimeError, match="call prepare with training batches first"):
        synthesis(bank=empty)(images(2), seeds(2))
    assert synthesis(bank=empty, anomaly="cutpaste", probability=1.0)(images(2), seeds(2)).mask.any()
