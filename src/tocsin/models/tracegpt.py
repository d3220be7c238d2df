"""TRACE-GPT: next-value prediction over bins, with a convolutional embedding and a causal transformer.

Lee, Choi and Kim, "Generative Pre-Training of Time-Series Data for Unsupervised Fault Detection in Semiconductor
Manufacturing", arXiv 2309.11427, 2023. What the abstract says is kept: univariate sequences, possibly with faults
among them; a temporal convolutional embedding; a causal decoder pre-trained to predict the next value; abnormal
sequences are those with a high cross-entropy.

No code and no full text were at hand, so sizes, bins and all details are a reconstruction. New here: several
channels are read one by one by the same weights; overflow bins have a finite cross-entropy; the score can be
measured against the entropy of the prediction; trimmed, focal and ordinally smoothed losses.
"""

import math
from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from tocsin.batch import SeriesBatch
from tocsin.models.base import SeriesDetector
from tocsin.models.checks import check_choice, check_range
from tocsin.models.instance_norm import standardise_instances
from tocsin.models.losses import focal_cross_entropy
from tocsin.models.tracegpt_network import NextValueDecoder, Position
from tocsin.models.value_bins import (
    OVERFLOW,
    Binning,
    PointSample,
    bin_edges,
    bin_shares,
    digitise,
    noise_spread,
    report_bins,
    target_table,
)

Input = Literal["continuous", "token"]
Score = Literal["nll", "nll_minus_entropy"]

_SAMPLE = 100_000  # points of the train split that bins are learned from
_TRIM_AFTER = 5  # epochs; before that, what is hard and what is odd look alike
_ROWS = 1024  # sequences scored at a time, to bound the memory of their logits
_RANGE = 4.0  # standardised units that the bins cover before `prepare`


