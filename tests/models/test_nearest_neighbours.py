import numpy as np
import pytest
import torch
from live_memory import LiveMemory
from torch import Tensor

from tocsin.models.nearest_neighbours import nearest


def rows(n: int, width: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def brute_force(queries: Tensor, bank: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices in double precision, from all differences."""
    differences = queries.double().numpy()[:, None] - bank.double().numpy()[None]
    distances = np.sqrt((differences**2).sum(axis=2))
    order = distances.argsort(axis=1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


@pytest.mark.parametrize("k", [1, 3, 40])
@pytest.mark.parametrize("tile", [None, (7, 11), (50, 300)])
def test_neighbours_are_those_of_brute_force(k: int, tile: tuple[int, int] | None) -> None:
    queries, bank = rows(50), rows(301, seed=1)
    found = nearest(queries, bank, k, tile=tile)
    distances, order = brute_force(queries, bank, k)
    np.testing.assert_array_equal(found.indices.numpy(), order)
    np.testing.assert_allclose(found.distances.numpy(), distances, rtol=1e-5)


def test_data_far_from_the_origin_keep_their_digits() -> None:
    queries, bank = rows(50) + 1_000.0, rows(300, seed=1) + 1_000.0
    distances, order = brute_force(queries, bank, 2)
    product = (
        (queries.square().sum(1)[:, None] + bank.square().sum(1) - 2 * queries @ bank.T).clamp(min=0).sqrt()
    )
    assert np.abs(product.amin(dim=1).numpy() / distances[:, 0] - 1).max() > 0.02  # what is to be avoided
    found = nearest(queries, bank, 2)
    np.testing.assert_array_equal(found.indices.numpy(), order)
    np.testing.assert_allclose(found.distances.numpy(), distances, rtol=1e-4)


def test_an_entry_is_at_distance_zero_of_itself_even_far_away() -> None:
    bank = rows(300) * 100.0 + 5_000.0
    found = nearest(bank, bank)
    assert (found.distances == 0).all()
    assert torch.equal(found.indices[:, 0], torch.arange(300))


def test_nearly_equal_distances_are_in_order() -> None:
    bank = torch.nn.functional.normalize(rows(500)) * 10.0  # all 10 from the origin, but for rounding
    found = nearest(torch.zeros(1, 16), bank, 500).distances[0]
    assert (found.diff() >= 0).all()
    assert len(found.unique()) > 1


def test_copies_in_the_bank_are_found_one_by_one() -> None:
    bank = rows(5).repeat(4, 1)
    found = nearest(rows(5), bank, 5, tile=(2, 3))
    assert (found.distances[:, :4] == 0).all()
    assert (found.distances[:, 4] > 0).all()
    for query in range(5):
        assert sorted(found.indices[query, :4].tolist()) == [query, query + 5, query + 10, query + 15]


def test_small_bank_gives_all_it_has_and_an_empty_one_says_so() -> None:
    assert nearest(rows(4), rows(2, seed=1), 9).indices.shape == (4, 2)
    with pytest.raises(ValueError, match="the bank is empty"):
        nearest(rows(4), rows(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_entries_of_few_digits_are_compared_in_full_precision(dtype: torch.dtype) -> None:
    queries, bank = rows(50), rows(300, seed=1).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = nearest(queries, bank, 2)
    distances, order = brute_force(queries, bank.float(), 2)
    assert found.distances.dtype == torch.float32
    np.testing.assert_array_equal(found.indices.numpy(), order)
    np.testing.assert_allclose(found.distances.numpy(), distances, rtol=1e-5)


def test_memory_is_that_of_a_tile() -> None:
    queries, bank = rows(2_000), rows(3_000, seed=1)
    with LiveMemory() as memory:
        nearest(queries, bank, tile=(100, 200))
    assert memory.peak < 0.03 * 4 * len(queries) * len(bank)  # a matrix of all distances
    with LiveMemory() as whole:
        nearest(queries, bank, tile=(len(queries), len(bank)))
    assert whole.peak > 4 * len(queries) * len(bank)
