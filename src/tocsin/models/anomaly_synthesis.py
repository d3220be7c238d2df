"""Synthetic anomalies on normal images: textures in Perlin masks, or strips of the image itself.

DRAEM (ICCV 2021, section 3.3): I_a = (1 - M) I + M ((1 - beta) A + beta I) with the mask M, the texture A and the
transparency beta ~ U(0, 0.8). Half of the images stay normal; so do those whose mask turns out empty. What differs:
all is done for a batch at once, only masked pixels are computed, and values are not cut off, as maps of floats may
exceed 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tocsin.models.checks import check_choice, check_range
from tocsin.models.cutpaste import Strips, draw_strips, strip_masks, strip_values
from tocsin.models.perlin import perlin_masks, rotated
from tocsin.models.seeded_draws import SeededDraws
from tocsin.models.texture_colours import texture_colours
from tocsin.models.textures import Pixels, TextureBank

ANOMALIES = ("perlin", "cutpaste", "mixed")
MAX_TRANSPARENCY = 0.8
_MAX_ANGLE = torch.pi / 2


class Synthetic(NamedTuple):
    """Images with synthetic anomalies.

    Attributes:
        image: (B, 3, H, W) float32, with the anomalies.
        clean: (B, 3, H, W) float32, the same without them.
        mask: (B, H, W) bool, true = anomalous; empty where an image stays normal.
        amplitude: (B,) float32 in [0, 1], opacity of a texture or strength of a strip; 0 where an image stays normal.
    """

    image: Tensor
    clean: Tensor
    mask: Tensor
    amplitude: Tensor


class AnomalySynthesis(nn.Module):
    """Makes anomalies on images whose largest values are near 1.

    Args:
        anomaly: `perlin`: textures in Perlin masks; `cutpaste`: strips of the image, for maps of sensors; `mixed`:
            either, by the toss of a coin.
        probability: Share of images that get an anomaly, in (0, 1].
        amplitude: Largest value that a strip adds, > 0.
        rotation: Share of images that are turned by up to 90 degrees first, in [0, 1]; not for objects or maps with
            a direction.
        bank: Textures for `perlin`.

    Raises:
        ValueError: If a value is outside its range.
    """

    def __init__(
        self, *, anomaly: str, probability: float, amplitude: float, rotation: float, bank: TextureBank
    ) -> None:
        super().__init__()
        check_choice("anomaly", anomaly, ANOMALIES)
        check_range("probability", probability, 0.0 < probability <= 1.0, "in (0, 1]")
        check_range("amplitude", amplitude, amplitude > 0.0, "greater than 0")
        check_range("rotation", rotation, 0.0 <= rotation <= 1.0, "in [0, 1]")
        self.anomaly = anomaly
        self.probability = probability
        self.amplitude = amplitude
        self.rotation = rotation
        self.bank = bank

    @torch.no_grad()
    def forward(self, images: Tensor, seeds: Tensor, amplitude: Tensor | None = None) -> Synthetic:
        """Synthesise anomalies; the same images and seeds give the same ones.

        Args:
            images: (B, 3, H, W) float32, normal.
            seeds: (B,) int64 on the CPU, of which each image's anomaly is a function.
            amplitude: (B,) float32 in [0, 1], to set that of every image; then all get an anomaly.

        Raises:
            RuntimeError: The bank of textures is empty.
        """
        if self.anomaly != "cutpaste" and not len(self.bank):
            raise RuntimeError("there are no textures yet: call prepare with training batches first")
        with torch.autocast(images.device.type, enabled=False):  # masks must not depend on the precision
            return self._synthesised(images.float(), SeededDraws(seeds), amplitude)

    def _synthesised(self, images: Tensor, draws: SeededDraws, amplitude: Tensor | None) -> Synthetic:
        clean = self._turned(images, draws)
        odd = draws.uniform() < (self.probability if amplitude is None else 1.0)
        coin = draws.uniform() < 0.5
        strength = draws.uniform()
        by_kind = {
            "perlin": odd & (coin | (self.anomaly == "perlin")) & (self.anomaly != "cutpaste"),
            "cutpaste": odd & (~coin | (self.anomaly == "cutpaste")) & (self.anomaly != "perlin"),
        }
        image = clean.clone()
        mask = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool, device=images.device)
        amplitudes = torch.zeros(len(images), device=images.device)
        for kind, chosen in by_kind.items():
            rows = chosen.nonzero()[:, 0]  # on the CPU: no wait for the device
            if not len(rows):
                continue
            if amplitude is not None:
                size = amplitude[rows.to(amplitude.device)].to(images.device)
            else:
                size = strength[rows].to(images.device)
                size = 1.0 - MAX_TRANSPARENCY * size if kind == "perlin" else size
            paste = self._paste_textures if kind == "perlin" else self._paste_strips
            where = rows.to(images.device)
            mask[where] = masks = paste(image, where, draws.at(rows), size)
            amplitudes[where] = size * masks.any(dim=2).any(dim=1)
        return Synthetic(image, clean, mask, amplitudes)

    def _turned(self, images: Tensor, draws: SeededDraws) -> Tensor:
        turn = draws.uniform() < self.rotation
        angles = draws.uniform(low=-_MAX_ANGLE, high=_MAX_ANGLE)
        rows = turn.nonzero()[:, 0]
        if not len(rows):
            return images
        where = rows.to(images.device)
        turned = rotated(images[where], angles[rows].to(images.device), padding="reflection")
        return images.index_copy(0, where, turned)

    def _paste_textures(self, image: Tensor, where: Tensor, draws: SeededDraws, opacity: Tensor) -> Tensor:
        """Blend textures into these (R,) images of the batch; returns their masks (R, H, W)."""
        H, W = image.shape[2:]
        masks = perlin_masks((H, W), draws, image.device)
        pixels = Pixels(*masks.nonzero(as_tuple=True))
        colours = texture_colours(self.bank, pixels, draws, (H, W))
        place = (where[pixels.image], slice(None), pixels.y, pixels.x)
        image[place] = torch.lerp(image[place], colours, opacity[pixels.image, None])
        return masks

    def _paste_strips(self, image: Tensor, where: Tensor, draws: SeededDraws, strength: Tensor) -> Tensor:
        """Add strips to these (R,) images of the batch; returns masks (R, H, W), empty where nothing was cut."""
        H, W = image.shape[2:]
        strips = Strips(*(part.to(image.device) for part in draw_strips((H, W), draws)))
        masks = strip_masks(strips, (H, W))
        pixels = Pixels(*masks.nonzero(as_tuple=True))
        added, shown = strip_values(image[where], pixels, strips)
        place = (where[pixels.image], slice(None), pixels.y, pixels.x)
        image[place] += added * (self.amplitude * strength)[pixels.image, None]
        return masks & shown[:, None, None]
