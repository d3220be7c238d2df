"""The terms of the masked auto-encoder's losses, as pure functions (AED-MAE, section 3; see `mae`)."""

import torch
from torch import Tensor

from tocsin.models.patchify import to_patches

_EPS = 1e-6


def change_weights(x: Tensor, patch_size: int, raised: Tensor | None = None) -> Tensor:
    """Weight of each patch by its steepest change, the w_i of AED-MAE.

    Args:
        x: (B, T, C) float, standardised.
        patch_size: Steps of a patch.
        raised: (B, T) bool, points whose patches get the largest weight of their window; None = none.

    Returns:
        (B, N) float > 0, each row sums to 1.
    """
    padded = torch.cat([x[:, :1], x, x[:, -1:]], dim=1)
    change = (padded[:, 2:] - padded[:, :-2]).abs()  # |x_{t+1} - x_{t-1}| (B, T, C)
    steepest = to_patches(change, patch_size).amax(dim=-1) + _EPS  # (B, N)
    if raised is not None:
        steepest = torch.where(
            touched_patches(raised, patch_size), steepest.amax(dim=1, keepdim=True), steepest
        )
    return steepest / steepest.sum(dim=1, keepdim=True)


def touched_patches(points: Tensor, patch_size: int) -> Tensor:
    """Patches (B, N) bool that hold a marked point of (B, T) bool."""
    return to_patches(points[:, :, None], patch_size).any(dim=-1)


def push_apart(discrepancy: Tensor, anomalous: Tensor, margin: float, growth: float) -> Tensor:
    """The hinge of the semi-supervised term: anomalous patches should differ by at least a margin.

    Args:
        discrepancy: (B, N) float >= 0, d_p.
        anomalous: (B, N) bool.
        margin: Least discrepancy wanted.
        growth: Weight of the anomalous patches, in [0, 1].

    Returns:
        (B, N) float >= 0: d_p on normal patches, growth * relu(margin - d_p) on anomalous ones.
    """
    return torch.where(anomalous, growth * (margin - discrepancy).relu(), discrepancy)
