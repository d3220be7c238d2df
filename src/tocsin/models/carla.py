"""CARLA: contrastive representation learning with injected anomalies, then self-supervised classification.

Darban, Webb, Pan, Aggarwal, Salehi, "CARLA: Self-supervised contrastive representation learning for time series
anomaly detection", Pattern Recognition 157, 2025, arXiv 2308.09296; facts of the released code (@600d4f2) from
the project's specification, section 1. Stage `pretext` (section on the pretext task): a small ResNet puts a window
near one that began shortly before and far from windows with a pasted anomaly. Stage `classification` (section on
self-supervised classification, after SCAN): a softmax head learns to agree on near windows and to disagree on far
ones. The class of most normal windows is the normal one; the score is the probability of all others.

What differs from the released code: no test label chooses a checkpoint, the axes of windows are transposed rather
than reinterpreted, neighbours are mined for each sample rather than for one random point and drawn at each visit,
furthest neighbours count (`w_inconsistency=0` leaves them out, as released for most data), anomalies are pasted
anew at each visit and into standardised values, the third block has its skip connection, batch norms keep their
statistics in the second stage, the margin is constant (`margin_mode="decay"` is as released), the normal class is
that of original windows alone. New here: `scale`, `localise`, `normal_classes="mostly_original"`,
`focal_gamma` and `label_smoothing`.
"""

import logging
from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from tocsin.batch import SeriesBatch
from tocsin.models.base import SeriesDetector, Stage
from tocsin.models.carla_injection import inject_negatives
from tocsin.models.carla_parts import (
    ResidualBlock,
    consistency,
    entropy,
    inconsistency,
    mine_neighbours,
    occlude,
    triplet_loss,
)
from tocsin.models.checks import check_choice, check_range
from tocsin.models.instance_norm import standardise_instances

log = logging.getLogger(__name__)

MarginMode = Literal["fixed", "decay"]
Localise = Literal["window", "cam", "occlusion"]
ScaleName = Literal["train", "instance", "both"]
NormalClasses = Literal["majority", "mostly_original"]

_NOISE = 0.01  # of a positive made from its anchor, in standardised units
_LEAST_MARGIN = 0.01
_MARGIN_STEP = 0.1
_MEMORY = 0.95  # of the class histogram, per batch
_SEED = 0  # of what must be the same in every epoch: the repository and the evaluation loss
_TINY = 1e-20  # as small a surprise as float32 tells from none
_CHUNK = 512  # windows embedded at once


