"""Baseline for images: how many standard deviations a pixel is from its mean over the training images.

No paper: what a chart of control limits does for a machine, done for each pixel. It knows no texture and no shape,
and needs pictures taken from one place; a method that does not beat it has learned nothing.
"""

import torch
from torch import Tensor

from tocsin.batch import ImageBatch
from tocsin.errors import DataError
from tocsin.models.base import FitOnceDetector, ImageDetector, ImageScores
from tocsin.models.checks import check_range

_TINY = 1e-6


def gaussian_weights(size: int, sigma: float) -> Tensor:
    """(size, size) float32 weights that smooth a line of pixels; each row sums to 1, at the border too.

    Args:
        size: Pixels.
        sigma: Standard deviation in pixels; 0 leaves the line as it is.
    """
    if sigma == 0:
        return torch.eye(size)
    place = torch.arange(size, dtype=torch.float64)
    weights = torch.exp(-0.5 * ((place[:, None] - place) / sigma).square())
    return (weights / weights.sum(dim=1, keepdim=True)).float()


class PixelGaussian(FitOnceDetector, ImageDetector):
    """Mean and standard deviation of each pixel; the score is the distance in standard deviations, smoothed.

    Args:
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        sigma: Standard deviation of the Gaussian that smooths the map, in pixels; 0 leaves it out.
        top: Share of the pixels, the highest ones, whose mean is the score of the image.
        floor: Smallest standard deviation of a pixel, as a share of that of all pixels: without one, a background
            that never changes would make each speck infinitely anomalous.

    Raises:
        ValueError: An option is outside its range.
    """

    mean: Tensor
    std: Tensor
    down: Tensor
    right: Tensor

    def __init__(
        self, *, height: int, width: int, sigma: float = 2.0, top: float = 0.01, floor: float = 0.1
    ) -> None:
        super().__init__()
        check_range("sigma", sigma, sigma >= 0, "0 or more pixels")
        check_range("top", top, 0 < top <= 1, "a share in (0, 1]")
        check_range("floor", floor, 0 <= floor <= 1, "a share in [0, 1]")
        self.top = max(1, round(top * height * width))
        self.floor = floor
        self.register_buffer("mean", torch.zeros(3, height, width))
        self.register_buffer("std", torch.ones(3, height, width))
        self.register_buffer("down", gaussian_weights(height, sigma), persistent=False)
        self.register_buffer("right", gaussian_weights(width, sigma), persistent=False)
        self._forget()

    def _forget(self) -> None:
        self._count = 0
        self._mean = torch.zeros((), dtype=torch.float64)
        self._squares = torch.zeros((), dtype=torch.float64)  # sum of squared distances from the mean

    @torch.no_grad()
    def collect(self, batch: ImageBatch) -> None:
        """Update mean and squares by a batch, in float64 and on the host, and keep no image."""
        images = self.share.whole(self._checked(batch.image)).cpu().double()
        B, before = len(images), self._count
        mean = images.mean(dim=0)  # (3, H, W)
        apart = mean - self._mean
        self._count = before + B
        self._mean = self._mean + apart * (B / self._count)
        within = (images - mean).square().sum(dim=0)
        self._squares = self._squares + within + apart.square() * (before * B / self._count)

    def finish(self) -> None:
        if self._count < 2:
            raise DataError(f"{self._count} training images: a standard deviation needs at least two")
        variance = self._squares / self._count
        least = max(self.floor * float(variance.mean().sqrt()), _TINY)
        self.mean.copy_(self._mean)
        self.std.copy_(variance.sqrt().clamp(min=least))
        self._forget()

    def loss(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Mean distance of all pixels, in standard deviations: about 0.8 on what was learned."""
        return {"loss": self._distance(batch.image).mean()}

    def score(self, images: Tensor) -> ImageScores:
        """Smoothed distance of each pixel, and the mean of the highest ones.

        Args:
            images: (B, 3, H, W) float32, any range.

        Returns:
            Scores in standard deviations, 0 or more.

        Raises:
            ValueError: The images have another size than those learned.
        """
        distance = self._distance(images)
        with torch.autocast(images.device.type, enabled=False):  # products of matrices, which it would round
            maps = self.down @ distance @ self.right.T  # (B, H, W)
        top = maps.flatten(1).topk(self.top, dim=1).values
        return ImageScores(maps, top.mean(dim=1))

    def _distance(self, images: Tensor) -> Tensor:
        """(B, H, W) distances from the mean in standard deviations, averaged over the channels."""
        return ((self._checked(images).float() - self.mean) / self.std).abs().mean(dim=1)

    def _checked(self, images: Tensor) -> Tensor:
        if images.shape[1:] != self.mean.shape:
            wanted = ", ".join(map(str, self.mean.shape))
            raise ValueError(
                f"images of shape {tuple(images.shape)}, but the detector is one for (B, {wanted})"
            )
        return images
