"""Layers that look at a whole batch do so where several processes share it: batch normalisation and dropout.

The network is left as it is. While its loss is computed, calls of these two functions are answered for the whole
batch: statistics are those of all items, and dropout is drawn for all of them (see `batch_share`). Unlike
`torch.nn.SyncBatchNorm` this works on a CPU and with layers that add an activation to the normalisation (timm's).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tocsin.models.batch_share import BatchShare


class WholeBatch(TorchFunctionMode):
    """While active, normalises and drops out over all items of a shared batch.

    Args:
        share: What this process has of the batch.
    """

    def __init__(self, share: BatchShare) -> None:
        super().__init__()
        self.share = share

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        if func is F.batch_norm:
            return self._batch_norm(*args, **options)
        if func is F.dropout:
            return self._dropout(*args, **options)
        return func(*args, **options)

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        mean, var, count = moments(x, self.share)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean), momentum)
                running_var.lerp_((var * count / (count - 1).clamp(min=1)).to(running_var), momentum)
        shape = (1, -1, *(1,) * (x.ndim - 2))
        scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
        shift = -mean * scale if bias is None else bias - mean * scale
        return (x * scale.view(shape) + shift.view(shape)).to(x.dtype)

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return x
        if len(x) % max(self.share.n_own, 1):  # no rows of items, but some chosen ones
            return F.dropout(x, p, training, inplace)
        # As torch does it, in the order of the numbers in memory.
        order = sorted(range(x.ndim), key=lambda axis: -x.stride()[axis])
        shape = (self.share.total(len(x)), *x.shape[1:])
        kept = x.new_empty([shape[axis] for axis in order])
        kept = kept.permute([order.index(axis) for axis in range(x.ndim)])
        kept.bernoulli_(1 - p, generator=self.share.generator(x.device)).div_(1 - p)
        return x * self.share.own(kept)


def moments(x: Tensor, share: BatchShare) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel over all items of a shared batch.

    Args:
        x: (R, C, ...) the own rows.
        share: What they are part of.

    Returns:
        Mean (C,), variance (C,) with the count as divisor, and the count, a scalar.
    """
    axes = [0, *range(2, x.ndim)]
    real = (x if share.n_own else x[:0]).to(torch.promote_types(x.dtype, torch.float32))
    own = real.new_full((1,), real.numel() / x.shape[1])
    sums = share.summed(torch.cat([real.sum(dim=axes), own]))
    mean, count = sums[:-1] / sums[-1], sums[-1].detach()
    apart = real - mean.view(1, -1, *(1,) * (x.ndim - 2))
    return mean, share.summed(apart.square().sum(dim=axes)) / count, count