class Carla(SeriesDetector):
    """Contrastive encoder and class head; the score is one minus the probability of the normal class.

    Args:
        window: Steps T of a window, 8 or more.
        n_channels: Channels C.
        mid_channels: Width of the first block and, if at least 4, of the embedding; the features are twice as many.
        n_classes: Classes K of the head.
        scale: What the encoder sees. `train`: the standardised window, as published. `instance`: each window and
            channel on its own mean and spread, so that a quiet window shows its small faults and a level that
            lasts the whole window is lost. `both`: one beside the other.
        tau: Divisor of squared distances in the triplet loss, > 0.
        margin: How much further than its positive an anchor's hardest negative should be, after `tau`, > 0.
        margin_mode: `fixed`, or `decay`: a step takes a tenth of the loss off the margin, as released.
        previous: A positive is one of so many windows before its anchor.
        neighbours: Nearest Q and furthest Q windows mined for each window.
        max_windows: Training windows kept, evenly over time; with their twins they are the repository. They
            take 8 * max_windows * T * C bytes while training, none in a checkpoint.
        pretext_share: Largest part of the epochs for the first stage, in (0, 1).
        w_inconsistency: Weight of the furthest neighbours.
        w_entropy: Weight of the entropy over classes. Too little ends in one class; too much splits normal windows
            over all of them.
        focal_gamma: Weight of the pairs on which the classes are wrong; 0 = plain logarithms, as published.
        label_smoothing: Doubt whether near windows are of one class and far ones of several: share of the target
            spread over both outcomes, in [0, 1).
        normal_classes: `majority`: the class of most original training windows. `mostly_original`: also every
            class that holds a larger share of the original windows than of their twins.
        localise: `window`: every step has its window's score. Else the largest of a window has it, the others less:
            `cam` as the head sees the features of that step (class activation map), which may point to the edges
            of the field that sees an odd step; `occlusion` as the surprise shrinks when a straight line hides
            the steps around it, at the price of `segments` more windows to score.
        segments: Overlapping parts that `occlusion` hides in turn, 2 or more; fewer than there are steps.

    Raises:
        ValueError: If a value is outside its range or unknown.
    """

    near: Tensor
    far: Tensor
    current_margin: Tensor
    original_share: Tensor
    twin_share: Tensor

    def __init__(
        self,
        *,
        window: int,
        n_channels: int,
        mid_channels: int = 4,
        n_classes: int = 10,
        scale: ScaleName = "train",
        tau: float = 0.4,
        margin: float = 1.0,
        margin_mode: MarginMode = "fixed",
        previous: int = 10,
        neighbours: int = 5,
        max_windows: int = 8192,
        pretext_share: float = 0.5,
        w_inconsistency: float = 1.0,
        w_entropy: float = 2.0,
        focal_gamma: float = 0.0,
        label_smoothing: float = 0.0,
        normal_classes: NormalClasses = "majority",
        localise: Localise = "window",
        segments: int = 16,
    ) -> None:
        super().__init__()
        check_choice("scale", scale, get_args(ScaleName))
        check_choice("margin_mode", margin_mode, get_args(MarginMode))
        check_choice("normal_classes", normal_classes, get_args(NormalClasses))
        check_choice("localise", localise, get_args(Localise))
        for name, count, least in (
            ("window", window, 8),
            ("mid_channels", mid_channels, 1),
            ("n_classes", n_classes, 2),
            ("previous", previous, 1),
            ("neighbours", neighbours, 1),
            ("max_windows", max_windows, 2),
            ("segments", segments, 2),
        ):
            check_range(name, count, count >= least, f"a number of at least {least}")
        for name, value in (("tau", tau), ("margin", margin)):
            check_range(name, value, value > 0.0, "above 0")
        for name, value in (
            ("w_inconsistency", w_inconsistency),
            ("w_entropy", w_entropy),
            ("focal_gamma", focal_gamma),
        ):
            check_range(name, value, value >= 0.0, "0 or more")
        check_range("label_smoothing", label_smoothing, 0.0 <= label_smoothing < 1.0, "in [0, 1)")
        check_range("pretext_share", pretext_share, 0.0 < pretext_share < 1.0, "between 0 and 1")

        self.stages = (Stage("pretext", pretext_share), Stage("classification", 1.0 - pretext_share))
        self.stage = "pretext"
        self.window = window
        self.scale = scale
        self.tau = tau
        self.margin = margin
        self.margin_mode = margin_mode
        self.previous = previous
        self.n_neighbours = neighbours
        self.max_windows = max_windows
        self.w_inconsistency = w_inconsistency
        self.w_entropy = w_entropy
        self.focal_gamma = focal_gamma
        self.label_smoothing = label_smoothing
        self.normal_classes = normal_classes
        self.localise = localise
        self.segments = min(segments, window // 2)

        width = 2 * mid_channels
        n_inputs = n_channels * (2 if scale == "both" else 1)
        self.encoder = nn.Sequential(
            ResidualBlock(n_inputs, mid_channels),
            ResidualBlock(mid_channels, width),
            ResidualBlock(width, width),
        )
        self.projection = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, max(4, width // 2))
        )
        self.classifier = nn.Linear(width, n_classes)
        self.register_buffer("near", torch.empty(0, neighbours, dtype=torch.int64))  # (2 W, Q)
        self.register_buffer("far", torch.empty(0, neighbours, dtype=torch.int64))  # (2 W, Q)
        self.register_buffer("current_margin", torch.tensor(margin))
        self.register_buffer("original_share", torch.zeros(n_classes))
        self.register_buffer("twin_share", torch.zeros(n_classes))
        self._starts = torch.empty(0, dtype=torch.int64)  # (W,) of the kept windows, ascending
        self._repository = torch.empty(0, window, n_channels)  # (2 W, T, C): kept windows, then their twins
        self._unreported = False

    # ------------------------------------------------------------------ stages

    @torch.no_grad()
    def prepare(self, train_batches: Iterable[SeriesBatch]) -> None:
        """Keep training windows and an injected twin of each.

        Positives are looked up here: batches are shuffled, so a window and those just before it hardly ever meet in
        one. Neighbours are kept as indices into it, so that checkpoints stay small: a resumed run makes the same
        repository again, whatever the order of the batches.
        """
        pairs = [(batch.x, batch.start) for batch in train_batches]
        starts, order = torch.cat([start for _, start in pairs]).sort(stable=True)
        is_new = torch.ones_like(starts, dtype=torch.bool)  # an epoch may show a window several times
        is_new[1:] = starts.diff() > 0
        chosen = is_new.nonzero().flatten()
        if len(chosen) > self.max_windows:
            chosen = chosen[torch.linspace(0, len(chosen) - 1, self.max_windows, device=chosen.device).long()]
        windows = torch.cat([x for x, _ in pairs])[order[chosen]]
        self._starts = starts[chosen]
        twins = inject_negatives(windows, torch.Generator().manual_seed(_SEED)).x
        self._repository = torch.cat([windows, twins])

    @torch.no_grad()
    def begin_stage(self, stage: str, train_batches: Iterable[SeriesBatch]) -> None:
        """Mine the neighbours of every window of the repository, as the pretext stage has embedded them."""
        self.stage = stage
        self.train(self.training)
        if stage != "classification":
            return
        if not len(self._repository):
            self.prepare(train_batches)
        was_training = self.training
        self.eval()
        embeddings = torch.cat([self._embed(part) for part in torch.split(self._repository, _CHUNK)])
        self.train(was_training)
        self.near, self.far = mine_neighbours(embeddings, self.n_neighbours)

    def trainable(self, stage: str) -> Iterable[nn.Parameter]:
        """The encoder in both stages, with the head of the stage."""
        head = self.projection if stage == "pretext" else self.classifier
        return [*self.encoder.parameters(), *head.parameters()]

    def train(self, mode: bool = True) -> "Carla":
        """Set the mode; when training pauses, say how the classes share the windows.

        In `classification` the statistics of the batch norms stay those of the pretext stage: a third of what is seen
        there are furthest neighbours, few and extreme, and by their statistics no window looks as it will in a test.
        """
        if not mode and self._unreported:
            self._report_classes()
        super().train(mode)
        if self.stage == "classification":
            for part in self.encoder.modules():
                if isinstance(part, nn.BatchNorm1d):
                    part.eval()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("near", "far"):  # as many rows as the training had windows
            if prefix + name in state_dict:
                setattr(self, name, getattr(self, name).new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    # ------------------------------------------------------------------ network

    def _features(self, x: Tensor) -> Tensor:
        """Features (B, F, T) of each step of windows x (B, T, C)."""
        if self.scale != "train":
            own = standardise_instances(x).x
            x = own if self.scale == "instance" else torch.cat([x, own], dim=2)  # (B, T, 2 * C)
        features: Tensor = self.encoder(x.transpose(1, 2))
        return features

    def _embed(self, x: Tensor) -> Tensor:
        """Embeddings (B, E) of unit length of windows x (B, T, C)."""
        embedding = self.projection(self._features(x).mean(dim=2))
        return functional.normalize(embedding.float(), dim=1)

    def _classify(self, x: Tensor) -> Tensor:
        """Class probabilities (B, K) of windows x (B, T, C)."""
        return self.classifier(self._features(x).mean(dim=2)).float().softmax(dim=1)  # type: ignore[no-any-return]

    # ------------------------------------------------------------------ training

    def loss(self, batch: SeriesBatch) -> dict[str, Tensor]:
        """Loss of the current stage.

        Evaluation uses one fixed set of injected anomalies. In `classification` the evaluation loss is not that of
        training, which rewards as many classes as there are: it asks whether the score tells the windows of the
        batch from their injected twins, which is what the choice of the checkpoint is about. No label is read.

        Args:
            batch: Windows; `start` says in training which ones come before.

        Returns:
            `loss`; in `pretext` also `margin`; in `classification` also, in training, the three terms and `max_share`
            = share of the largest class among original windows, and, in evaluation, the mean `score` and
            `twin_score` of the batch and of its twins.

        Raises:
            RuntimeError: In training in `classification` before `begin_stage`, or resumed without `prepare`.
        """
        if self.stage == "pretext":
            return self._pretext_loss(batch)
        return self._classification_loss(batch) if self.training else self._separation(batch.x)

    def _pretext_loss(self, batch: SeriesBatch) -> dict[str, Tensor]:
        generator = None if self.training else torch.Generator().manual_seed(_SEED)
        negatives = inject_negatives(batch.x, generator, self.share).x
        views = torch.cat([batch.x, self._positives(batch, generator), negatives])  # (3 * B, T, C)
        # In evaluation the margin stays: values of different epochs must mean the same.
        margin = self.current_margin if self.training else torch.full_like(self.current_margin, self.margin)
        anchor, positive, negative = self._embed(views).chunk(3)
        loss = triplet_loss(anchor, positive, negative, margin.clone(), self.tau)
        if self.training and self.margin_mode == "decay":
            self.current_margin.sub_(_MARGIN_STEP * self.share.average(loss.detach()))
            self.current_margin.clamp_(min=_LEAST_MARGIN)
        return {"loss": loss, "margin": margin.clone()}

    def _positives(self, batch: SeriesBatch, generator: torch.Generator | None) -> Tensor:
        """(B, T, C): one of the windows before each, or a noisy copy where there is none.

        A window counts as earlier only if it overlaps: those further back may belong to another series, as all do
        where each series is one window. Evaluation has noisy copies only, as its windows have another time axis.
        """
        drawn = torch.randn(
            (self.share.total(len(batch.x)), *batch.x.shape[1:]),
            generator=generator or self.share.generator(),
        )
        noise = self.share.own(drawn).to(batch.x)
        copies = batch.x + _NOISE * noise
        if not self.training or not len(self._starts):
            return copies
        last = torch.searchsorted(self._starts, batch.start)  # one after the last that begins earlier
        first = torch.searchsorted(self._starts, batch.start - self.window, right=True)  # first that overlaps
        first = torch.maximum(first, last - self.previous)
        chosen = first + (self.share.uniform(len(first)).to(batch.x) * (last - first)).long()
        earlier = self._repository[chosen.clamp(max=len(self._starts) - 1)]
        return torch.where((last > first)[:, None, None], earlier, copies)

    def _classification_loss(self, batch: SeriesBatch) -> dict[str, Tensor]:
        """SCAN's loss of the batch's windows or, by a coin's toss, their twins, with a near and a far neighbour."""
        n_windows = len(self._starts)
        if len(self.near) != 2 * n_windows or not n_windows:
            raise RuntimeError(
                "call prepare() and begin_stage('classification') before training in that stage"
            )
        # The kept window that begins with this one, or, where not all are kept, the one before.
        rows = (torch.searchsorted(self._starts, batch.start, right=True) - 1).clamp(min=0)
        is_twin = self.share.integers(2, len(rows)).to(rows.device)
        anchors = rows + n_windows * is_twin  # (B,)
        which = [self.share.integers(self.near.shape[1], len(anchors)).to(anchors)[:, None] for _ in range(2)]
        near = self.near[anchors].gather(1, which[0])[:, 0]
        far = self.far[anchors].gather(1, which[1])[:, 0]
        p, p_near, p_far = self._classify(self._repository[torch.cat([anchors, near, far])]).chunk(3)
        self._remember(self.share.whole(p.detach()), self.share.whole(is_twin.bool()))
        agree = consistency(p, p_near, gamma=self.focal_gamma, label_smoothing=self.label_smoothing)
        disagree = inconsistency(p, p_far, gamma=self.focal_gamma, label_smoothing=self.label_smoothing)
        spread = entropy(self.share.average(p.mean(dim=0)))
        return {
            "loss": agree + self.w_inconsistency * disagree - self.w_entropy * spread,
            "consistency": agree.detach(),
            "inconsistency": disagree.detach(),
            "entropy": spread.detach(),
            "max_share": self.original_share.max() / self.original_share.sum().clamp(min=1e-6),
        }

    def _separation(self, x: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the score as a judge of windows x (B, T, C) and their injected twins."""
        twins = inject_negatives(x, torch.Generator().manual_seed(_SEED), self.share).x
        surprise = self._surprise(
            self.classifier(self._features(torch.cat([x, twins])).mean(dim=2))
        )  # (2 * B,)
        score = -torch.expm1(-surprise)
        normal, odd = score.chunk(2)
        loss = (surprise[: len(x)].mean() - (odd + 1e-6).log().mean()) / 2
        return {"loss": loss, "score": normal.mean(), "twin_score": odd.mean()}

    # ------------------------------------------------------------------ classes

    @torch.no_grad()
    def _remember(self, p: Tensor, is_twin: Tensor) -> None:
        """Move the class histograms of windows and of twins towards those of probabilities p (B, K).

        Running histograms, because nothing tells a detector that its training is over.
        """
        votes = functional.one_hot(p.argmax(dim=1), p.shape[1]).float()
        for share, own in ((self.original_share, ~is_twin), (self.twin_share, is_twin)):
            weight = own.float() / own.sum().clamp(min=1)  # a batch without one of the two adds nothing to it
            share.lerp_((weight[:, None] * votes).sum(dim=0), 1.0 - _MEMORY)
        self._unreported = True

    def _is_normal(self) -> Tensor:
        """(K,) bool: the classes that count as normal."""
        classes = torch.arange(len(self.original_share), device=self.original_share.device)
        is_majority = classes == self.original_share.argmax()
        if self.normal_classes == "majority":
            return is_majority
        return is_majority | (self.original_share > self.twin_share)

    def _report_classes(self) -> None:
        self._unreported = False
        share = self.original_share / self.original_share.sum().clamp(min=1e-6)
        largest, spread = float(share.max()), float(entropy(share))
        histogram = ", ".join(f"{value:.2f}" for value in share.tolist())
        message = f"classes of normal windows: {histogram} (entropy {spread:.2f}, largest {largest:.3f})"
        if largest < 0.3:
            log.warning("%s: no majority class; lower model.w_entropy or model.n_classes", message)
        elif largest > 0.999:
            log.warning("%s: all in one class; raise model.w_entropy if injected ones are there too", message)
        else:
            log.info("%s", message)

    # ------------------------------------------------------------------ scoring

    def point_scores(self, x: Tensor) -> Tensor:
        """One minus the probability of the normal class; the resolution is about a window.

        Args:
            x: (B, T, C) float32, standardised.

        Returns:
            (B, T) float32 in [0, 1], higher = more anomalous; the largest of a window is the window's score.
        """
        features = self._features(x)
        surprise = self._surprise(self.classifier(features.mean(dim=2)))  # (B,)
        score = -torch.expm1(-surprise)[:, None]
        if self.localise == "window":
            return score.expand(-1, x.shape[1]).contiguous()
        if self.localise == "cam":
            # Contiguous: some libraries round products of a transposed matrix by where it lies in memory.
            by_step = self._surprise(self.classifier(features.transpose(1, 2).contiguous()))  # (B, T)
        else:
            by_step = self._relief(x, surprise)  # (B, T)
        largest = by_step.amax(dim=1, keepdim=True)
        return score * torch.where(largest > 0, by_step / largest.clamp(min=_TINY), 1.0)

    def _relief(self, x: Tensor, surprise: Tensor) -> Tensor:
        """How much less of a surprise (B,) windows x (B, T, C) are without what is around each step: (B, T)."""
        B, T, C = x.shape
        hidden, others = occlude(x, self.segments)  # (G, T), (B, G, T, C)
        left = self._surprise(
            self.classifier(self._features(others.reshape(-1, T, C)).mean(dim=2))
        )  # (B * G,)
        relief = (surprise[:, None] - left.reshape(B, -1)).clamp(min=0)  # (B, G)
        # Not a product of matrices, which autocast would round.
        return (relief[:, :, None] * (hidden / hidden.sum(dim=0))).sum(dim=1)

    def deviations(self, x: Tensor) -> Tensor:
        """The score of each point, (B, T, 1) float32 in [0, 1]."""
        return self.point_scores(x).unsqueeze(-1)

    def channel_scores(self, x: Tensor) -> Tensor:
        """The score of each point, (B, T, 1) float32 in [0, 1]: channels are not told apart."""
        return self.point_scores(x).unsqueeze(-1)

    def _surprise(self, logits: Tensor) -> Tensor:
        """-log p(normal) >= 0, (...,) of logits (..., K)."""
        logits = logits.float()
        normal = logits.masked_fill(~self._is_normal(), -torch.inf)
        return (logits.logsumexp(dim=-1) - normal.logsumexp(dim=-1)).clamp(min=0)
