"""DRAEM-SevNet: DRAEM whose discriminative encoder also says how severe an anomaly is.

The model was public in a fork of anomalib for a while (taewanHwang/anomalib, August and September 2025): a head on
the encoder's features predicts the strength of the synthetic fault, and the image score joins it with that of the
map. What differs: the target can be seen in the image and is bounded, see `severity`; the head ends in a sigmoid and
is trained with a smooth L1 loss whose weight is warmed up; its features are normalised; the score of the map is
DRAEM's own; and the fusion may be fitted, see `score_fusion`.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from tocsin.batch import ImageBatch
from tocsin.models.anomaly_synthesis import Synthetic
from tocsin.models.base import ImageScores
from tocsin.models.checks import check_range
from tocsin.models.draem import Draem, first_images, map_score, probabilities
from tocsin.models.score_fusion import ScoreFusion
from tocsin.models.severity import SeverityHead, SeverityReport, check_target, raw_severity, severity_report

_BETA = 0.1  # where the smooth L1 loss turns from square to line
_QUANTILE = 0.99  # of the raw severities, which becomes severity 1
_SCALE_BATCH = 32
_SCALE_ROUNDS = 8
_TINY = 1e-12


class DraemSevNet(Draem):
    """DRAEM with a severity head. For arguments not named here see `Draem`.

    Args:
        multi_scale: Let the head read blocks two to six of the encoder, not the last alone.
        pooling: `gap`: the mean of each map; `spatial_aware`: attention and a convolution, pooled to 4x4 cells.
        dropout: Of the head, in [0, 1).
        detach_features: Let the severity loss leave the encoder as it is.
        severity_target: `contrast_area`: how far the image was changed, times a power of the anomaly's extent;
            `contrast`: without the extent; `blend_area`: opacity or strength for the change; `amplitude`: that alone.
        severity_weight: Weight of the severity loss, >= 0.
        warmup: Share of the training in which that weight grows from 0, in [0, 1].
        fusion: How the score of an image is made of that of its map and its severity: `mean`, `weighted`, `max`, or
            fitted after the training, `logistic` on synthetic anomalies and `calibrated` on normal images.
        severity_share: Weight of the severity for `fusion=weighted`, in [0, 1].

    Raises:
        ValueError: If a value is outside its range.
        ConfigError: `texture_source=dir` without `texture_dir`.
    """

    steps: Tensor
    severity_unit: Tensor

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
        multi_scale: bool = True,
        pooling: str = "gap",
        dropout: float = 0.1,
        detach_features: bool = False,
        severity_target: str = "contrast_area",
        severity_weight: float = 0.5,
        warmup: float = 0.1,
        fusion: str = "mean",
        severity_share: float = 0.5,
    ) -> None:
        super().__init__(
            recon_width=recon_width,
            disc_width=disc_width,
            anomaly=anomaly,
            anomaly_probability=anomaly_probability,
            amplitude=amplitude,
            rotation=rotation,
            texture_source=texture_source,
            texture_dir=texture_dir,
            n_textures=n_textures,
            score=score,
        )
        check_target(severity_target)
        check_range("severity_weight", severity_weight, severity_weight >= 0.0, "at least 0")
        check_range("warmup", warmup, 0.0 <= warmup <= 1.0, "in [0, 1]")
        self.severity_target = severity_target
        self.severity_weight = severity_weight
        self.warmup = warmup
        self.head = SeverityHead(
            self.discriminative.channels,
            multi_scale=multi_scale,
            pooling=pooling,
            dropout=dropout,
            detach=detach_features,
        )
        self.fusion = ScoreFusion(fusion=fusion, weight=severity_share)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("severity_unit", torch.ones(()))

    # ------------------------------------------------------------------ training

    def prepare(self, train_batches: Iterable[ImageBatch]) -> None:
        """Prepare DRAEM, then find which raw severity is 1: the 99th percentile of many synthetic anomalies.

        The target stays the same during the training, other than one scaled by a running percentile.
        """
        images = first_images(train_batches, self.textures.n)
        super().prepare([ImageBatch(images, torch.arange(len(images)))])
        found = []
        for start in range(0, _SCALE_ROUNDS * _SCALE_BATCH, _SCALE_BATCH):
            seeds = torch.arange(start, start + _SCALE_BATCH)
            some = images[seeds % len(images)] / self.unit
            raw = raw_severity(self.synthesis(some, seeds), self.severity_target)
            found.append(raw[raw > 0])
        severities = torch.cat(found)
        if len(severities):
            self.severity_unit.copy_(severities.quantile(_QUANTILE).clamp(min=_TINY))

    def true_severity(self, synthetic: Synthetic) -> Tensor:
        """Severity (B,) float32 in [0, 1] of synthetic anomalies, 0 where an image is normal."""
        return (raw_severity(synthetic, self.severity_target) / self.severity_unit).clamp(max=1.0)

    @property
    def severity_weight_now(self) -> Tensor:
        """Weight of the severity loss: warmed up in training; the full one in evaluation, so that epochs compare."""
        full = torch.full_like(self.severity_unit, self.severity_weight)
        if not self.training or not self.warmup:
            return full
        return full * (self.steps / (self.warmup * self.total_steps)).clamp(max=1.0)

    def after_step(self) -> None:
        self.steps += 1

    def loss(self, batch: ImageBatch) -> dict[str, Tensor]:
        """DRAEM's loss and that of the severity.

        Args:
            batch: Normal images; no label is read.

        Returns:
            `loss`; the terms `mse`, `ssim` and `focal` of DRAEM; and `severity`, before it is weighted.

        Raises:
            RuntimeError: `prepare` was not called before.
        """
        synthetic = self.synthetic(batch)
        reconstruction, logits, features = self.compare(synthetic.image)
        terms = self.losses(synthetic, reconstruction, logits)
        severity = F.smooth_l1_loss(self.head(features), self.true_severity(synthetic), beta=_BETA)
        total = terms.pop("loss") + self.severity_weight_now * severity
        return {"loss": total, **terms, "severity": severity}

    # ------------------------------------------------------------------ scoring

    def score(self, images: Tensor) -> ImageScores:
        """Probability of an anomaly at each pixel, and the fused score of the image.

        Args:
            images: (B, 3, H, W) float32.
        """
        anomaly_map, scores = self._scores(images)
        return ImageScores(anomaly_map, self.fusion(scores))

    def image_scores(self, images: Tensor) -> dict[str, Tensor]:
        """Scores (B,) float32 of images by their sources, higher = more anomalous: `mask`, `severity`, `fused`."""
        _, scores = self._scores(images)
        return {"mask": scores[:, 0], "severity": scores[:, 1], "fused": self.fusion(scores)}

    def severity(self, images: Tensor) -> Tensor:
        """Severity (B,) float32 in [0, 1] of images (B, 3, H, W), 0 = normal."""
        return self.image_scores(images)["severity"]

    def _scores(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The map (B, H, W) and what is fused: score of the map, severity, mean of the highest pixels (B, 3)."""
        _, logits, features = self.compare(images / self.unit)
        anomaly_map = probabilities(logits)
        scores = [
            map_score(anomaly_map, self.image_score),
            self.head(features),
            map_score(anomaly_map, "topk_mean"),
        ]
        return anomaly_map, torch.stack(scores, dim=1)

    # ------------------------------------------------------------------ after the training

    @torch.no_grad()
    def finalize(self, val_batches: Iterable[ImageBatch]) -> None:
        """Fit the fusion on normal images as they are and with the synthetic anomalies of the validation loss."""
        normal, odd, labels = [], [], []
        for batch in val_batches:
            synthetic = self.synthesis(batch.image / self.unit, batch.position.cpu())
            normal.append(self._scores(batch.image)[1])
            odd.append(self._scores(synthetic.image * self.unit)[1])
            labels.append(synthetic.mask.flatten(1).any(dim=1))
        if normal:
            self.fusion.fit(torch.cat(normal), torch.cat(odd), torch.cat(labels))

    @torch.no_grad()
    def report(self, images: Tensor, *, levels: int = 11) -> SeverityReport:
        """Evaluate the head on synthetic anomalies of rising amplitudes, always the same ones.

        Args:
            images: (N, 3, H, W) float32, normal.
            levels: Amplitudes from 0 to 1.
        """
        true, predicted = [], []
        for level in torch.linspace(0, 1, levels):
            synthetic = self.synthesis(
                images / self.unit, torch.arange(len(images)), level.expand(len(images))
            )
            true.append(self.true_severity(synthetic))
            predicted.append(self.severity(synthetic.image * self.unit))
        return severity_report(torch.stack(true).cpu(), torch.stack(predicted).cpu())
