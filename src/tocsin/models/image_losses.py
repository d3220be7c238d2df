"""Losses between images, as pure functions, in full precision whatever autocast does.

SSIM: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004, with a
Gaussian window of 11 pixels. Focal loss: Lin et al., ICCV 2017, for two classes and without class weights: with a
weight of 1 for the anomalous class and so of 0 for the other, "all is anomalous" would be an optimum.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2  # for values with a range of about 1


def focal_loss(logits: Tensor, mask: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Mean of -(1 - p)^gamma log p over all pixels, p the probability of what is right there.

    Args:
        logits: (B, 2, H, W) float, of normal and anomalous.
        mask: (B, H, W) bool, true = anomalous.
        gamma: Focus on what is unlikely; 0 = cross-entropy.

    Returns:
        Scalar float32 >= 0, in nats.
    """
    with torch.autocast(logits.device.type, enabled=False):
        log_p = logits.float().log_softmax(dim=1)
        log_right = torch.where(mask, log_p[:, 1], log_p[:, 0])  # (B, H, W)
        return -((-torch.expm1(log_right)) ** gamma * log_right).mean()


def ssim_map(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity around each pixel; beyond the edges both are 0, as in DRAEM.

    Args:
        first: (B, C, H, W) float, values with a range of about 1.
        second: Like `first`.

    Returns:
        (B, C, H, W) float32, at most 1, which it is where both are the same.
    """
    with torch.autocast(first.device.type, enabled=False):
        x, y = first.float(), second.float()
        moments = torch.cat([x, y, x * x, y * y, x * y])  # (5 * B, C, H, W)
        mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blurred(moments).chunk(5)
        square_x, square_y, product = mean_x * mean_x, mean_y * mean_y, mean_x * mean_y
        luminance = (2 * product + _C1) / (square_x + square_y + _C1)
        variances = (mean_xx - square_x) + (mean_yy - square_y)
        return luminance * (2 * (mean_xy - product) + _C2) / (variances + _C2)


def ssim_loss(first: Tensor, second: Tensor) -> Tensor:
    """1 minus the mean structural similarity of (B, C, H, W) images: scalar float32, 0 if they are the same."""
    return 1.0 - ssim_map(first, second).mean()


def _blurred(images: Tensor) -> Tensor:
    """Weighted mean around each pixel of (B, C, H, W): the window is a product, so rows first, then columns."""
    offsets = torch.arange(_WINDOW, device=images.device, dtype=images.dtype) - _WINDOW // 2
    window = (-(offsets**2) / (2 * _SIGMA**2)).exp()
    window = window / window.sum()
    # As channels of one image, not as images of one channel: on a CPU, twenty to fifty times faster.
    n = images.shape[0] * images.shape[1]
    planes = images.reshape(1, n, *images.shape[2:])  # (1, B * C, H, W)
    down, across = window.reshape(1, 1, -1, 1), window.reshape(1, 1, 1, -1)
    rows = F.conv2d(planes, down.expand(n, 1, -1, 1), padding=(_WINDOW // 2, 0), groups=n)
    blurred = F.conv2d(rows, across.expand(n, 1, 1, -1), padding=(0, _WINDOW // 2), groups=n)
    return blurred.reshape(images.shape)
