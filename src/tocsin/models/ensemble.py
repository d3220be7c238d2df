"""Several trained detectors that score together, by rank.

Scores of different methods have different units, but a rank among normal data means the same for all of them. Each
member keeps its own way from deviations to a score; the score becomes the logarithm of how rare it is among
normal validation scores, and these are averaged (Aggarwal and Sathe, "Theoretical Foundations and Algorithms for
Outlier Ensembles", SIGKDD Explorations 2015: average what is comparable). What differs from plain ranks: beyond
the largest validation score a rank would stand still, so the tail goes on exponentially.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tocsin.batch import SeriesBatch
from tocsin.errors import ConfigError
from tocsin.models.base import FitOnceDetector, SeriesDetector
from tocsin.scoring import Scorer

_LEVELS = 512  # quantiles of the validation scores that are kept
_TAIL = 0.02  # share of the validation scores whose excess tells how the tail goes on


class Ensemble(FitOnceDetector, SeriesDetector):
    """Deviations of all members, one block of columns each.

    Args:
        members: Trained detectors; the pipeline makes them from `model.members=[a.ckpt,b.ckpt]`.

    Raises:
        ValueError: If there are fewer than two.
    """

    def __init__(self, *, members: Sequence[SeriesDetector]) -> None:
        super().__init__()
        if len(members) < 2:
            raise ConfigError(
                "model.members must name two or more checkpoints: model.members=[a.ckpt,b.ckpt]"
            )
        for member in members:
            member.stage = member.stages[-1].name
        self.members = nn.ModuleList(members)

    def collect(self, batch: SeriesBatch) -> None:
        """Nothing: the members are trained."""

    def finish(self) -> None:
        """Nothing: the members are trained."""

    def loss(self, batch: SeriesBatch) -> dict[str, Tensor]:
        """Mean of the members' point scores: not comparable with the loss of another model."""
        return {"loss": self.point_scores(batch.x).mean()}

    def deviations(self, x: Tensor) -> Tensor:
        return torch.cat([member.deviations(x).float() for member in self.members], dim=-1)  # type: ignore[operator]

    def channel_scores(self, x: Tensor) -> Tensor:
        """(B, T, 1): members need not tell channels apart."""
        scores = [member.point_scores(x).float() for member in self.members]  # type: ignore[operator]
        return torch.stack(scores, dim=-1).mean(dim=-1, keepdim=True)


class RankScorer(Scorer):
    """Mean over the members of how rare their scores are, in powers of ten.

    Args:
        members: Scorer of each member; all are fitted anew on the same validation data.
        sizes: Columns of each member among the deviations.
    """

    SHAPED = ("levels", "tail")
    levels: Tensor
    tail: Tensor

    def __init__(self, *, members: Sequence[Scorer], sizes: Sequence[int]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.sizes = list(sizes)
        self.register_buffer("levels", torch.empty(0))  # (M, levels) quantiles of normal scores
        self.register_buffer("tail", torch.empty(0))  # (M,) mean excess of the highest ones

    @property
    def reach(self) -> int:
        return max(int(member.reach) for member in self._scorers)

    @property
    def _scorers(self) -> list[Any]:
        return list(self.members)

    def _blocks(self, deviations: Tensor) -> tuple[Tensor, ...]:
        return torch.split(deviations, self.sizes, dim=1)

    def fit(self, deviations: Tensor, lengths: Sequence[int] | None = None) -> "RankScorer":
        levels, tails = [], []
        for scorer, block in zip(self._scorers, self._blocks(deviations), strict=True):
            ordered = scorer.fit(block, lengths)(block, lengths).double().sort().values
            n_tail = max(1, round(_TAIL * len(ordered)))
            tails.append((ordered[-n_tail:].mean() - ordered[-n_tail]).clamp(min=1e-6))
            levels.append(torch.quantile(_thinned(ordered), _probabilities().double()))
        self.levels, self.tail = torch.stack(levels).float(), torch.stack(tails).float()
        return self

    def normalised(self, deviations: Tensor, *, causal: bool = False) -> Tensor:
        """As of each member that tells channels apart; of all, if none does."""
        parts = zip(self._scorers, self._blocks(deviations), strict=True)
        values = [scorer.normalised(block, causal=causal) for scorer, block in parts]
        telling = [value for value in values if value.shape[1] > 1]
        return torch.cat(telling or values, dim=1)

    def score(self, deviations: Tensor, *, causal: bool = False) -> Tensor:
        if not self.levels.numel():
            raise RuntimeError("the scorer is not fitted")
        total = torch.zeros(len(deviations), device=deviations.device)
        for index, (scorer, block) in enumerate(zip(self._scorers, self._blocks(deviations), strict=True)):
            total += self._rarity(scorer.score(block, causal=causal), index)
        return total / len(self.members)

    def _rarity(self, scores: Tensor, index: int) -> Tensor:
        """Scores (N,) as -log10 of the share of normal scores that are higher."""
        levels, tail = self.levels[index], self.tail[index]
        rarity = -torch.log10(1 - _probabilities().to(scores))  # (levels,)
        above = torch.searchsorted(levels, scores.contiguous()).clamp(1, len(levels) - 1)
        low, high = levels[above - 1], levels[above]
        share = ((scores - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        inside = torch.lerp(rarity[above - 1], rarity[above], share)
        return inside + (scores - levels[-1]).clamp(min=0) / (tail * math.log(10))


def _probabilities() -> Tensor:
    """Where the quantiles are taken (levels,), denser towards the top, up to one in a thousand."""
    return 1 - torch.logspace(0, -3, _LEVELS)


def _thinned(ordered: Tensor) -> Tensor:
    """At most a million of many ordered values: all that torch takes quantiles of."""
    return ordered[:: len(ordered) // 1_000_000 + 1]
