"""Coresets: few points that lie near all others.

Greedy k-center (Gonzalez 1985; Roth et al., CVPR 2022, section 3.2): each pick is the point that is farthest from
those picked before. One pick at a time, every one reads all points: bound by memory, hours for a million.

Here it goes in sweeps. The picks of a sweep come from the points that are farthest at its start, the candidates. As
long as a pick is at least as far away as every other point was at the start, it is the one that greedy would have
made, because distances only shrink. Then all points learn of all picks of the sweep in one matrix product. The result
is that of one pick at a time, up to rounding.
"""

import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tocsin.models.nearest_neighbours import nearest

log = logging.getLogger(__name__)

METHODS = ("greedy", "random")
_CANDIDATES = (1024, 4096)  # of a sweep, at least and at most
_PICKS = (64, 1024)  # tried in a sweep, at least and at most
_TILE_SIZE = 2**21  # numbers that are held at a time, about what a cache holds
_COVERED = 1e-6  # of the largest squared norm: below it, distances are rounding
_REPORT_S = 10.0
_SAMPLE = 10_000  # points that the radius of a random coreset is measured on


class Coreset(NamedTuple):
    """What was picked.

    Attributes:
        indices: (S,) int64, in the order of picking; no point is picked twice.
        radius: () float32, largest distance of a point from the picked ones.
    """

    indices: Tensor
    radius: Tensor


def coreset_of(points: Tensor, size: int, *, method: str = "greedy", seed: int = 0) -> Coreset:
    """Pick a coreset.

    Args:
        points: (N, D) float.
        size: Points to pick; fewer where fewer already lie on all points.
        method: `greedy` or `random`.
        seed: Seed of `random`; `greedy` draws nothing.

    Returns:
        The coreset. The radius of `random` is measured on a sample of points, as all would take as long as `greedy`.
    """
    if method == "random":
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
        indices = order[:size].to(points.device)
        return Coreset(indices, covering_radius(points[order[-_SAMPLE:].to(points.device)], points[indices]))
    return farthest_points(points, size)


def covering_radius(points: Tensor, bank: Tensor) -> Tensor:
    """Largest distance () of any of the points (N, D) from the nearest entry of a bank (M, D)."""
    return nearest(points, bank).distances.amax()


@torch.no_grad()
def principal_axes(rows: Tensor, dim: int) -> Tensor:
    """The leading principal axes (D, dim) float32 of rows (N, D): rows @ axes keeps their distances best."""
    with torch.autocast(rows.device.type, enabled=False):
        centred = rows.float()
        centred = centred - centred.mean(dim=0)
        axes: Tensor = torch.linalg.eigh(centred.T @ centred).eigenvectors  # (D, D), the leading one last
    return axes[:, -dim:].flip(1)


@torch.no_grad()
def farthest_points(
    points: Tensor, size: int, *, distances: Tensor | None = None, stop: float = 0.0
) -> Coreset:
    """Greedy k-center, in sweeps. It draws nothing.

    Args:
        points: (N, D) float of any precision, with a mean near 0.
        size: Most points to pick.
        distances: (N,) float, distance of each point from what is there already; None: the first pick is the point
            with the largest norm.
        stop: Stop where no point is farther than this.
    """
    with torch.autocast(points.device.type, enabled=False):
        return _sweep(points, size, distances, stop)


def _sweep(points: Tensor, size: int, distances: Tensor | None, stop: float) -> Coreset:
    norms = torch.cat(
        [
            part.float().square().sum(dim=1)
            for part in torch.split(points, max(256, _TILE_SIZE // points.shape[1]))
        ]
    )
    least = max(stop**2, _COVERED * float(norms.max()))
    squares, chosen = torch.full_like(norms, torch.inf), []
    if distances is None:
        chosen.append(norms.argmax().unsqueeze(0))
        _approach(squares, points, norms, chosen[0])
    else:
        squares.copy_(distances.square())
    n_picks, n_chosen, reported = _PICKS[0], len(chosen), time.monotonic()
    n_candidates = min(max(_CANDIDATES[0], len(points) // 64), _CANDIDATES[1], len(points))
    while n_chosen < size:
        farthest = squares.topk(n_candidates)
        picks, heights = _pick(
            points[farthest.indices].float(), farthest.values, min(n_picks, size - n_chosen, n_candidates)
        )
        # No other point is farther than the last candidate, so these are the picks of greedy. Heights fall: a prefix.
        n_good = int(((heights >= farthest.values[-1]) & (heights > least)).sum())
        if n_good == 0:
            break
        chosen.append(farthest.indices[picks[:n_good]])
        _approach(squares, points, norms, chosen[-1])
        n_chosen += n_good
        n_picks = min(max(_PICKS[0], 2 * n_good), _PICKS[1])
        if time.monotonic() - reported > _REPORT_S:
            reported = time.monotonic()
            log.info("coreset: %d of %d picked, radius %.4g", n_chosen, size, float(squares.amax().sqrt()))
    indices = torch.cat([norms.new_empty(0, dtype=torch.int64), *chosen])
    return Coreset(indices, squares.amax().clamp(min=0.0).sqrt())


def _pick(candidates: Tensor, squares: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Pick n of the candidates (C, D), one after the other: their places, and how far each was, squared.

    Nothing is read back to the host, so that an accelerator need not wait.
    """
    squares = squares.clone()
    norms = candidates.square().sum(dim=1)
    picks = torch.empty(n, dtype=torch.int64, device=candidates.device)
    heights = squares.new_empty(n)
    for step in range(n):
        height, place = squares.max(dim=0, keepdim=True)
        picks[step : step + 1], heights[step : step + 1] = place, height
        pick = candidates.index_select(0, place)[0]
        found = torch.addmv(norms, candidates, pick, alpha=-2.0).add_(norms.index_select(0, place))
        torch.minimum(squares, found.clamp_(min=0.0), out=squares)
        squares.index_fill_(0, place, -1.0)
    return picks, heights


def _approach(squares: Tensor, points: Tensor, norms: Tensor, picks: Tensor) -> None:
    """Lower the squared distances (N,) to those from new picks (P,) where these are nearer; -1 at the picks."""
    centres = points[picks].float()  # (P, D)
    right = torch.cat([-2.0 * centres, norms[picks].unsqueeze(1)], dim=1).T  # (D + 1, P)
    rows = max(256, _TILE_SIZE // max(right.shape))
    for start in range(0, len(points), rows):
        part = points[start : start + rows].float()  # (R, D)
        left = torch.cat([part, part.new_ones(len(part), 1)], dim=1)
        found = (left @ right).amin(dim=1) + norms[start : start + rows]
        old = squares[start : start + rows]
        torch.minimum(old, found.clamp_(min=0.0), out=old)
    squares[picks] = -1.0  # never again


def rows_of(chunks: Sequence[Tensor], indices: Tensor) -> Tensor:
    """Rows (S, D) of chunks (n_i, D) that lie end to end, without joining them."""
    ends = torch.tensor([len(chunk) for chunk in chunks]).cumsum(dim=0)
    owner = torch.bucketize(indices, ends, right=True)
    rows = chunks[0].new_empty(len(indices), chunks[0].shape[1])
    for number, chunk in enumerate(chunks):
        here = owner == number
        rows[here] = chunk[indices[here] - (ends[number] - len(chunk))]
    return rows
