"""DRAEM: two networks learn on synthetic anomalies, one to remove them and one to see what was removed.

Zavrtanik, Kristan and Skocaj, "DRAEM - A Discriminatively Trained Reconstruction Embedding for Surface Anomaly
Detection", ICCV 2021, and the authors' code. Loss: squared error and 1 - SSIM of the reconstruction, and the focal
loss of the map. What differs: images of any size; images are divided by the typical largest value of the training
images, which is 1 for photographs, so that maps of floats of any unit can be read; sources of textures, see
`textures`; and the synthetic anomalies on validation data are the same in every epoch, so that their loss can
choose a checkpoint.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from tocsin.batch import ImageBatch
from tocsin.models.anomaly_synthesis import AnomalySynthesis, Synthetic
from tocsin.models.base import ImageDetector, ImageScores
from tocsin.models.checks import check_choice, check_range
from tocsin.models.draem_networks import (
    DiscriminativeNetwork,
    ReconstructiveNetwork,
    init_as_published,
    padded,
)
from tocsin.models.image_losses import focal_loss, ssim_loss
from tocsin.models.textures import TextureBank

SCORES = ("avgpool_max", "topk_mean", "max")
_POOL = 21  # pixels a side
_TOP_SHARE = 0.01
_TINY = 1e-12


class Draem(ImageDetector):
    """Reconstructive and discriminative network, trained on synthetic anomalies alone.

    Args:
        recon_width: Channels of the reconstructive network's first block.
        disc_width: Channels of the discriminative network's first block.
        anomaly: `perlin`: textures in Perlin masks; `cutpaste`: strips of the image itself, for maps of sensors;
            `mixed`: either.
        anomaly_probability: Share of training images that get an anomaly, in (0, 1].
        amplitude: Largest value that `cutpaste` adds, > 0, in units of the images' typical largest value.
        rotation: Share of images that are turned by up to 90 degrees first, in [0, 1]. The paper turns 0.3 of
            those of textures and none of objects in a fixed pose.
        texture_source: `procedural`, `self` (tiles of training images), `dir` or `mixed`.
        texture_dir: Folder of images for `dir` and `mixed`.
        n_textures: Textures kept on the device.
        score: Score of an image: `avgpool_max`, the maximum of the map after pooling over 21x21 pixels; `topk_mean`,
            the mean of its highest percent; `max`, its maximum.

    Raises:
        ValueError: If a value is outside its range.
        ConfigError: `texture_source=dir` without `texture_dir`.
    """

    unit: Tensor

    def __init__(
        self,
        *,
        recon_width: int = 128,
        disc_width: int = 64,
        anomaly: str = "perlin",
        anomaly_probability: float = 0.5,
        amplitude: float = 0.3,
        rotation: float = 0.0,
        texture_source: str = "procedural",
        texture_dir: str | None = None,
        n_textures: int = 128,
        score: str = "avgpool_max",
    ) -> None:
        super().__init__()
        check_range("recon_width", recon_width, recon_width >= 1, "at least 1")
        check_range("disc_width", disc_width, disc_width >= 1, "at least 1")
        check_choice("score", score, SCORES)
        self.image_score = score
        self.register_buffer("unit", torch.ones(()))
        self.textures = TextureBank(source=texture_source, directory=texture_dir, n=n_textures)
        self.synthesis = AnomalySynthesis(
            anomaly=anomaly,
            probability=anomaly_probability,
            amplitude=amplitude,
            rotation=rotation,
            bank=self.textures,
        )
        self.reconstructive = ReconstructiveNetwork(width=recon_width)
        self.discriminative = DiscriminativeNetwork(width=disc_width)
        init_as_published(self)
        self.to(memory_format=torch.channels_last)  # faster on any device

    # ------------------------------------------------------------------ preparation

    def prepare(self, train_batches: Iterable[ImageBatch]) -> None:
        """Measure the unit of the training images and make the textures.

        Raises:
            ConfigError: `texture_dir` is no folder.
            DataError: It holds no image, or one that cannot be read.
        """
        images = first_images(train_batches, self.textures.n)
        self.unit.fill_(images.amax(dim=(1, 2, 3)).median().clamp(min=_TINY))
        self.textures.fill(images / self.unit)

    def synthetic(self, batch: ImageBatch) -> Synthetic:
        """Synthetic anomalies on a batch: new ones in training, always the same ones of an image in evaluation."""
        seeds = self.share.integers(2**62, len(batch.image)) if self.training else batch.position.cpu()
        made: Synthetic = self.synthesis(batch.image / self.unit, seeds)
        return made

    # ------------------------------------------------------------------ networks

    def compare(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Reconstruct images and compare them with that.

        Args:
            images: (B, 3, H, W) float, divided by `unit`.

        Returns:
            Reconstruction (B, 3, H, W), logits (B, 2, H, W) and the features of the discriminative encoder, which are
            those of the padded images.
        """
        H, W = images.shape[2:]
        whole = padded(images).contiguous(memory_format=torch.channels_last)
        reconstruction = self.reconstructive(whole)
        logits, features = self.discriminative(whole, reconstruction)
        return reconstruction[..., :H, :W], logits[..., :H, :W], features

    def losses(self, synthetic: Synthetic, reconstruction: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """Terms of DRAEM's loss and, as `loss`, their sum."""
        terms = {
            "mse": F.mse_loss(reconstruction.float(), synthetic.clean),
            "ssim": ssim_loss(reconstruction, synthetic.clean),
            "focal": focal_loss(logits, synthetic.mask),
        }
        return {"loss": torch.stack([*terms.values()]).sum(), **terms}

    def loss(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Loss on images with synthetic anomalies.

        Args:
            batch: Normal images; no label is read.

        Returns:
            `loss`, and its terms `mse`, `ssim` and `focal`.

        Raises:
            RuntimeError: `prepare` was not called before.
        """
        synthetic = self.synthetic(batch)
        reconstruction, logits, _ = self.compare(synthetic.image)
        return self.losses(synthetic, reconstruction, logits)

    # ------------------------------------------------------------------ scoring

    def score(self, images: Tensor) -> ImageScores:
        """Probability of an anomaly at each pixel, and the score of the image made of it; both in [0, 1].

        Args:
            images: (B, 3, H, W) float32.
        """
        _, logits, _ = self.compare(images / self.unit)
        anomaly_map = probabilities(logits)
        return ImageScores(anomaly_map, map_score(anomaly_map, self.image_score))


def first_images(batches: Iterable[ImageBatch], count: int) -> Tensor:
    """The first (up to `count`, 3, H, W) images of some batches."""
    found: list[Tensor] = []
    for batch in batches:
        found.append(batch.image.float())
        if sum(map(len, found)) >= count:
            break
    return torch.cat(found)[:count]


def probabilities(logits: Tensor) -> Tensor:
    """Probability of an anomaly (B, H, W) float32 of logits (B, 2, H, W)."""
    return logits.float().softmax(dim=1)[:, 1]


def map_score(anomaly_map: Tensor, score: str) -> Tensor:
    """Score (B,) of images of their maps (B, H, W), in one of the ways of `SCORES`."""
    if score == "max":
        return anomaly_map.amax(dim=(1, 2))
    if score == "topk_mean":
        pixels = anomaly_map.flatten(1)
        return pixels.topk(max(1, round(_TOP_SHARE * pixels.shape[1])), dim=1).values.mean(dim=1)
    return F.avg_pool2d(anomaly_map[:, None], _POOL, stride=1, padding=_POOL // 2).amax(dim=(1, 2, 3))
