import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor

from tocsin.models.image_losses import focal_loss, ssim_loss, ssim_map


def logits_and_mask(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 2, 6, 7, generator=generator)
    return logits, torch.rand(2, 6, 7, generator=generator) < 0.3


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_focal_loss_is_its_formula(gamma: float) -> None:
    logits, mask = logits_and_mask()
    odds = np.exp(logits.double().numpy())
    p = np.where(mask, odds[:, 1], odds[:, 0]) / odds.sum(axis=1)
    expected = (-((1 - p) ** gamma) * np.log(p)).mean()
    assert float(focal_loss(logits, mask, gamma=gamma)) == pytest.approx(expected, rel=1e-5)


def test_background_alone_gives_a_gradient() -> None:
    """With a class weight of 0 for normal pixels, "all is anomalous" would cost nothing."""
    logits = logits_and_mask()[0].requires_grad_()
    focal_loss(logits, torch.zeros(2, 6, 7, dtype=torch.bool)).backward()
    assert logits.grad is not None
    assert (logits.grad.abs() > 0).all()
    assert (logits.grad[:, 1] > 0).all()  # descent lowers the anomalous logit


def test_both_classes_weigh_the_same() -> None:
    logits, mask = logits_and_mask()
    torch.testing.assert_close(focal_loss(logits, mask), focal_loss(logits.flip(1), ~mask))


def test_focal_loss_of_certainty_is_finite() -> None:
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]]).reshape(1, 2, 1, 2).requires_grad_()
    for mask in (torch.tensor([[[False, True]]]), torch.tensor([[[True, False]]])):
        loss = focal_loss(logits, mask)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
    assert float(focal_loss(logits.detach(), torch.tensor([[[False, True]]]))) == 0


def reference_ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The formula of the paper for one channel, with scipy's filters."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(image: np.ndarray) -> np.ndarray:
        rows = correlate1d(image, window, axis=0, mode="constant")
        return correlate1d(rows, window, axis=1, mode="constant")

    c1, c2 = 0.01**2, 0.03**2
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    return (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


def test_ssim_is_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 20, 17, generator=generator)
    y = (x + 0.3 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    found = ssim_map(x, y)
    for b in range(2):
        for c in range(3):
            expected = reference_ssim(x[b, c].double().numpy(), y[b, c].double().numpy())
            np.testing.assert_allclose(found[b, c], expected, atol=2e-4)
    assert float(ssim_loss(x, y)) == pytest.approx(1 - float(found.mean()))


def test_ssim_of_an_image_with_itself_is_one_and_falls_with_noise() -> None:
    x = torch.rand(1, 3, 24, 24)
    losses = [float(ssim_loss(x, x + size * torch.randn(x.shape))) for size in (0.0, 0.02, 0.1, 0.5)]
    assert losses[0] == pytest.approx(0, abs=1e-5)
    assert losses == sorted(losses)
    assert losses[-1] > 0.5


def test_losses_are_in_full_precision_under_autocast() -> None:
    logits, mask = logits_and_mask()
    x, y = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = focal_loss(logits, mask), ssim_loss(x, y)
    assert [loss.dtype for loss in inside] == [torch.float32] * 2
    assert inside == (focal_loss(logits, mask), ssim_loss(x, y))
