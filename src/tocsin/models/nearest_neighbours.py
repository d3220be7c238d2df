"""Exact nearest neighbours without a matrix of all distances.

Queries and bank are moved so that the bank's mean is the origin, and cut into tiles. A matrix product ranks the
entries of a tile by |y|^2 - 2 x y, which loses digits to cancellation; those that win get their distance from
the difference itself, in float32.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_CPU_TILE = (4096, 2048)  # queries by entries; a converted tile of the bank serves many queries
_TILE = (8192, 16384)


class Neighbours(NamedTuple):
    """The nearest entries of a bank, from near to far.

    Attributes:
        distances: (Q, k) float32, Euclidean.
        indices: (Q, k) int64, places in the bank.
    """

    distances: Tensor
    indices: Tensor


@torch.no_grad()
def nearest(queries: Tensor, bank: Tensor, k: int = 1, *, tile: tuple[int, int] | None = None) -> Neighbours:
    """The k nearest entries of a bank for each query.

    Memory beside the arguments: one tile of distances, whatever Q and M.

    Args:
        queries: (Q, D) float.
        bank: (M, D) float of any precision; its entries are compared in float32.
        k: Neighbours per query; min(k, M) where the bank is smaller.
        tile: Queries and entries that are compared at a time; None for what suits the device.

    Raises:
        ValueError: The bank is empty.
    """
    if len(bank) == 0:
        raise ValueError("the bank is empty, so that nothing is near")
    rows, columns = tile or (_CPU_TILE if bank.device.type == "cpu" else _TILE)
    centre = bank.float().mean(dim=0)
    k = min(k, len(bank))
    with torch.autocast(bank.device.type, enabled=False):
        parts = [
            _nearest_of(x.float() - centre, bank, centre, k, columns) for x in torch.split(queries, rows)
        ]
    return Neighbours(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _nearest_of(queries: Tensor, bank: Tensor, centre: Tensor, k: int, columns: int) -> Neighbours:
    """Neighbours of a tile of centred queries (Q, D), with a running best over the tiles of the bank."""
    one = queries.new_ones(len(queries), 1)
    left = torch.cat([queries, one], dim=1)  # (Q, D + 1)
    values = indices = None
    for start in range(0, len(bank), columns):
        entries = bank[start : start + columns].float() - centre  # (E, D)
        norms = entries.square().sum(dim=1, keepdim=True)
        ranks = left @ torch.cat([-2.0 * entries, norms], dim=1).T  # (Q, E): d^2 - |x|^2, in one product
        found, places = _smallest(ranks, min(k, len(entries)))
        places = places + start
        if values is not None and indices is not None:
            both = torch.cat([values, found], dim=1)
            found, order = _smallest(both, min(k, both.shape[1]))
            places = torch.cat([indices, places], dim=1).gather(1, order)
        values, indices = found, places
    assert indices is not None
    return _measured(queries, bank, centre, indices)


def _smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest of each row and their columns."""
    if k == 1:  # several times faster than topk
        least, columns = values.min(dim=1, keepdim=True)
    else:
        least, columns = values.topk(k, dim=1, largest=False)
    return least, columns


def _measured(queries: Tensor, bank: Tensor, centre: Tensor, indices: Tensor) -> Neighbours:
    """Distances from differences, and the order that follows from them."""
    entries = bank[indices].float() - centre  # (Q, k, D)
    distances = torch.linalg.vector_norm(queries.unsqueeze(1) - entries, dim=2)
    distances, order = distances.sort(dim=1, stable=True)
    return Neighbours(distances, indices.gather(1, order))