class TraceGPT(SeriesDetector):
    """Causal transformer that predicts the distribution of each next value.

    Args:
        window: Steps T of a window.
        n_channels: Channels C; each is a sequence of its own.
        bins: Regular bins V of a channel, in [8, 1024]; two more hold what lies outside.
        binning: `uniform`: bins of the same width. `quantile`: bins with the same number of training points.
        input: What the network reads: `continuous` values, or bins by an embedding (`token`).
        pos: `learned`: for windows that begin at the same point of a process. `rope` or `none`: for windows that
            begin anywhere.
        d_model: Width of the tokens; a multiple of 2 * n_heads.
        n_heads: Attention heads.
        depth: Transformer blocks.
        dropout: Dropout, in [0, 1).
        rows_per_step: Sequences (a channel of a window each) drawn from a training batch; None takes all.
        ordinal_sigma: Spread of the target over neighbouring bins, in bins; 0 = off.
        overflow_mass: Share of each target given to the overflow bins, in (0, 1): it bounds their cross-entropy, at
            about log(2 / overflow_mass), which should be above that of a rare value inside.
        label_smoothing: Share of each target spread over all bins, in [0, 1).
        focal_gamma: Weight of what is hard to predict; 0 = plain cross-entropy.
        trim: Share of the sequences of a training batch, those with the highest loss, that are left out after five
            epochs, in [0, 1): for training data with faults among them. 0 = off.
        score: `nll`: negative log-likelihood of a value, as published. `nll_minus_entropy`: less its expectation
            under the prediction, so that what is noisy by nature scores like what is not.
        unscored_share: Share of each window at its head, where little has been seen yet, that gets no score,
            in [0, 1). .5 suits windows that overlap by half or more.
        instance_norm: Standardise each window by its own mean and spread first. They tell a little of what is to be
            predicted.

    Raises:
        ValueError: If a value is outside its range or unknown.
    """

    edges: Tensor
    prepared: Tensor
    prior: Tensor
    targets: Tensor

    def __init__(
        self,
        *,
        window: int,
        n_channels: int,
        bins: int = 128,
        binning: Binning = "uniform",
        input: Input = "continuous",
        pos: Position = "learned",
        d_model: int = 128,
        n_heads: int = 4,
        depth: int = 4,
        dropout: float = 0.1,
        rows_per_step: int | None = 64,
        ordinal_sigma: float = 0.0,
        overflow_mass: float = 1e-5,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
        trim: float = 0.0,
        score: Score = "nll",
        unscored_share: float = 0.0,
        instance_norm: bool = False,
    ) -> None:
        super().__init__()
        check_choice("binning", binning, get_args(Binning))
        check_choice("input", input, get_args(Input))
        check_choice("pos", pos, get_args(Position))
        check_choice("score", score, get_args(Score))
        check_range("bins", bins, 8 <= bins <= 1024, "between 8 and 1024")
        check_range("n_heads", n_heads, n_heads > 0, "a positive number")
        pairs = 2 * n_heads
        check_range(
            "d_model", d_model, d_model > 0 and d_model % pairs == 0, f"a multiple of 2 * n_heads={pairs}"
        )
        check_range("depth", depth, depth > 0, "a positive number of blocks")
        check_range(
            "rows_per_step", rows_per_step or 1, (rows_per_step or 1) > 0, "a positive number or null"
        )
        check_range("ordinal_sigma", ordinal_sigma, ordinal_sigma >= 0.0, "0 or more bins")
        check_range("overflow_mass", overflow_mass, 0.0 < overflow_mass < 1.0, "between 0 and 1")
        check_range("focal_gamma", focal_gamma, focal_gamma >= 0.0, "0 or more")
        for name, share in (
            ("dropout", dropout),
            ("label_smoothing", label_smoothing),
            ("trim", trim),
            ("unscored_share", unscored_share),
        ):
            check_range(name, share, 0.0 <= share < 1.0, "in [0, 1)")

        self.bins = bins
        self.binning = binning
        self.reads_bins = input == "token"
        self.rows_per_step = rows_per_step
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        self.trim = trim
        self.score = score
        self.n_unscored = math.floor(unscored_share * window)
        self.instance_norm = instance_norm
        self.network = NextValueDecoder(
            n_steps=window,
            n_channels=n_channels,
            n_classes=bins + OVERFLOW,
            tokens=self.reads_bins,
            pos=pos,
            d_model=d_model,
            n_heads=n_heads,
            depth=depth,
            dropout=dropout,
        )
        self.register_buffer("edges", torch.linspace(-_RANGE, _RANGE, bins + 1).repeat(n_channels, 1))
        # Logits begin at the histogram of the train split: without it the first steps learn which bins are empty. A
        # buffer rather than the head's bias, because of several processes only buffers agree after `prepare`.
        self.register_buffer("prior", torch.zeros(bins + OVERFLOW))
        self.register_buffer("prepared", torch.tensor(False))
        table = target_table(bins, ordinal_sigma=ordinal_sigma, overflow_mass=overflow_mass)
        self.register_buffer("targets", table, persistent=False)

    # ------------------------------------------------------------------ bins

    def prepare(self, train_batches: Iterable[SeriesBatch]) -> None:
        """Learn the borders of the bins (spec: .1 % and 99.9 % quantiles, and 10 % more) and log how fine they are.

        Memory: up to 200 000 points with two numbers a channel. A resumed run keeps its bins: another order of the
        training data gives another sample, and the network knows the old ones.

        Raises:
            ValueError: If there is no training data.
        """
        if bool(self.prepared):
            return
        sample = PointSample(_SAMPLE)
        for batch in train_batches:
            x = self._on_scale(batch.x)
            second = x[:, 2:] - 2 * x[:, 1:-1] + x[:, :-2]  # (B, T - 2, C)
            sample.add(torch.cat([x[:, 2:], second], dim=2).flatten(0, 1))
        points, second = sample.taken().chunk(2, dim=1)  # (M, C) each
        edges = bin_edges(points, self.bins, self.binning)
        shares = bin_shares(points, edges)  # (C, V + 2)
        report_bins(edges, shares, noise_spread(second))
        self.edges.copy_(edges)
        expected = (shares.mean(dim=0) + 1 / len(points)) @ self.targets.cpu()
        self.prior.copy_(expected.log())
        self.prepared.fill_(True)

    def _on_scale(self, x: Tensor) -> Tensor:
        return standardise_instances(x).x if self.instance_norm else x

    def _rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (B, T, C) as univariate sequences (B * C, T), and the channel (B * C,) of each."""
        B, T, C = x.shape
        rows = self._on_scale(x).transpose(1, 2).reshape(B * C, T)
        return rows, torch.arange(C, device=x.device).repeat(B)

    def _predict(self, rows: Tensor, channel: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (R, T, V + 2) in float32 and true bins (R, T) of sequences (R, T)."""
        edges = self.edges[channel]  # (R, V + 1)
        true = digitise(rows, edges)
        # What lies outside the bins is read as lying on their border: the network has met nothing beyond.
        seen = true if self.reads_bins else rows.clamp(min=edges[:, :1], max=edges[:, -1:])
        return self.network(seen, channel).float() + self.prior, true

    # ------------------------------------------------------------------ training

    def loss(self, batch: SeriesBatch) -> dict[str, Tensor]:
        """Cross-entropy of each next bin, from the values before it.

        In training, of `rows_per_step` sequences drawn at random; in evaluation of all.

        Returns:
            `loss` in nats; `ce`, the plain cross-entropy; and `relative_ce`, in units of log(V + 2), which allows to
            compare numbers of bins: 1 = nothing is known.
        """
        rows, channel = self._rows(batch.x)
        if (
            self.training
            and self.rows_per_step is not None
            and self.share.total(len(rows)) > self.rows_per_step
        ):
            n_drawn = max(1, self.rows_per_step * len(rows) // self.share.total(len(rows)))
            drawn = torch.randperm(len(rows), device=rows.device)[:n_drawn]
            rows, channel = rows[drawn], channel[drawn]
        size = len(rows) if self.training else _ROWS
        parts = [
            self._losses(*part)
            for part in zip(torch.split(rows, size), torch.split(channel, size), strict=True)
        ]
        losses, plain = (torch.cat(terms) for terms in zip(*parts, strict=True))  # (R,) each
        if self.training and self.trim > 0.0 and self.epoch >= _TRIM_AFTER:
            kept = max(1, len(losses) - math.ceil(self.trim * len(losses)))
            losses = losses.topk(kept, largest=False).values
        ce = plain.mean().detach()
        return {"loss": losses.mean(), "ce": ce, "relative_ce": ce / math.log(self.bins + OVERFLOW)}

    def _losses(self, rows: Tensor, channel: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and plain cross-entropy (R,) of sequences (R, T), means over time."""
        logits, true = self._predict(rows, channel)
        losses = focal_cross_entropy(
            logits, self.targets[true], gamma=self.focal_gamma, label_smoothing=self.label_smoothing
        )
        plain = functional.cross_entropy(logits.detach().transpose(1, 2), true, reduction="none")  # (R, T)
        return losses.mean(dim=1), plain.mean(dim=1)

    # ------------------------------------------------------------------ scoring

    def deviations(self, x: Tensor) -> Tensor:
        """How unlikely each value was, given those before it in its channel.

        Args:
            x: (B, T, C) float32, standardised.

        Returns:
            (B, T, C) float32 in nats, NaN = not scored. `nll`: >= 0, higher = more anomalous. `nll_minus_entropy`:
            0 on average where predictions are right; above 0 = less likely than expected; below 0 for long = more
            regular than expected.
        """
        nll, entropy = self._surprises(x)
        deviations = nll - entropy if self.score == "nll_minus_entropy" else nll
        return self._without_head(deviations)

    def channel_scores(self, x: Tensor) -> Tensor:
        """Negative log-likelihood (B, T, C) >= 0 in nats, whichever `score`: higher = more anomalous."""
        return self._without_head(self._surprises(x)[0])

    def _without_head(self, values: Tensor) -> Tensor:
        """Values (B, T, C) with NaN for the steps that get no score."""
        values[:, : self.n_unscored] = torch.nan
        return values

    def _surprises(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood and predictive entropy, (B, T, C) each."""
        B, T, C = x.shape
        rows, channel = self._rows(x)
        parts = [
            surprise(*self._predict(*part))
            for part in zip(torch.split(rows, _ROWS), torch.split(channel, _ROWS), strict=True)
        ]
        nll, entropy = (
            torch.cat(terms).reshape(B, C, T).transpose(1, 2) for terms in zip(*parts, strict=True)
        )
        return nll, entropy


def surprise(logits: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of true classes (R, T) under logits (R, T, K), and its expectation, the entropy.

    Returns:
        (R, T) float32 each, >= 0, in nats.
    """
    log_p = logits.float().log_softmax(dim=-1)
    nll = -log_p.gather(-1, true[..., None]).squeeze(-1)
    return nll, -(log_p.exp() * log_p).sum(dim=-1)
