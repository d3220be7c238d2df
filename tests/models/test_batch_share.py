"""What is drawn for a whole batch, and which part of it each process takes."""

import pytest
import torch

from tocsin.models.batch_share import ALONE, BatchShare, CommonNumbers
from tocsin.models.mae import MaskedAutoencoder

SIZES = (3, 2, 0)


def shares(seed: int = 7) -> list[BatchShare]:
    return [BatchShare(SIZES, rank, CommonNumbers(seed)) for rank in range(3)]


def joined(parts: list[torch.Tensor], per_item: int = 1) -> torch.Tensor:
    """The rows that count; a process without an item draws for its copy of one."""
    return torch.cat([part[: size * per_item] for size, part in zip(SIZES, parts, strict=True)])


@pytest.mark.parametrize("per_item", [1, 4])
def test_processes_draw_what_one_alone_would(per_item: int) -> None:
    torch.manual_seed(7)
    rows = 5 * per_item
    expected = (
        ALONE.uniform(rows, 2), ALONE.normal(rows, 3), ALONE.integers(9, rows), ALONE.one_integer(100)
    )  # fmt: skip
    own = [per_item * max(size, 1) for size in SIZES]
    found = [
        (s.uniform(n, 2), s.normal(n, 3), s.integers(9, n), s.one_integer(100))
        for s, n in zip(shares(), own, strict=True)
    ]
    for index in range(3):
        assert torch.equal(joined([draws[index] for draws in found], per_item), expected[index])
    assert {draws[3] for draws in found} == {expected[3]}
    assert [len(draws[0]) for draws in found] == own


def test_a_process_alone_draws_from_torchs_own_numbers() -> None:
    torch.manual_seed(7)
    found = ALONE.uniform(4, 2)
    torch.manual_seed(7)
    assert torch.equal(found, torch.rand(4, 2))
    assert ALONE.weight == 1
    assert ALONE.generator() is None


def test_weights_make_the_mean_of_the_processes_that_of_the_batch() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 10.0, 20.0])
    means = [values[:3].mean(), values[3:].mean(), torch.tensor(99.0)]  # the last has a copy of an item
    weighted = [share.weight * mean for share, mean in zip(shares(), means, strict=True)]
    assert float(sum(weighted) / 3) == pytest.approx(float(values.mean()))


def test_common_numbers_go_on_from_draw_to_draw() -> None:
    numbers = CommonNumbers(1)
    first, second = (BatchShare((1, 1), 0, numbers).uniform(1, 4) for _ in range(2))
    assert not torch.equal(first, second)


def test_the_masks_of_an_item_do_not_depend_on_its_process() -> None:
    detector = MaskedAutoencoder(
        window=40, n_channels=3, patch_size=10, d_model=8, n_heads=2, mask_unit="both"
    )
    x = torch.zeros(5, 40, 3)
    torch.manual_seed(7)
    whole = [detector._random_mask(unit, x).mask for unit in ("patch", "channel")]
    parts = []
    for share, size in zip(shares(), SIZES, strict=True):
        detector.share = share
        own = x[: max(size, 1)]
        parts.append([detector._random_mask(unit, own).mask for unit in ("patch", "channel")])
    for index in range(2):
        assert torch.equal(joined([masks[index] for masks in parts]), whole[index])
