"""The baseline for images against numpy and scipy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from tocsin.batch import ImageBatch
from tocsin.errors import DataError
from tocsin.models.pixel_gaussian import PixelGaussian, gaussian_weights

PARAMETERS = {"pixel_gaussian": 0}
H, W = 24, 40


def draw(batch: int, seed: int = 0) -> Tensor:
    """Images whose pixels have means and spreads of their own."""
    place = torch.Generator().manual_seed(99)
    mean, spread = torch.rand(2, 3, H, W, generator=place)
    noise = torch.randn(batch, 3, H, W, generator=torch.Generator().manual_seed(seed))
    return mean + (0.05 + 0.1 * spread) * noise


def batch_of(images: Tensor) -> ImageBatch:
    return ImageBatch(images, torch.arange(len(images)))


def fitted(images: Tensor, *, batch: int = 7, **options: float) -> PixelGaussian:
    detector = PixelGaussian(height=images.shape[2], width=images.shape[3], **options)
    for part in images.split(batch):
        detector.collect(batch_of(part))
    detector.finish()
    return detector.eval()


@pytest.mark.parametrize("batch", [1, 7, 30])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_mean_and_spread_are_those_of_all_images_at_once(batch: int, shift: float) -> None:
    images = draw(30) + shift
    detector = fitted(images, batch=batch, floor=0.0)
    whole = images.double().numpy()
    np.testing.assert_allclose(detector.mean, whole.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(detector.std, whole.std(axis=0), rtol=1e-5)


def test_score_is_the_smoothed_distance_and_the_mean_of_the_highest() -> None:
    train, new = draw(30), draw(4, seed=1)
    detector = fitted(train, sigma=1.5, top=0.05)
    maps, scores = detector.score(new)
    whole = train.double().numpy()
    distance = np.abs((new.numpy() - whole.mean(axis=0)) / whole.std(axis=0)).mean(axis=1)
    inner = slice(6, -6)  # scipy goes on with other values beyond the border
    expected = gaussian_filter(distance, (0, 1.5, 1.5), truncate=10)
    np.testing.assert_allclose(maps[:, inner, inner], expected[:, inner, inner], rtol=1e-4)
    highest = np.sort(maps.numpy().reshape(4, -1))[:, -48:]  # 5 % of 960 pixels
    np.testing.assert_allclose(scores, highest.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(detector.loss(batch_of(new))["loss"], distance.mean(), rtol=1e-4)


@pytest.mark.parametrize("sigma", [0.0, 0.7, 8.0])
def test_smoothing_keeps_a_constant_at_the_border_too(sigma: float) -> None:
    weights = gaussian_weights(11, sigma)
    torch.testing.assert_close(weights @ torch.ones(11), torch.ones(11))
    assert torch.equal(gaussian_weights(11, 0.0), torch.eye(11))


def test_a_defect_is_found_where_pixels_hardly_vary_and_noise_is_not_where_they_do() -> None:
    train = torch.full((20, 3, H, W), 0.5) + 0.01 * torch.randn(
        20, 3, H, W, generator=torch.Generator().manual_seed(0)
    )
    train[:, :, :, 30:] += 0.3 * torch.rand(20, 1, 1, 10, generator=torch.Generator().manual_seed(1))
    new = train[:2].clone()
    new[0, :, 4:8, 4:8] += 0.1
    new[1, :, 4:8, 32:36] += 0.1
    maps, scores = fitted(train).score(new)
    assert scores[0] > 2 * scores[1]
    assert divmod(int(maps[0].argmax()), W) == (pytest.approx(5.5, abs=2), pytest.approx(5.5, abs=2))


def test_a_background_that_never_changes_does_not_drown_a_defect() -> None:
    train = draw(20)
    train[:, :, :, :8] = 1.0  # as a scanner's white
    new = draw(1, seed=3)
    new[:, :, :, :8] = 1.0
    new[0, 0, 3, 3] -= 1e-3  # a speck of a third of a grey level
    maps = fitted(train, sigma=0.0).score(new).map
    assert maps[0, 3, 3] < 0.5 * maps[0, :, 8:].max()


def test_images_all_alike_are_learned_without_a_division_by_zero() -> None:
    train = torch.full((3, 3, H, W), 0.25)
    maps, scores = fitted(train).score(train)
    assert (maps == 0).all()
    assert (scores == 0).all()


def test_a_fresh_detector_with_its_state_scores_alike() -> None:
    detector, new = fitted(draw(20)), draw(3, seed=1)
    fresh = PixelGaussian(height=H, width=W).eval()
    assert not torch.equal(fresh.score(new).map, detector.score(new).map)
    fresh.load_state_dict(detector.state_dict())
    assert torch.equal(fresh.score(new).map, detector.score(new).map)
    assert torch.equal(fresh.score(new).image, detector.score(new).image)
    assert set(detector.state_dict()) == {"mean", "std"}


def test_autocast_rounds_nothing() -> None:
    detector, new = fitted(draw(20)), draw(3, seed=1)
    plain = detector.score(new)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = detector.score(new)
    assert mixed.map.dtype == torch.float32
    assert torch.equal(mixed.map, plain.map)


def test_a_second_fit_starts_afresh() -> None:
    detector = fitted(draw(20))
    for part in (draw(10, seed=5), draw(10, seed=6)):
        detector.collect(batch_of(part))
    detector.finish()
    assert torch.equal(detector.mean, fitted(torch.cat([draw(10, seed=5), draw(10, seed=6)]), batch=10).mean)


def test_what_cannot_be_learned_or_scored_is_named() -> None:
    detector = PixelGaussian(height=H, width=W)
    detector.collect(batch_of(draw(1)))
    with pytest.raises(DataError, match="1 training images: a standard deviation needs at least two"):
        detector.finish()
    with pytest.raises(ValueError, match=r"images of shape \(2, 3, 8, 8\), but .* \(B, 3, 24, 40\)"):
        detector.score(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"sigma": -1.0}, "sigma=-1.0 is not 0 or more pixels"),
        ({"top": 0.0}, r"top=0.0 is not a share in \(0, 1\]"),
        ({"floor": 2.0}, r"floor=2.0 is not a share in \[0, 1\]"),
    ],
)
def test_options_outside_their_range_are_named(option: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelGaussian(height=H, width=W, **option)
