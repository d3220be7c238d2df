"""What a detector does with a batch of which it sees only a part, because several processes share it.

Three things in a loss look beyond the own items: random numbers, means whose divisor depends on what was drawn, and
items that meet each other. A detector asks its `share` for them; for a process that is alone, each answer is the
plain one. Numbers are drawn for the whole batch, by every process alike, and each takes those of its items: so an
item is treated the same whatever process it falls to.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class CommonNumbers:
    """Generators of random numbers that all processes draw alike, one for each device.

    Args:
        seed: The same in all processes.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def generator(self, device: torch.device) -> torch.Generator:
        """Generator of the numbers on a device; it goes on where the last draw ended."""
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


class BatchShare:
    """The items of a batch that this process has; they follow those of the ranks before.

    Args:
        sizes: Items that each process has; empty where there is one process alone. One that has none is given a
            copy of an item, which counts for nothing.
        rank: Of this process.
        numbers: What all processes draw from; needed where there are several.
    """

    def __init__(
        self, sizes: Sequence[int] = (), rank: int = 0, numbers: CommonNumbers | None = None
    ) -> None:
        self.sizes = tuple(sizes)
        self.rank = rank
        self._numbers = numbers

    @property
    def alone(self) -> bool:
        """Whether this process has all of the batch."""
        return len(self.sizes) < 2

    @property
    def n_own(self) -> int:
        """Items that this process really has; 0 if what it was given counts for nothing."""
        return self.sizes[self.rank]

    @property
    def weight(self) -> float:
        """Factor of the mean over the own items that makes the mean of all processes that of the batch."""
        return 1.0 if self.alone else len(self.sizes) * self.n_own / sum(self.sizes)

    def total(self, rows: int) -> int:
        """Rows of the whole batch, of which this process has `rows`, one or more for each item."""
        return rows if self.alone else rows // max(self.n_own, 1) * sum(self.sizes)

    def own(self, whole: Tensor) -> Tensor:
        """The rows (R, ...) of this process of (N, ...), which has as many rows for each item of the whole batch."""
        if self.alone:
            return whole
        per_item = len(whole) // sum(self.sizes)
        begin = sum(self.sizes[: self.rank]) if self.n_own else 0
        return whole[begin * per_item : (begin + max(self.n_own, 1)) * per_item]

    # --- random numbers ---------------------------------------------------------------------------------

    def generator(self, device: torch.device | None = None) -> torch.Generator | None:
        """What is drawn from for the whole batch; None, torch's own numbers, where this process is alone."""
        if self.alone:
            return None
        assert self._numbers is not None
        return self._numbers.generator(device or torch.device("cpu"))

    def uniform(self, rows: int, *shape: int, device: torch.device | None = None) -> Tensor:
        """Numbers (rows, *shape) float32, uniform in [0, 1), for the own items."""
        size = (self.total(rows), *shape)
        return self.own(torch.rand(size, device=device, generator=self.generator(device)))

    def normal(self, rows: int, *shape: int, device: torch.device | None = None) -> Tensor:
        """Numbers (rows, *shape) float32 of a standard normal distribution, for the own items."""
        size = (self.total(rows), *shape)
        return self.own(torch.randn(size, device=device, generator=self.generator(device)))

    def integers(self, high: int, rows: int, device: torch.device | None = None) -> Tensor:
        """Whole numbers (rows,) int64, uniform in [0, high), for the own items."""
        size = (self.total(rows),)
        return self.own(torch.randint(high, size, device=device, generator=self.generator(device)))

    def one_integer(self, high: int) -> int:
        """A whole number in [0, high) for the whole batch."""
        return int(torch.randint(high, (), generator=self.generator()))

    # --- all items --------------------------------------------------------------------------------------

    def whole(self, rows: Tensor) -> Tensor:
        """The rows (N, ...) of the whole batch, of which this process has (R, ...); without gradients."""
        if self.alone:
            return rows
        per_item = len(rows) // max(self.n_own, 1)
        counts = [size * per_item for size in self.sizes]
        sent = rows.new_zeros(max(counts), *rows.shape[1:])
        sent[: counts[self.rank]] = rows.detach()[: counts[self.rank]]
        received = [torch.empty_like(sent) for _ in counts]
        _gather(received, sent)
        return torch.cat([part[:count] for part, count in zip(received, counts, strict=True)])

    def mean(self, values: Tensor) -> Tensor:
        """Mean of (R,) values, whose number may differ between processes; see `ratio`."""
        if self.alone:
            return values.mean()
        return self.ratio(values.sum(), torch.full((), len(values), device=values.device))

    def ratio(self, total: Tensor, count: Tensor) -> Tensor:
        """A sum over a count of what is summed, neither of which is known to one process alone.

        Returns:
            Scalar; the mean of the processes' values, each times its `weight`, is the ratio for the whole batch.
        """
        if self.alone:
            return total / count
        everywhere = self.summed(count.float())
        return total / everywhere * (sum(self.sizes) / max(self.n_own, 1))

    def average(self, mean: Tensor) -> Tensor:
        """Mean (...) over the items of the whole batch, from that over the own ones; gradients flow through it."""
        return mean if self.alone else self.summed(mean * self.weight) / len(self.sizes)

    def summed(self, values: Tensor) -> Tensor:
        """Sum over all processes of values (...), through which gradients flow."""
        found: Tensor = _Sum.apply(values)
        return found


def _gather(received: list[Tensor], sent: Tensor) -> None:
    """Gather as bytes: not every backend knows every type."""
    dist.all_gather([_bytes(part) for part in received], _bytes(sent))


def _bytes(rows: Tensor) -> Tensor:
    return rows.reshape(-1).view(torch.uint8)  # a view of what is contiguous


class _Sum(torch.autograd.Function):
    """Sum over all processes; the gradient of what all of them read is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        found = values.clone()
        dist.all_reduce(found)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        found = gradients[0].clone()
        dist.all_reduce(found)
        return found


ALONE = BatchShare()
