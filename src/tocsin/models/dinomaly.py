"""Dinomaly: a decoder rebuilds the features of a frozen vision transformer, and cannot do so where there is a defect.

Guo et al., "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection", CVPR 2025, arXiv
2405.14325; `recenter` is from Dinomaly2, arXiv 2510.17611. Four things keep the decoder from rebuilding what it has
never seen: noise in the bottleneck, attention that cannot focus, groups of layers that are compared as a whole, and
small gradients where it is already good.

What differs: the map is scored at the resolution of the image, where the released code resizes to 256 x 256 first;
its smoothing goes on with the border's values, not with zeros, which would hide a defect there; timm, which holds the
encoder, resizes its positions with antialiasing. Resize to 448 and crop the middle 392, as published, in the data.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tocsin.batch import ImageBatch
from tocsin.models.base import ImageDetector, ImageScores
from tocsin.models.checks import check_range
from tocsin.models.dinomaly_decoder import DecoderBlock, NoisyMlp, init_small
from tocsin.models.pretrained import HUB, Normalise, timm_network

SMOOTHING_RADIUS, SMOOTHING_SIGMA = 2, 4.0  # pixels
TOP_SHARE = 0.01  # of the pixels, which make the score of an image


class Features(NamedTuple):
    """What is compared: features of the patches, one tensor per group of layers.

    Attributes:
        target: (B, N, D) float32 each, of the encoder.
        made: (B, N, D) float32 each, of the decoder.
        grid: Patches in height and width; N = height * width.
    """

    target: list[Tensor]
    made: list[Tensor]
    grid: tuple[int, int]


class Dinomaly(ImageDetector):
    """Feature reconstruction with a frozen vision transformer.

    Args:
        encoder: Vision transformer of timm. The one of DINOv2 with registers is the published choice.
        weights: Of the encoder: `hub`, a file (the authors' `dinov2_vitb14_reg4_pretrain.pth` fits the default),
            `random`, or None if a checkpoint will be loaded.
        encoder_options: Further arguments of `timm.create_model`.
        image_size: Height and width (or both in one number) in pixels, multiples of the patch, that images are
            resized to for the encoder; None: the multiple that is nearest to their own size.
        target_layers: Blocks of the encoder, from 0, whose outputs are rebuilt, in order. The decoder has as many
            blocks; its last one rebuilds the first.
        fuse_groups: Groups of positions in `target_layers` whose mean is compared; None: the two halves.
        dropout: Noise of the bottleneck, in [0, 1). 0.2 as published; 0.4 for Real-IAD.
        bias: Whether feed-forward layers have biases.
        recenter: Subtract the class token from the patches, so that an image of one class among many is seen in its
            context.
        easy_share: Share of the patches with small gradients, in [0, 1): those that are rebuilt best.
        easy_factor: What their gradients are multiplied by, in [0, 1].
        ramp_steps: Optimizer steps in which the share grows from 0. They are counted by `after_step`, so that batches
            whose gradients are accumulated count once.

    Raises:
        ValueError: If a value is outside its range, or the encoder is no vision transformer.
        ConfigError: If timm has no such network or its weights cannot be had.
    """

    steps: Tensor

    def __init__(
        self,
        *,
        encoder: str = "vit_base_patch14_reg4_dinov2",
        weights: str | None = HUB,
        encoder_options: Mapping[str, Any] | None = None,
        image_size: int | Sequence[int] | None = None,
        target_layers: Sequence[int] = (2, 3, 4, 5, 6, 7, 8, 9),
        fuse_groups: Sequence[Sequence[int]] | None = None,
        dropout: float = 0.2,
        bias: bool = True,
        recenter: bool = False,
        easy_share: float = 0.9,
        easy_factor: float = 0.1,
        ramp_steps: int = 1000,
    ) -> None:
        super().__init__()
        check_range("dropout", dropout, 0.0 <= dropout < 1.0, "in [0, 1)")
        check_range("easy_share", easy_share, 0.0 <= easy_share < 1.0, "in [0, 1)")
        check_range("easy_factor", easy_factor, 0.0 <= easy_factor <= 1.0, "in [0, 1]")
        check_range("ramp_steps", ramp_steps, ramp_steps >= 1, "at least 1")
        self.target_layers = _checked_layers(target_layers)
        self.fuse_groups = _checked_groups(fuse_groups, len(target_layers))
        self.easy_share, self.easy_factor, self.ramp_steps = easy_share, easy_factor, ramp_steps
        self.recenter = recenter

        self.encoder = _frozen(encoder, weights, encoder_options or {}, self.target_layers)
        self.normalise = Normalise.of(self.encoder)
        self.n_prefix = int(self.encoder.num_prefix_tokens)  # type: ignore[arg-type]
        if recenter and not self.n_prefix:
            raise ValueError(f"recenter=True needs a class token, and {encoder} has none")
        self.patch: tuple[int, int] = tuple(self.encoder.patch_embed.patch_size)  # type: ignore[union-attr, arg-type]
        self.image_size = _checked_size(image_size, self.patch)

        width, n_heads = _width_and_heads(self.encoder)
        self.bottleneck = NoisyMlp(width, dropout=dropout, bias=bias)
        self.decoder = nn.ModuleList(DecoderBlock(width, n_heads, bias=bias) for _ in self.target_layers)
        self.bottleneck.apply(init_small)
        self.decoder.apply(init_small)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # optimizer steps so far

    # ------------------------------------------------------------------ network

    def train(self, mode: bool = True) -> "Dinomaly":
        """Set the mode of all but the encoder, which stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def trainable(self, stage: str) -> Iterable[nn.Parameter]:
        """The bottleneck and the decoder."""
        return [*self.bottleneck.parameters(), *self.decoder.parameters()]

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels at which the encoder sees an image."""
        if self.image_size is not None:
            return self.image_size
        rows, columns = max(1, round(height / self.patch[0])), max(1, round(width / self.patch[1]))
        return rows * self.patch[0], columns * self.patch[1]

    @torch.no_grad()
    def encode(self, images: Tensor) -> list[Tensor]:
        """Tokens of the target layers.

        Args:
            images: (B, 3, H, W) float32 in [0, 1], H and W multiples of the patch.

        Returns:
            (B, P + N, D) float32 each: the P tokens of class and registers, then the patches row by row; without the
            former if the latter are recentered.
        """
        layers = self.encoder.forward_intermediates(  # type: ignore[operator]
            self.normalise(images),
            indices=list(self.target_layers),
            return_prefix_tokens=True,
            output_fmt="NLC",
            stop_early=True,
            intermediates_only=True,
        )
        if not self.n_prefix:
            return [patches.float() for patches in layers]
        if self.recenter:
            return [patches.float() - prefix[:, :1].float() for patches, prefix in layers]
        return [torch.cat([prefix, patches], dim=1).float() for patches, prefix in layers]

    def features(self, images: Tensor) -> Features:
        """Features of (B, 3, H, W) images, and what the decoder makes of them."""
        height, width = self.seen_size(*images.shape[-2:])
        if (height, width) != images.shape[-2:]:
            images = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
        grid = (height // self.patch[0], width // self.patch[1])
        layers = self.encode(images)
        tokens = self.bottleneck(_mean(layers))
        rebuilt = []
        for block in self.decoder:
            tokens = block(tokens)
            rebuilt.append(tokens)
        rebuilt.reverse()  # the last block rebuilds the first layer
        first = layers[0].shape[1] - grid[0] * grid[1]  # class and registers are not compared
        target = [_mean([layers[i] for i in group])[:, first:] for group in self.fuse_groups]
        made = [_mean([rebuilt[i] for i in group])[:, first:] for group in self.fuse_groups]
        return Features(target, made, grid)

    # ------------------------------------------------------------------ training

    def loss(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Cosine distance of the features of whole images, the mean over groups.

        Args:
            batch: Normal images; no label is read.
        """
        found = self.features(batch.image)
        terms = []
        for target, made in zip(found.target, found.made, strict=True):
            if made.requires_grad:
                factors = easy_gradients(target, made.detach(), self._share(), self.easy_factor)
                made.register_hook(factors.mul)  # type: ignore[no-untyped-call]
            terms.append((1 - F.cosine_similarity(target.flatten(1), made.flatten(1), dim=1)).mean())
        return {"loss": torch.stack(terms).mean()}

    def _share(self) -> Tensor:
        """Share of easy patches at this optimizer step."""
        return self.easy_share * (self.steps / self.ramp_steps).clamp(max=1.0)

    def after_step(self) -> None:
        self.steps += 1

    # ------------------------------------------------------------------ scoring

    def score(self, images: Tensor) -> ImageScores:
        """Cosine distance of the features of each patch, smoothed; the score of an image is the mean of its top 1 %.

        Args:
            images: (B, 3, H, W) float32 in [0, 1].

        Returns:
            Scores in [0, 2]; the map and the score of the image are of the same, smoothed map.
        """
        found = self.features(images)
        pairs = zip(found.target, found.made, strict=True)
        distance = _mean([1 - F.cosine_similarity(target, made, dim=-1) for target, made in pairs])  # (B, N)
        maps = distance.reshape(-1, 1, *found.grid)  # (B, 1, rows, columns)
        H, W = images.shape[-2:]
        maps = F.interpolate(maps, self.seen_size(H, W), mode="bilinear", align_corners=True)
        maps = smooth(F.interpolate(maps, (H, W), mode="bilinear")).squeeze(1)  # (B, H, W)
        top = maps.flatten(1).topk(max(1, int(TOP_SHARE * H * W)), dim=1).values
        return ImageScores(maps, top.mean(dim=1))


def easy_gradients(target: Tensor, made: Tensor, share: Tensor, factor: float) -> Tensor:
    """Factors for the gradients of patches: small ones where they are rebuilt better than the rest.

    Args:
        target: (B, N, D) features of the encoder.
        made: (B, N, D) features of the decoder.
        share: () float in [0, 1), share of the batch's patches that are easy.
        factor: Factor of those.

    Returns:
        (B, N, 1) float, `factor` or 1.
    """
    distances = 1 - F.cosine_similarity(target, made, dim=-1)  # (B, N)
    hard = (distances.numel() * (1 - share)).long().clamp(min=1)
    # Sorted, not top-k: k would have to come from the device.
    ranked = distances.flatten().sort(descending=True).values
    threshold = ranked.gather(0, hard.reshape(1) - 1)
    return torch.where(distances < threshold, factor, 1.0).unsqueeze(-1)


def smooth(maps: Tensor) -> Tensor:
    """Blur (B, C, H, W) maps with a Gaussian of 5 x 5 pixels and standard deviation 4, in their own precision."""
    H, W = maps.shape[-2:]
    weights = [
        math.exp(-0.5 * (i / SMOOTHING_SIGMA) ** 2) for i in range(-SMOOTHING_RADIUS, SMOOTHING_RADIUS + 1)
    ]
    weights = [weight / sum(weights) for weight in weights]
    padded = F.pad(maps, [SMOOTHING_RADIUS] * 4, mode="replicate")
    rows = torch.stack([weight * padded[..., i : i + H, :] for i, weight in enumerate(weights)]).sum(dim=0)
    return torch.stack([weight * rows[..., i : i + W] for i, weight in enumerate(weights)]).sum(dim=0)


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """Mean of tensors of one shape, in full precision."""
    total = tensors[0].float()
    for tensor in tensors[1:]:
        total = total + tensor
    return total / len(tensors)


# --- the encoder and its options ----------------------------------------------------------------------------


def _frozen(
    name: str, weights: str | None, options: Mapping[str, Any], target_layers: Sequence[int]
) -> nn.Module:
    """The encoder up to the last block that is needed, in evaluation mode and without gradients."""
    options = {"num_classes": 0, "dynamic_img_size": True, **options}
    try:
        network = timm_network(name, weights=weights, options=options)
    except TypeError as error:  # of the constructor of another kind of network
        raise ValueError(f"encoder={name} takes no such options as a vision transformer: {error}") from error
    blocks = getattr(network, "blocks", None)
    if blocks is None or not hasattr(network, "num_prefix_tokens"):
        raise ValueError(f"encoder={name} is no vision transformer")
    fits = max(target_layers) < len(blocks)
    check_range("target_layers", list(target_layers), fits, f"below the {len(blocks)} blocks of {name}")
    network.prune_intermediate_layers(list(target_layers), prune_norm=True)  # type: ignore[operator]
    return network.requires_grad_(False).eval()


def _width_and_heads(encoder: nn.Module) -> tuple[int, int]:
    width, first = int(encoder.embed_dim), encoder.blocks[0]  # type: ignore[arg-type, index]
    return width, int(first.attn.num_heads)  # type: ignore[union-attr]


def _checked_layers(layers: Sequence[int]) -> tuple[int, ...]:
    fits = len(layers) > 0 and list(layers) == sorted(set(layers)) and layers[0] >= 0
    check_range("target_layers", list(layers), fits, "a growing list of blocks from 0")
    return tuple(layers)


def _checked_groups(groups: Sequence[Sequence[int]] | None, n_layers: int) -> tuple[tuple[int, ...], ...]:
    if groups is None:
        half = (n_layers + 1) // 2
        halves = (range(half), range(half, n_layers))
        return tuple(tuple(positions) for positions in halves if positions)
    fits = len(groups) > 0 and all(group and set(group) <= set(range(n_layers)) for group in groups)
    wanted = f"lists of positions from 0 to {n_layers - 1} in target_layers"
    check_range("fuse_groups", [list(group) for group in groups], fits, wanted)
    return tuple(tuple(group) for group in groups)


def _checked_size(size: int | Sequence[int] | None, patch: tuple[int, int]) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    fits = len(sides) == 2 and all(
        side > 0 and side % step == 0 for side, step in zip(sides, patch, strict=True)
    )
    check_range(
        "image_size", size, fits, f"one or two multiples of the patch of {patch[0]} x {patch[1]} pixels"
    )
    return sides[0], sides[1]
