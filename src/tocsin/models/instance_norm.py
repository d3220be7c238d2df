"""Standardise each window by its own mean and spread, and undo it afterwards.

Kim et al., "Reversible Instance Normalization for Accurate Time-Series Forecasting against Distribution
Shift", ICLR 2022, section 3, without the affine parameters. It forgives a level that wanders, and so it
erases level shifts: an option, off by default.
"""

from typing import NamedTuple

from torch import Tensor

_EPSILON = 1e-5  # of the variance, as published


class Instance(NamedTuple):
    """A batch of windows on their own scales.

    Attributes:
        x: (B, T, C) float, mean 0 and spread 1 in each window and channel.
        mean: (B, 1, C) float.
        scale: (B, 1, C) float > 0.
    """

    x: Tensor
    mean: Tensor
    scale: Tensor

    def undo(self, x: Tensor) -> Tensor:
        """Windows (B, T, C), such as reconstructions, back on the scale of the input."""
        return x * self.scale + self.mean


def standardise_instances(x: Tensor) -> Instance:
    """Standardise each window and channel of x (B, T, C)."""
    mean = x.mean(dim=1, keepdim=True)
    scale = (x.var(dim=1, keepdim=True, correction=0) + _EPSILON).sqrt()
    return Instance((x - mean) / scale, mean, scale)
