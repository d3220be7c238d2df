"""A defence to measure against: local gradients smoothing.

Naseer, Khan and Porikli, "Local Gradients Smoothing: Defense against Localized Adversarial Attacks" (WACV 2019),
section 3, with its symbols. A trained patch is full of strong edges, close together. Where the gradient is large in
the mean of a window, the image is darkened by as much as the gradient there; other windows are left alone. Nothing is
trained, and the detector stays as it is.

Our choices: the gradient is that of the mean of the colours; windows at the border are averaged over what lies
inside. The published options are for classifying single objects; on street scenes real texture is darkened too, so
the defence must be measured on clean images as well. It is a baseline: an attack can be trained through it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tocsin.models.checks import check_range


def gradient_size(images: Tensor) -> Tensor:
    """Length of the gradient of each pixel, as a share of the largest of its image.

    Args:
        images: (B, 3, H, W) float, any range.

    Returns:
        (B, 1, H, W) in [0, 1]: differences to the next pixel on the right and below, 0 beyond the border. All 0 for
        an image of one colour.
    """
    gray = images.mean(1, keepdim=True)  # (B, 1, H, W)
    right = F.pad(gray.diff(dim=3), (0, 1))
    down = F.pad(gray.diff(dim=2), (0, 0, 0, 1))
    tiny = torch.finfo(images.dtype).tiny
    size = (right.square() + down.square()).clamp(min=tiny).sqrt()  # the root has no gradient at 0
    low, high = size.amin((1, 2, 3), keepdim=True), size.amax((1, 2, 3), keepdim=True)
    return (size - low) / (high - low).clamp(min=tiny)


def busy_windows(size: Tensor, *, window: int, overlap: int, threshold: float) -> Tensor:
    """Pixels that lie in a window whose mean gradient exceeds the threshold.

    Args:
        size: (B, 1, H, W) in [0, 1].
        window: Side of a window in pixels.
        overlap: Pixels it shares with the next.
        threshold: Of the mean over the window.

    Returns:
        (B, 1, H, W) bool.
    """
    H, W = size.shape[-2:]
    stride = window - overlap
    # Windows that go beyond the border are averaged over their pixels in the image.
    inside = F.pad(torch.ones_like(size[:1]), _to_whole(H, W, window, stride))
    padded = F.pad(size, _to_whole(H, W, window, stride))
    mean = F.avg_pool2d(padded, window, stride) / F.avg_pool2d(inside, window, stride)  # (B, 1, h, w)
    busy = (mean > threshold).to(size.dtype)
    spread = F.conv_transpose2d(busy, size.new_ones(1, 1, window, window), stride=stride)
    return spread[..., :H, :W] > 0


def smooth_local_gradients(
    images: Tensor,
    *,
    window: int = 15,
    overlap: int = 5,
    threshold: float = 0.1,
    smoothing: float = 2.3,
) -> Tensor:
    """Images with the windows of strong gradients darkened: x (1 - clip(lambda g, 0, 1)).

    Args:
        images: (B, 3, H, W) float in [0, 1].
        window: Side of a window in pixels (k).
        overlap: Pixels that neighbouring windows share (o).
        threshold: Mean gradient from which a window is suppressed (gamma), as a share of the largest of the image.
        smoothing: How strongly (lambda); 0 changes nothing.

    Returns:
        (B, 3, H, W) in [0, 1]; differentiable, so that an attack can be trained through it.

    Raises:
        ValueError: An option is out of range.
    """
    check_range("window", window, window >= 1, "a positive number of pixels")
    check_range("overlap", overlap, 0 <= overlap < window, f"from 0 to window - 1 = {window - 1}")
    check_range("threshold", threshold, 0 <= threshold <= 1, "in [0, 1]")
    check_range("smoothing", smoothing, smoothing >= 0, "0 or more")
    size = gradient_size(images)
    busy = busy_windows(size.detach(), window=window, overlap=overlap, threshold=threshold)
    return images * (1 - (smoothing * size * busy).clamp(0, 1))


def _to_whole(height: int, width: int, window: int, stride: int) -> tuple[int, int, int, int]:
    """Pixels to add on the left, right, top and bottom so that whole windows cover an image."""
    down, across = (
        max(0, -(-(side - window) // stride)) * stride + window - side for side in (height, width)
    )
    return 0, across, 0, down
