"""What happens to a picture between a printed patch and a detector: JPEG, blur, light.

A patch that fails when a camera compresses or blurs a little is a small threat; a corruption that undoes it is the
cheapest defence. Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (ICLR 2019), name the kinds. Here each has one strength in its own unit, so that a curve over it can be
read.
"""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tocsin.errors import ConfigError

_REACH = 4.0  # standard deviations on each side of a Gaussian; what lies beyond is below 1e-4


def jpeg(images: Tensor, *, quality: int) -> Tensor:
    """Images written as JPEG and read again, with halved resolution of colours as cameras do.

    The codec works on single images on the CPU: a loop that no other library avoids, for evaluation only. It has no
    gradient.

    Args:
        images: (B, 3, H, W) float in [0, 1], RGB.
        quality: From 1, very coarse, to 100.

    Returns:
        (B, 3, H, W) in [0, 1], multiples of 1/255, on the same device and of the same type.

    Raises:
        ConfigError: The quality is out of range.
    """
    if not 1 <= quality <= 100:
        raise ConfigError(f"JPEG quality {quality} is not in 1 to 100")
    pixels = (images.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)  # (B, H, W, 3)
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        int(quality),
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    read = np.empty(pixels.shape, dtype=np.uint8)
    for index, image in enumerate(pixels.cpu().numpy()):
        _, written = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), options)  # OpenCV wants BGR
        read[index] = np.asarray(cv2.imdecode(written, cv2.IMREAD_COLOR))[..., ::-1]
    back = torch.from_numpy(read).permute(0, 3, 1, 2)  # (B, 3, H, W)
    return back.to(device=images.device, dtype=images.dtype) / 255


def blur(images: Tensor, *, sigma: float) -> Tensor:
    """Images under a Gaussian blur; the border is mirrored, so that it gets no darker.

    Args:
        images: (B, 3, H, W) float.
        sigma: Standard deviation in pixels, 0 for none.

    Returns:
        (B, 3, H, W) in the range of the input.

    Raises:
        ConfigError: Sigma is negative, or so large that the blur reaches beyond the mirrored image.
    """
    if sigma < 0:
        raise ConfigError(f"blur of {sigma} pixels is negative")
    reach = int(np.ceil(_REACH * sigma))
    if reach == 0:
        return images
    C, H, W = images.shape[1:]
    if reach >= min(H, W):
        raise ConfigError(f"blur of {sigma} pixels is too strong for images of {H} x {W}: lower it")
    steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.softmax(-steps.square() / (2 * sigma**2), dim=0)
    across = kernel.expand(C, 1, 1, -1)  # (C, 1, 1, K)
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(padded, across, groups=C), across.mT, groups=C)


def brightness(images: Tensor, *, factor: float) -> Tensor:
    """Images under other light: each value times the factor, cut at 1.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        factor: 1 changes nothing, below 1 is darker.

    Raises:
        ConfigError: The factor is negative.
    """
    if factor < 0:
        raise ConfigError(f"brightness factor {factor} is negative")
    return (images * factor).clamp(0, 1)


def corrupt(images: Tensor, *, kind: str, strength: float) -> Tensor:
    """Images under one kind of corruption, by name, for a sweep.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        kind: `jpeg`, `blur` or `brightness`.
        strength: Quality, sigma in pixels, or factor.

    Raises:
        ConfigError: There is no such kind, or the strength is out of its range.
    """
    if kind == "jpeg":
        return jpeg(images, quality=round(strength))
    if kind == "blur":
        return blur(images, sigma=strength)
    if kind == "brightness":
        return brightness(images, factor=strength)
    raise ConfigError(f"corruption {kind!r} is not one of jpeg, blur, brightness")
