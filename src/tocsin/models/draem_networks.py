"""The two networks of DRAEM: one paints over what looks odd, the other compares its painting with the image.

Zavrtanik, Kristan and Skocaj, "DRAEM - A Discriminatively Trained Reconstruction Embedding for Surface Anomaly
Detection", ICCV 2021, section 3.1 and the authors' code. Every convolution is 3x3 with batch normalisation and ReLU,
every step up is bilinear. What differs: the images may be of any size, see `padded`.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

STRIDE = 32
"""Both networks need sides that are multiples of this."""


def padded(images: Tensor) -> Tensor:
    """Images (B, C, H, W) mirrored at the bottom and the right up to multiples of `STRIDE`."""
    for dim in (2, 3):
        size = images.shape[dim]
        if size % STRIDE:
            index = torch.arange(size + -size % STRIDE, device=images.device) % max(2 * size - 2, 1)
            images = images.index_select(dim, torch.minimum(index, 2 * size - 2 - index))
    return images


def _conv(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]


def _block(n_in: int, n_out: int, n_hidden: int | None = None) -> nn.Sequential:
    hidden = n_hidden or n_out
    return nn.Sequential(*_conv(n_in, hidden), *_conv(hidden, n_out))


def _up(n_in: int, n_out: int) -> nn.Sequential:
    larger = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    return nn.Sequential(larger, *_conv(n_in, n_out))


def init_as_published(network: nn.Module) -> None:
    """Small normal weights; scales of batch normalisation near 1."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)


class ReconstructiveNetwork(nn.Module):
    """Auto-encoder without skip connections: what does not pass the bottleneck is not painted.

    Args:
        width: Channels of the first block; the bottleneck has eight times as many, at a sixteenth of the size.
    """

    def __init__(self, *, width: int = 128) -> None:
        super().__init__()
        channels = [3, width, 2 * width, 4 * width, 8 * width, 8 * width]
        blocks = [_block(n_in, n_out) for n_in, n_out in pairwise(channels)]
        pooled: list[nn.Module] = [blocks[0]]
        for block in blocks[1:]:
            pooled += [nn.MaxPool2d(2), block]
        self.encoder = nn.Sequential(*pooled)
        steps: list[nn.Module] = []
        for n_in, n_out in ((8, 4), (4, 2), (2, 1), (1, 1)):
            steps += [_up(n_in * width, n_in * width), _block(n_in * width, n_out * width, n_in * width)]
        self.decoder = nn.Sequential(*steps, nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Paint (B, 3, H, W) images without their anomalies; the result is not bounded."""
        painted: Tensor = self.decoder(self.encoder(images))
        return painted


class DiscriminativeNetwork(nn.Module):
    """U-Net that says which pixels of an image differ from its reconstruction in a way that matters.

    Args:
        width: Channels of the first block; the bottleneck has eight times as many, at a 32nd of the size.
    """

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        w = width
        self.channels = (w, 2 * w, 4 * w, 8 * w, 8 * w, 8 * w)
        ins = (6, *self.channels[:-1])
        self.encoder = nn.ModuleList(
            _block(n_in, n_out) for n_in, n_out in zip(ins, self.channels, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.ups = nn.ModuleList(
            [_up(8 * w, 8 * w), _up(8 * w, 4 * w), _up(4 * w, 2 * w), _up(2 * w, w), _up(w, w)]
        )
        self.blocks = nn.ModuleList(
            [
                _block(16 * w, 8 * w),
                _block(12 * w, 4 * w),
                _block(6 * w, 2 * w),
                _block(3 * w, w),
                _block(2 * w, w),
            ]
        )
        self.head = nn.Conv2d(w, 2, 3, padding=1)

    def forward(self, images: Tensor, reconstruction: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compare images with their reconstruction.

        Args:
            images: (B, 3, H, W) float.
            reconstruction: (B, 3, H, W) float.

        Returns:
            Logits (B, 2, H, W) of normal and anomalous, and the features of the six blocks of the encoder, the i-th
            (B, `channels[i]`, H / 2^i, W / 2^i).
        """
        x = torch.cat([reconstruction, images], dim=1)
        features: list[Tensor] = []
        for block in self.encoder:
            x = block(self.pool(x) if features else x)
            features.append(x)
        for up, block, skip in zip(self.ups, self.blocks, features[-2::-1], strict=True):
            x = block(torch.cat([up(x), skip], dim=1))
        logits: Tensor = self.head(x)
        return logits, features
