"""Losses that several detectors share, as pure functions."""

import torch
from torch import Tensor

_LEAST_DOUBT = 1e-6  # 1 - p, whose power would have an infinite slope at 0
_TINY = 1e-8  # keeps logarithms finite and is lost beside 1, so that certainty costs exactly 0


def focal_cross_entropy(
    logits: Tensor, target: Tensor, *, gamma: float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy against class probabilities in which what is already likely counts less.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, section 3.2, summed over the classes of a soft
    target: -sum_k y_k (1 - p_k)^gamma log p_k. `gamma=0` is the plain cross-entropy.

    Args:
        logits: (..., K) float.
        target: (...) int64, classes in [0, K), or (..., K) float, probabilities that sum to 1.
        gamma: Focus on what is unlikely; 0 = none.
        label_smoothing: Share of the target that is spread evenly over all classes, in [0, 1].

    Returns:
        (...) float32 >= 0, in nats.
    """
    log_p = logits.float().log_softmax(dim=-1)
    classes = log_p.shape[-1]
    if not target.is_floating_point():
        target = torch.nn.functional.one_hot(target, classes)  # (..., K)
    target = target.to(log_p) * (1.0 - label_smoothing) + label_smoothing / classes
    if gamma:
        # 1 - p through expm1: exact where p is near 1. The floor keeps the slope of the power finite for gamma < 1.
        target = target * (-torch.expm1(log_p)).clamp(min=_LEAST_DOUBT) ** gamma
    return -(target * log_p).sum(dim=-1)


def focal_log_loss(p: Tensor, *, gamma: float = 0.0, label_smoothing: float = 0.0) -> Tensor:
    """`focal_cross_entropy` of two outcomes, of the probability of the one that should come true.

    Args:
        p: (...) float in [0, 1].
        gamma: Focus on what is unlikely; 0 = none.
        label_smoothing: Share of the target that is spread evenly over both outcomes, in [0, 1].

    Returns:
        (...) float >= 0, in nats: without smoothing 0 if and only if p is 1; finite where p is 0.
    """
    loss = _log_loss(p, gamma)
    if label_smoothing:
        other = _log_loss((1.0 - p).clamp(min=0), gamma)
        loss = (1.0 - label_smoothing / 2) * loss + label_smoothing / 2 * other
    return loss


def _log_loss(p: Tensor, gamma: float) -> Tensor:
    loss = -(p + _TINY).log()
    return loss * (1.0 - p).clamp(min=_LEAST_DOUBT) ** gamma if gamma else loss
