"""Places a patch on boxes in images, with random changes of what a camera would see of it.

Size, place and changes follow Thys et al., "Fooling Automated Surveillance Cameras: Adversarial Patches to Attack
Person Detection", CVPR workshops 2019, section 3.3, and its code; expectation over transformations is that of Athalye
et al., ICML 2018. What differs: no loop over images or boxes; only the pixels around a box are drawn, not a whole
image for each; the edge covers the share of a pixel that lies in the patch; a patch that is shown smaller is averaged
first, as a camera would, so that each of its pixels counts; and far objects (small boxes) are covered by near ones.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tocsin.batch import DetectionBatch
from tocsin.models.checks import check_range
from tocsin.models.seeded_draws import SeededDraws

_DRAWS = 8  # random numbers for each box


@dataclass(frozen=True, kw_only=True)
class Eot:
    """How much the look of a patch varies from box to box. All 0: as printed.

    Attributes:
        rotation: Most degrees to either side.
        scale: Most relative change of the side, to either side, in [0, 1).
        shift: Most shift of the centre, as a share of width and height of the box.
        contrast: Most relative change of the contrast.
        brightness: Most change of the brightness, of [0, 1].
        noise: Largest change of a single value, of [0, 1]; in training alone.
    """

    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rotation", "shift", "contrast", "brightness", "noise"):
            check_range(name, getattr(self, name), getattr(self, name) >= 0.0, "at least 0")
        check_range("scale", self.scale, 0.0 <= self.scale < 1.0, "in [0, 1)")


class Places(NamedTuple):
    """Where patches go, ordered by image, and in an image from the smallest box to the largest.

    Attributes:
        owner: (N,) int64, index of the image.
        rank: (N,) int64, place among the patches of its image; later ones cover earlier ones.
        box: (N,) int64, index of the box in the batch.
        centre: (N, 2) float32, x and y in pixels.
        side: (N,) float32, pixels.
        angle: (N,) float32, radians, counter-clockwise as seen.
        contrast: (N,) float32, factor.
        brightness: (N,) float32, summand.
    """

    owner: Tensor
    rank: Tensor
    box: Tensor
    centre: Tensor
    side: Tensor
    angle: Tensor
    contrast: Tensor
    brightness: Tensor


def target_places(
    batch: DetectionBatch,
    *,
    size: float,
    offset: float,
    eot: Eot,
    max_boxes: int,
    rotation: float = 0.0,
    seeds: Tensor | None = None,
) -> Places:
    """Places of the patches of a batch.

    The side is `size` times the diagonal of the box; the centre lies above that of the box.

    Args:
        batch: Images and boxes; only targets get a patch.
        size: Side of the patch as a share of the diagonal of a box.
        offset: How far above the centre of the box, as a share of its height.
        eot: Random changes.
        max_boxes: Most patches in an image; the largest boxes get them.
        rotation: Degrees, counter-clockwise, besides those of `eot`.
        seeds: (B,) int64 for changes that depend on nothing else; None draws from the generator of torch.
    """
    owner, rank, box = ranked_targets(batch, max_boxes)
    boxes = batch.boxes[box].float()
    draws = _draws(batch, owner, rank, max_boxes, seeds)  # (N, 8) in [-1, 1)
    extent = boxes[:, 2:] - boxes[:, :2]  # (N, 2) width and height
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + eot.shift * draws[:, :2] * extent
    lift = torch.stack([torch.zeros_like(extent[:, 1]), offset * extent[:, 1]], dim=1)
    return Places(
        owner=owner,
        rank=rank,
        box=box,
        centre=centre - lift,
        side=size * torch.linalg.vector_norm(extent, dim=1) * (1 + eot.scale * draws[:, 2]),
        angle=torch.deg2rad(rotation + eot.rotation * draws[:, 3]),
        contrast=1 + eot.contrast * draws[:, 4],
        brightness=eot.brightness * draws[:, 5],
    )


def ranked_targets(batch: DetectionBatch, max_boxes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image, rank in it and index of the boxes that get a patch: (N,) int64 each, in order."""
    box = batch.target.nonzero()[:, 0]
    extent = batch.boxes[box, 2:] - batch.boxes[box, :2]
    box = box[extent.prod(dim=1).argsort(descending=True, stable=True)]
    box = box[batch.owner[box].argsort(stable=True)]  # by image, from the largest to the smallest
    owner = batch.owner[box]
    counts = torch.bincount(owner, minlength=len(batch.image))
    place = torch.arange(len(box), device=box.device) - (counts.cumsum(0) - counts)[owner]
    kept = place < max_boxes
    rank = counts.clamp(max=max_boxes)[owner] - 1 - place  # from the smallest to the largest
    kept = kept.nonzero()[:, 0].flip(0)
    order = kept[owner[kept].argsort(stable=True)]
    return owner[order], rank[order], box[order]


def _draws(batch: DetectionBatch, owner: Tensor, rank: Tensor, most: int, seeds: Tensor | None) -> Tensor:
    """(N, 8) numbers in [-1, 1), the same for a box whatever stands beside its image."""
    shape = (most, _DRAWS)
    if seeds is None:
        drawn = torch.rand(len(batch.image), *shape, device=owner.device)
    else:
        drawn = SeededDraws(seeds).uniform(*shape).to(owner.device)
    return 2.0 * drawn[owner, rank] - 1.0


# --- drawing ------------------------------------------------------------------------------------------------


