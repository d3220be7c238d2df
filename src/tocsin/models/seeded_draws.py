"""Random numbers from a seed for each image, drawn for a whole batch at once.

A `torch.Generator` has one state for a batch, so that what an image gets depends on those drawn beside it. Here a
number is a hash of the image's seed and of how many draws came before (the finaliser of MurmurHash3, twice, as in
counter-based generators: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011): the same on any
device, in any batch and in any epoch.
"""

import torch
from torch import Tensor

_WEYL = 0x61C8864680B583EB  # odd: successive counters differ in many bits
_MIX = (-0x00AE502812AA7333, -0x3B314601E57A13AD)  # the constants of MurmurHash3, as signed numbers
_BITS = 24  # of a float32 in [0, 1)


def _mixed(x: Tensor) -> Tensor:
    """Spread every bit of (...) int64 over all of them."""
    for factor in _MIX:
        x = (x ^ _shifted(x)) * factor
    return x ^ _shifted(x)


def _shifted(x: Tensor) -> Tensor:
    return (x >> 33) & 0x7FFFFFFF  # without the sign, which a shift of int64 would drag along


class SeededDraws:
    """Draws for images of which each has a seed of its own.

    Args:
        seeds: (B,) int64. They are best on the CPU: what is drawn there can choose images without waiting for a
            device.
    """

    def __init__(self, seeds: Tensor) -> None:
        self._keys = _mixed(seeds * _WEYL)
        self._used = 0

    def __len__(self) -> int:
        return len(self._keys)

    def at(self, rows: Tensor) -> "SeededDraws":
        """Draws for the images of these (R,) places alone, which get what they would have got in the whole batch."""
        chosen = SeededDraws(self._keys[:0])
        chosen._keys, chosen._used = self._keys[rows], self._used
        return chosen

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers (B, *shape) float32, uniform in [low, high)."""
        count = torch.Size(shape).numel()
        counters = torch.arange(self._used + 1, self._used + 1 + count, device=self._keys.device)
        self._used += count
        hashed = _mixed(self._keys[:, None] + counters * _WEYL)  # (B, count)
        unit = ((hashed >> (64 - _BITS)) & ((1 << _BITS) - 1)).float() / (1 << _BITS)
        return (low + (high - low) * unit).reshape(len(self), *shape)  # (B, *shape)

    def integers(self, *shape: int, n: int) -> Tensor:
        """Whole numbers (B, *shape) int64, uniform in [0, n)."""
        return (self.uniform(*shape) * n).long().clamp(max=n - 1)

    def permutation(self, n: int) -> Tensor:
        """An order (B, n) int64 of the numbers from 0 to n - 1 for each image."""
        return self.uniform(n).argsort(dim=1)
