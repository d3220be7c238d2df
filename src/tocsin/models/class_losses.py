"""Losses of classifiers on soft targets, and the targets.

Sources: label smoothing, Szegedy et al., "Rethinking the Inception Architecture" (CVPR 2016), section 7; the focal
factor, Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), section 3, here for every class of a soft
target. Weights of classes multiply each term of a soft target, and their sum over the batch is divided by, so that
the size of the loss does not depend on which classes a batch holds.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tocsin.models.batch_share import ALONE, BatchShare


def smooth_targets(labels: Tensor, n_classes: int, smoothing: float) -> Tensor:
    """Targets that give every class a little.

    Args:
        labels: (B,) int64 in [0, K).
        n_classes: K.
        smoothing: Share of the mass that is spread over all K classes, in [0, 1).

    Returns:
        (B, K) float32, rows sum to 1: 1 - smoothing + smoothing / K for the class, smoothing / K for the others.
    """
    return F.one_hot(labels, n_classes).float() * (1 - smoothing) + smoothing / n_classes


def soft_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    class_weights: Tensor | None = None,
    focal_gamma: float = 0.0,
    share: BatchShare = ALONE,
) -> Tensor:
    """Cross-entropy between soft targets and softmax(logits), in fp32.

    Args:
        logits: (B, K).
        targets: (B, K), rows sum to 1.
        class_weights: (K,), positive; all 1 if None.
        focal_gamma: Each term is multiplied by (1 - p) ** focal_gamma: what is already right counts less.
        share: What the items are part of.

    Returns:
        Scalar, the mean over the batch; with weights, the weighted mean.
    """
    log_p = logits.float().log_softmax(dim=-1)
    terms = -targets * log_p  # (B, K)
    if focal_gamma > 0:
        terms = terms * (1 - log_p.exp()).clamp_min(0) ** focal_gamma
    if class_weights is None:
        return terms.sum(dim=-1).mean()
    total: Tensor = (targets * class_weights).sum()
    return share.ratio((terms * class_weights).sum(), total.clamp_min(torch.finfo(torch.float32).tiny))
