"""PatchCore: distance of image patches from a memory of normal ones, in the features of a pretrained network.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022. Features of patches are in
`patch_features.py`, the coreset that is remembered in `coreset.py`, the search in `nearest_neighbours.py`.

What differs from the paper's code: the coreset is the greedy one itself instead of its approximation, and the
128 numbers by which it is chosen are leading principal components instead of random projections, which cover worse;
its size has a limit, so that memory and search do not grow with the data; the image score has the re-weighting of the
paper, which the code leaves out (`reweight_neighbours=1`). Until the coreset is chosen, features wait on the host as
float16, as differences from a mean in units of their spread. Four options are not in the paper: `instance_norm` and
a `patch_size` of two numbers, see `patch_features`; `position_weight`, coordinates beside the features, for parts
that lie in a fixed place; and `image_share`, the mean of several patches as the score of an image.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tocsin.batch import ImageBatch
from tocsin.errors import TocsinError
from tocsin.models.base import FitOnceDetector, ImageDetector, ImageScores
from tocsin.models.checks import check_choice, check_range
from tocsin.models.coreset import METHODS, coreset_of, farthest_points, principal_axes, rows_of
from tocsin.models.nearest_neighbours import nearest
from tocsin.models.patch_features import PatchFeatures

log = logging.getLogger(__name__)

_TINY = 1e-12
_SAMPLE = 10_000  # patches, evenly over the training images, that the axes are fitted on
_TRUNCATE = 4.0  # standard deviations at which a Gaussian is cut off


class PatchCore(FitOnceDetector, ImageDetector):
    """Nearest-neighbour distance of patches. Images may have any size, and differ in it between calls.

    Args:
        backbone: Network of timm.
        layers: Names of its layers; the first one's grid is that of the patches.
        weights: `hub`, a file, `random`, or None where a checkpoint will be loaded.
        aggregation: `pooled` (mean over the neighbourhood) or `published` (that of the paper's code).
        patch_size: Side (or height and width) of the neighbourhood that a patch sees, in positions of a feature map;
            odd. A wide one is for what runs along the rows.
        embedding_dim: Width of the features of `published`.
        instance_norm: Whether each channel of an image has mean 0 and standard deviation 1 over the image: changes of
            its brightness and contrast as a whole then do not count.
        position_weight: How far apart opposite borders of an image are for two patches that look the same, in units
            of the spread of the features, >= 0; 0: a patch may be anywhere.
        coreset: `greedy`, or `random` for a worse memory at once.
        coreset_ratio: Share of the training patches that is remembered, in (0, 1].
        coreset_size: Most patches that are remembered.
        coreset_dim: Principal components by which the coreset is chosen; None: all features.
        n_neighbours: Neighbours whose mean distance is the score of a patch.
        reweight_neighbours: Neighbours b of the paper's re-weighting of the image score; 1 leaves it out.
        image_share: Share of the patches, those with the highest scores, whose mean is the score of the image, in
            [0, 1]; 0: that of the highest alone, re-weighted. For what is large and faint.
        smoothing: Standard deviation of the Gaussian that smooths the map, in pixels; 0 leaves it out.
        seed: Seed of a random coreset.

    Raises:
        ValueError: An option is outside its range, or a layer unknown.
    """

    origin: Tensor
    spread: Tensor
    axes: Tensor
    radius: Tensor
    bank: Tensor

    def __init__(
        self,
        *,
        backbone: str,
        layers: Sequence[str],
        weights: str | None,
        aggregation: str = "pooled",
        patch_size: int | Sequence[int] = 3,
        embedding_dim: int = 1024,
        instance_norm: bool = False,
        position_weight: float = 0.0,
        coreset: str = "greedy",
        coreset_ratio: float = 0.1,
        coreset_size: int = 50_000,
        coreset_dim: int | None = 128,
        n_neighbours: int = 1,
        reweight_neighbours: int = 9,
        image_share: float = 0.0,
        smoothing: float = 4.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("coreset", coreset, METHODS)
        check_range("coreset_ratio", coreset_ratio, 0.0 < coreset_ratio <= 1.0, "in (0, 1]")
        check_range("coreset_size", coreset_size, coreset_size >= 1, "at least 1")
        check_range(
            "coreset_dim", coreset_dim or 0, coreset_dim is None or coreset_dim >= 1, "at least 1, or null"
        )
        check_range("n_neighbours", n_neighbours, n_neighbours >= 1, "at least 1")
        check_range("reweight_neighbours", reweight_neighbours, reweight_neighbours >= 1, "at least 1")
        check_range("position_weight", position_weight, position_weight >= 0.0, "at least 0")
        check_range("image_share", image_share, 0.0 <= image_share <= 1.0, "in [0, 1]")
        check_range("smoothing", smoothing, smoothing >= 0.0, "at least 0")
        self.coreset = coreset
        self.coreset_ratio = coreset_ratio
        self.coreset_size = coreset_size
        self.n_neighbours = n_neighbours
        self.reweight_neighbours = reweight_neighbours
        self.position_weight = position_weight
        self.image_share = image_share
        self.smoothing = smoothing
        self.seed = seed
        self.features = PatchFeatures(
            backbone=backbone,
            layers=layers,
            weights=weights,
            aggregation=aggregation,
            patch_size=patch_size,
            embedding_dim=embedding_dim,
            instance_norm=instance_norm,
        )
        n_features = self.features.n_features
        width = n_features + 2 * (position_weight > 0)
        self._collected: list[Tensor] = []  # never joined: that would need all of it twice
        self.register_buffer("origin", torch.zeros(n_features))
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("axes", torch.eye(width, min(coreset_dim or width, width)))
        self.register_buffer("radius", torch.zeros(()))  # of the coreset, along the axes
        self.register_buffer("bank", torch.empty(0, width, dtype=torch.float16))

    def trainable(self, stage: str) -> Iterable[nn.Parameter]:
        """Nothing: the network stays as it is."""
        return ()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if prefix + "bank" in state_dict:  # as many rows as were remembered
            self.bank = self.bank.new_empty(state_dict[prefix + "bank"].shape)
        super()._load_from_state_dict(state_dict, prefix, *args)

    # ------------------------------------------------------------------ memory

    @torch.no_grad()
    def collect(self, batch: ImageBatch) -> None:
        """Keep the features of a batch's patches on the host; the first batch sets their origin and unit."""
        features = self.share.whole(self.features(batch.image))  # (B, h, w, D)
        if not self._collected:
            self.origin.copy_(features.mean(dim=(0, 1, 2)))
            size = (features - self.origin).square().sum(dim=3).mean().sqrt()
            self.spread.copy_(size.clamp(min=_TINY))
        self._collected.append(self._rows(features).half().cpu())

    def finish(self) -> None:
        """Choose what is remembered, and forget the rest."""
        n_rows = sum(map(len, self._collected))
        if n_rows == 0:
            raise TocsinError("patchcore saw no training images: give it normal ones to remember")
        size = min(math.ceil(self.coreset_ratio * n_rows), self.coreset_size)
        log.info("choosing %d of %d patches (%s coreset)", size, n_rows, self.coreset)
        self._choose_axes(n_rows)
        points = self.bank.new_empty(n_rows, self.axes.shape[1])
        for part, rows in zip(
            torch.split(points, [*map(len, self._collected)]), self._collected, strict=True
        ):
            part.copy_(self._projected(rows))
        chosen = coreset_of(points, size, method=self.coreset, seed=self.seed)
        del points
        self.bank = rows_of(self._collected, chosen.indices.cpu()).to(self.origin.device)
        self.radius.copy_(chosen.radius)
        self._collected = []

    @torch.no_grad()
    def partial_fit(self, images: Tensor) -> int:
        """Remember more normal images, until they are covered as densely as the ones before.

        Args:
            images: (B, 3, H, W) float32, normal.

        Returns:
            The number of patches that were added; 0 for images that hold nothing new.

        Raises:
            TocsinError: Nothing is remembered yet, or the memory is full.
        """
        self._check_fitted()
        room = self.coreset_size - len(self.bank)
        if room < 1:
            raise TocsinError(f"the memory is full: set model.coreset_size above {self.coreset_size}")
        rows = self._rows(self.features(images)).half()  # (B * h * w, E)
        points = self._projected(rows)
        known = nearest(points, self._projected(self.bank)).distances[:, 0]
        chosen = farthest_points(points, room, distances=known, stop=float(self.radius))
        self.bank = torch.cat([self.bank, rows[chosen.indices]])
        return len(chosen.indices)

    def _rows(self, features: Tensor) -> Tensor:
        """What is compared: features (B, h, w, D) as (B * h * w, E), in units of the spread around the origin.

        So float16 keeps their digits, whatever their scale. With a weight of the position, E = D + 2.
        """
        rows = ((features - self.origin) / self.spread).flatten(0, 2)  # (B * h * w, D)
        if not self.position_weight:
            return rows
        B, h, w, _ = features.shape
        down, right = ((torch.arange(n, device=rows.device) + 0.5) / n for n in (h, w))
        places = self.position_weight * torch.cartesian_prod(down, right)  # (h * w, 2)
        return torch.cat([rows, places.repeat(B, 1)], dim=1)

    def _choose_axes(self, n_rows: int) -> None:
        width, dim = self.axes.shape
        if dim < width:
            sample = torch.arange(0, n_rows, math.ceil(n_rows / _SAMPLE))
            self.axes.copy_(principal_axes(rows_of(self._collected, sample).to(self.axes.device), dim))

    def _projected(self, rows: Tensor) -> Tensor:
        """What a coreset is chosen by: rows (R, D) as (R, d) float16 on the device of the model."""
        rows = rows.to(self.axes.device)
        width, dim = self.axes.shape
        if dim == width:
            return rows
        with torch.autocast(rows.device.type, enabled=False):
            return (rows.float() @ self.axes).half()

    def _check_fitted(self) -> None:
        if len(self.bank) == 0:
            raise TocsinError(
                "patchcore remembers nothing yet: train it, or load a checkpoint of a trained one"
            )

    # ------------------------------------------------------------------ scores

    def loss(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Mean image score, in units of the spread of the training patches around their mean."""
        return {"loss": self.score(batch.image).image.mean() / self.spread}

    @torch.no_grad()
    def score(self, images: Tensor) -> ImageScores:
        """Distances of the patches from their nearest neighbours in memory, in units of the features.

        Args:
            images: (B, 3, H, W) float32 in [0, 1].

        Returns:
            The map, bilinear between patches and smoothed; the largest score of a patch, re-weighted, or the mean of
            the largest ones.

        Raises:
            TocsinError: Nothing is remembered yet.
        """
        self._check_fitted()
        features = self.features(images)  # (B, h, w, D)
        B, h, w, _ = features.shape
        with torch.autocast(images.device.type, enabled=False):
            rows = self._rows(features)  # (B * h * w, E)
            found = nearest(rows, self.bank, self.n_neighbours)
            patches = (found.distances.mean(dim=1) * self.spread).reshape(B, h * w)
            if self.image_share:
                image = patches.topk(max(1, int(self.image_share * h * w)), dim=1).values.mean(dim=1)
            else:
                highest, place = patches.max(dim=1)
                at = place + h * w * torch.arange(B, device=place.device)  # (B,) rows of the highest patches
                image = highest * self._weights(rows[at], found.indices[at, 0], found.distances[at, 0])
            scores = resized_and_smoothed(patches.reshape(B, h, w), images.shape[2:], self.smoothing)
        return ImageScores(map=scores, image=image)

    def _weights(self, rows: Tensor, places: Tensor, distances: Tensor) -> Tensor:
        """Weights (B,) in [0, 1] of the image scores: low where memory is dense around the nearest entry.

        Args:
            rows: (B, E) what is compared of q*, of the highest patches.
            places: (B,) where in memory their nearest entries m* are.
            distances: (B,) from m* to q*.
        """
        if min(self.reweight_neighbours, len(self.bank)) == 1:  # alone, m* would always weigh 0
            return torch.ones_like(distances)
        around = nearest(
            self.bank[places].float(), self.bank, self.reweight_neighbours
        ).indices  # (B, b): N_b(m*)
        to_query = torch.linalg.vector_norm(rows.unsqueeze(1) - self.bank[around].float(), dim=2)  # (B, b)
        return 1.0 - torch.exp(self.spread * distances - torch.logsumexp(self.spread * to_query, dim=1))


def resized_and_smoothed(maps: Tensor, size: Sequence[int], sigma: float) -> Tensor:
    """Maps (B, h, w) at another size, bilinear, then smoothed by a Gaussian. At the border the last value goes on.

    Both are linear and separable, so that one small matrix per axis does both.
    """
    down, right = (_axis_matrix(n, m, sigma, maps) for n, m in zip(maps.shape[1:], size, strict=True))
    return down @ maps @ right.T


def _axis_matrix(n: int, size: int, sigma: float, like: Tensor) -> Tensor:
    """(size, n) matrix that resizes n values and smooths them."""
    unit = torch.eye(n, dtype=like.dtype, device=like.device)[:, None]  # (n, 1, n)
    resized = F.interpolate(unit, size=size, mode="linear")  # (n, 1, size)
    if sigma > 0:
        reach = int(_TRUNCATE * sigma + 0.5)
        steps = torch.arange(-reach, reach + 1, dtype=like.dtype, device=like.device)
        kernel = torch.softmax(-steps.square() / (2.0 * sigma**2), dim=0)
        resized = F.conv1d(F.pad(resized, (reach, reach), mode="replicate"), kernel[None, None])
    return resized[:, 0].T