def place_patch(
    images: Tensor, patches: Tensor, places: Places, *, noise: float = 0.0, tile: int | None = None
) -> Tensor:
    """Images with patches on them, with a gradient with respect to the patches.

    Args:
        images: (B, 3, S, S) float32 in [0, 1]; they get no gradient.
        patches: (3, P, P) in [0, 1] for all places, or (N, 3, P, P), one for each.
        places: Where.
        noise: Largest random change of a single value.
        tile: Pixels that are drawn around a centre, to either side together; None: as many as the largest needs.

    Returns:
        (B, 3, S, S) float32 in [0, 1], channels last.
    """
    if len(places.owner) == 0:
        return images + 0.0 * patches.sum()
    T = tile or _tile_size(places)
    corner = (places.centre - T / 2).round()  # (N, 2) of a tile, in whole pixels
    steps = torch.arange(T, device=images.device)
    x, y = (corner[:, i, None] + steps for i in (0, 1))  # (N, T) each: columns and rows of the image
    u, v = _patch_coordinates(x, y, places)  # (N, T, T) each, in [-1, 1] within the patch
    alpha = _coverage(u, places.side) * _coverage(v, places.side)  # (N, T, T)
    shown = _sampled(patches, torch.stack([u, v], dim=3), places)  # (N, 3, T, T)
    shown = shown * places.contrast[:, None, None, None] + places.brightness[:, None, None, None]
    if noise > 0:
        shown = shown + noise * (2.0 * torch.rand_like(shown) - 1.0)
    shown = shown.clamp(0.0, 1.0).permute(0, 2, 3, 1)  # (N, T, T, 3)
    covered: Tensor = _Composite.apply(images, shown, alpha, _pixels(images, x, y, places), places.rank)
    return covered


def _tile_size(places: Places) -> int:
    """Pixels across the largest patch, whatever its angle, and its edge."""
    reach = places.side * (places.angle.cos().abs() + places.angle.sin().abs())
    return (
        int(reach.max().ceil()) + 2
    )  # the one number that is waited for, before the work of the step begins


def _patch_coordinates(x: Tensor, y: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """Where the centres of pixels lie in the patch."""
    right = x[:, None, :] + 0.5 - places.centre[:, 0, None, None]  # (N, 1, T)
    down = y[:, :, None] + 0.5 - places.centre[:, 1, None, None]  # (N, T, 1)
    cos, sin = (f(places.angle)[:, None, None] for f in (torch.cos, torch.sin))
    half = places.side[:, None, None] / 2
    return (right * cos - down * sin) / half, (right * sin + down * cos) / half


def _coverage(u: Tensor, side: Tensor) -> Tensor:
    """Share of a pixel that lies in the patch along one axis; exact at right angles."""
    return ((1.0 - u.abs()) * side[:, None, None] / 2 + 0.5).clamp(0.0, 1.0)


def _sampled(patches: Tensor, grid: Tensor, places: Places) -> Tensor:
    """(N, 3, T, T) colours of the patch at (N, T, T, 2) coordinates, averaged where it is shown smaller."""
    P = patches.shape[-1]
    level = (P / places.side).log2().round().clamp(min=0).long()  # (N,) halvings
    levels = [patches]
    for halvings in range(1, max(1, P.bit_length())):
        side = max(1, P >> halvings)
        small = F.interpolate(patches.reshape(-1, 3, P, P), size=(side, side), mode="area")
        large = F.interpolate(small, size=(P, P), mode="bilinear")
        levels.append(large.reshape(patches.shape))
    pyramid = torch.stack(levels)  # (L, 3, P, P) or (L, N, 3, P, P)
    level = level.clamp(max=len(levels) - 1)
    own = pyramid[level] if patches.ndim == 3 else pyramid[level, torch.arange(len(level))]  # (N, 3, P, P)
    return F.grid_sample(own.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def _pixels(images: Tensor, x: Tensor, y: Tensor, places: Places) -> Tensor:
    """(N, T, T) index of each pixel of a tile among those of all images; one past the last for those outside."""
    B, _, H, W = images.shape
    x, y = x.long()[:, None, :], y.long()[:, :, None]
    inside = (x >= 0) & (x < W) & (y >= 0) & (y < H)
    return torch.where(inside, (places.owner[:, None, None] * H + y) * W + x, B * H * W)


class _Composite(torch.autograd.Function):
    """Tiles over images, one rank after another, in one copy of the images for either direction."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, shown: Tensor, alpha: Tensor, pixels: Tensor, rank: Tensor
    ) -> Tensor:
        B, C, H, W = images.shape
        rows = images.new_empty(B * H * W + 1, C)  # the last one for pixels outside
        rows[:-1] = images.permute(0, 2, 3, 1).reshape(-1, C)
        rows[-1] = 0.0
        by_rank = [(rank == place).nonzero()[:, 0] for place in range(int(rank.max()) + 1)]
        for tiles in by_rank:
            at, a = pixels[tiles].flatten(), alpha[tiles].reshape(-1, 1)
            rows[at] = rows[at] * (1.0 - a) + shown[tiles].reshape(-1, C) * a
        ctx.save_for_backward(alpha, pixels)
        ctx.by_rank = by_rank
        return rows[:-1].reshape(B, H, W, C).permute(0, 3, 1, 2)  # (B, C, H, W)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None, None]:
        alpha, pixels = ctx.saved_tensors
        B, C, H, W = grad.shape
        rows = grad.new_zeros(B * H * W + 1, C)
        rows[:-1] = grad.permute(0, 2, 3, 1).reshape(-1, C)
        of_shown = grad.new_empty(*alpha.shape, C)
        for tiles in reversed(ctx.by_rank):  # what lies on top first
            at, a = pixels[tiles].flatten(), alpha[tiles].reshape(-1, 1)
            reached = rows[at]
            of_shown[tiles] = (reached * a).reshape(len(tiles), *alpha.shape[1:], C)
            rows[at] = reached * (1.0 - a)
        return None, of_shown, None, None, None
