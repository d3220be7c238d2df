"""Batches shared out among processes: each gets its part of the batches that one process alone would see.

So `data.batch_size` means the same however many processes train, no item is left out, and none counts twice. A
process that has nothing of a batch, as it can happen with the last one, gets a copy of its first item to stay in
step with the others; `sizes` tells that it counts for nothing.
"""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import BatchSampler, DataLoader


class SharedBatches(BatchSampler):
    """The part of each batch that one of several processes gets; parts follow each other by rank.

    Args:
        whole: Draws whole batches.
        world: Processes.
        rank: Of this process.
    """

    def __init__(self, whole: BatchSampler, *, world: int, rank: int) -> None:
        super().__init__(whole.sampler, whole.batch_size, whole.drop_last)
        self.whole = whole
        self.world = world
        self.rank = rank

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self.whole:
            sizes = part_sizes(len(batch), self.world)
            begin = sum(sizes[: self.rank])
            yield batch[begin : begin + sizes[self.rank]] or batch[:1]

    def sizes(self, index: int) -> list[int]:
        """Items that each process has of a batch, by its number in the epoch."""
        left = len(self.sampler) - index * self.batch_size  # type: ignore[arg-type]
        return part_sizes(min(left, self.batch_size), self.world)


def part_sizes(n_items: int, world: int) -> list[int]:
    """Sizes of the parts of a batch, as even as can be; the first ranks have one more."""
    return [n_items // world + (rank < n_items % world) for rank in range(world)]


def shared_out(loader: DataLoader[Any], *, world: int, rank: int) -> DataLoader[Any]:
    """A loader that gives the part of one process of each batch."""
    batches: Any = loader.batch_sampler  # the Trainer may have put one of its own around it
    return _with_batches(loader, SharedBatches(batches, world=world, rank=rank))


def whole_batches(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The loader of whole batches behind one that was shared out; any other loader as it is."""
    shared = loader.batch_sampler
    return _with_batches(loader, shared.whole) if isinstance(shared, SharedBatches) else loader


def _with_batches(loader: DataLoader[Any], batches: BatchSampler) -> DataLoader[Any]:
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,
        num_workers=loader.num_workers,
        persistent_workers=loader.persistent_workers,
        collate_fn=loader.collate_fn,
    )
