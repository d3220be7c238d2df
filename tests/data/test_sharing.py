"""Batches shared out among processes: nothing lost, nothing twice, in order."""

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from tocsin.data.module import as_is
from tocsin.data.sharing import part_sizes, shared_out, whole_batches


class Numbers(torch.utils.data.Dataset[list[int]]):
    """Items that are their own places."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> list[int]:
        return [index]

    def __getitems__(self, indices: list[int]) -> list[int]:
        return list(indices)


def loader(n: int, batch_size: int) -> DataLoader[list[int]]:
    return DataLoader(Numbers(n), batch_size=batch_size, collate_fn=as_is)


@pytest.mark.parametrize(("n", "world", "expected"), [(7, 2, [4, 3]), (1, 3, [1, 0, 0]), (6, 3, [2, 2, 2])])
def test_parts_are_as_even_as_can_be(n: int, world: int, expected: list[int]) -> None:
    assert part_sizes(n, world) == expected


@pytest.mark.parametrize(("n", "batch_size", "world"), [(20, 5, 2), (21, 5, 2), (21, 4, 3), (3, 8, 2)])
def test_parts_that_count_make_the_batches_of_one_process(n: int, batch_size: int, world: int) -> None:
    whole = loader(n, batch_size)
    parts = [shared_out(whole, world=world, rank=rank) for rank in range(world)]
    batches = list(whole)
    for index, (batch, *own) in enumerate(zip(batches, *parts, strict=True)):
        sizes = parts[0].batch_sampler.sizes(index)  # type: ignore[union-attr]
        assert [number for size, part in zip(sizes, own, strict=True) for number in part[:size]] == batch
        assert all(part for part in own)  # who has nothing is given something to stay in step with
    assert len(parts[0]) == len(batches)


def test_a_process_without_an_item_gets_a_copy_of_the_first() -> None:
    last = [list(shared_out(loader(21, 5), world=3, rank=rank))[-1] for rank in range(3)]
    assert last == [[20], [20], [20]]
    assert shared_out(loader(21, 5), world=3, rank=0).batch_sampler.sizes(4) == [1, 0, 0]  # type: ignore[union-attr]


def test_all_processes_see_whole_batches_where_they_ask_for_them() -> None:
    whole = loader(11, 4)
    assert list(whole_batches(shared_out(whole, world=2, rank=1))) == list(whole)
    assert whole_batches(whole) is whole


def test_the_order_follows_the_epoch() -> None:
    """The Trainer sets the epoch of the sampler that it finds in the batch sampler."""
    sampler: DistributedSampler[list[int]] = DistributedSampler(Numbers(12), num_replicas=1, rank=0, seed=3)
    whole = DataLoader(Numbers(12), batch_size=4, sampler=sampler, collate_fn=as_is)
    parts = [shared_out(whole, world=2, rank=rank) for rank in (0, 1)]
    first = [part for batch in zip(*parts, strict=True) for part in batch]
    parts[1].batch_sampler.sampler.set_epoch(1)  # type: ignore[union-attr]
    second = [part for batch in zip(*parts, strict=True) for part in batch]
    for parts_of_epoch in (first, second):
        assert sorted(number for part in parts_of_epoch for number in part) == list(range(12))
    assert first != second
