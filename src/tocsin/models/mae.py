"""A self-distilled masked auto-encoder for multivariate time series.

Idea: AED-MAE (Ristea et al., "Self-Distilled Masked Auto-Encoders are Efficient Video Anomaly Detectors",
CVPR 2024, arXiv 2306.12041). Time-series adaptation: yunkio/anomaly_mae @a9e8287. A transformer encoder
reads the visible patches; a deep teacher decoder T and a shallow student decoder S reconstruct the hidden
ones. Where T misses the data x, or S misses T, the window is unusual.

What differs: the encoder sees visible patches only (as in AED-MAE, not @a9e8287); teacher and student have
their own mask tokens; the student reads detached latents; losses are means over points and channels;
scoring hides every patch in turn with fixed masks, so that scores are deterministic (AED-MAE masks at
random); no label is read unless `weighting="label_margin"`. New here: `mask_unit="channel"` hides channels instead
of patches, because most anomalies of coupled series break a relation between channels and last too long for the
time around them to tell.
"""

from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from tocsin.batch import SeriesBatch
from tocsin.data.injection import inject_windows
from tocsin.errors import ConfigError
from tocsin.models.attention import CrossAttentionDecoder, encoder_stack
from tocsin.models.base import Reconstruction, SeriesDetector, Stage
from tocsin.models.channel_masks import DetailPath, groups_of_channels
from tocsin.models.checks import check_choice, check_range
from tocsin.models.input_limit import check_limit, limited
from tocsin.models.instance_norm import standardise_instances
from tocsin.models.mae_losses import change_weights, push_apart, touched_patches
from tocsin.models.patchify import (
    Masked,
    PatchifyName,
    PoolName,
    build_patchify,
    count_patches,
    from_patches,
    last_patches,
    nearest_divisor,
    random_masks,
    sinusoidal_positions,
    spread_groups,
    to_patches,
)

Wiring = Literal["after_encoder", "before_encoder"]
Schedule = Literal["two_phase", "joint"]
Weighting = Literal["none", "grad", "pseudo", "label_margin"]
ScoreMode = Literal["all_patches", "mask_last_n"]
MaskUnit = Literal["patch", "channel", "both", "auto"]


class MaskedAutoencoder(SeriesDetector):
    """Masked auto-encoder with a teacher and a student decoder.

    `two_phase` trains encoder and teacher (stage `teacher`), then the student on their outputs (stage `student`).
    `joint` trains both at once after `warmup_epochs` of the teacher.

    Args:
        window: Steps T of a window.
        n_channels: Channels C.
        patch_size: Steps P of a patch; divides the window. None takes its divisor nearest to 10.
        d_model: Width of the tokens.
        n_heads: Attention heads; divides `d_model`.
        feedforward: Width of the hidden layer of the feed-forward blocks.
        dropout: Dropout in the transformer layers, in [0, 1).
        encoder_layers: Layers of the encoder.
        teacher_layers: Layers of the teacher decoder.
        student_layers: Layers of the student decoder; fewer than the teacher's, or it copies too well.
        mask_unit: What is hidden. `patch`: all channels for a while, to be told from the time around.
            `channel`: a channel for the whole window, to be told from the others. `both`: now one, now the
            other. `auto`: channels where there are several, else patches.
        mask_ratio: Share of patches hidden in training, in (0, 1).
        patchify: How a patch becomes a token: `linear`, `patch_cnn`, or `cnn_first`, which also sees neighbours.
        pool: How `patch_cnn` joins the points of a patch; `mean` forgets their order.
        hide_masked: Zero the hidden points before `patchify`; False lets `cnn_first` leak them, as published.
        mask_wiring: `after_encoder`: the encoder sees visible patches only; `before_encoder`: mask tokens too.
        schedule: `two_phase` or `joint`.
        teacher_share: Largest part of the epochs for the teacher in `two_phase`, in (0, 1).
        warmup_epochs: Epochs of the teacher alone in `joint`.
        weighting: Which patches count. `none`: the hidden ones, alike. `grad`: all, by their steepest
            change. `pseudo`: like `grad`, with anomalies pasted into the input, for the teacher to remove
            and map. `label_margin`: SEMI-SUPERVISED: the student is pushed away from the teacher where
            training labels say anomaly.
        pseudo_probability: Share of windows with a pasted anomaly in `pseudo`, in [0, 1].
        margin: Least discrepancy wanted on labelled anomalies.
        margin_warmup_epochs: Epochs over which the margin term grows to full weight.
        distill_weight: Weight of the student's loss in `joint`.
        score: `all_patches` scores every point; `mask_last_n` hides the end of a window and scores only that.
        score_groups: Masks G that together hide every patch, for `all_patches`, in [2, T / P]; fewer = faster.
        channel_groups: Masks that together hide every channel, each hiding about C / G of them.
        last_n: Points scored by `mask_last_n`, in [1, T - P].
        student_weight: Weight of the discrepancy in the score.
        instance_norm: Standardise each window by its own mean and spread; blind to shifts of level.
        input_limit: Largest size of a value that the network reads; None: as it is. Errors count in full.

    Raises:
        ValueError: If a value is outside its range or unknown.
    """

    masks: Tensor
    channel_masks: Tensor
    positions: Tensor

    def __init__(
        self,
        *,
        window: int,
        n_channels: int,
        patch_size: int | None = 4,
        mask_unit: MaskUnit = "patch",
        d_model: int = 64,
        n_heads: int = 4,
        feedforward: int = 256,
        dropout: float = 0.1,
        encoder_layers: int = 3,
        teacher_layers: int = 4,
        student_layers: int = 1,
        mask_ratio: float = 0.4,
        patchify: PatchifyName = "linear",
        pool: PoolName = "flatten",
        hide_masked: bool = True,
        mask_wiring: Wiring = "after_encoder",
        schedule: Schedule = "two_phase",
        teacher_share: float = 0.5,
        warmup_epochs: int = 3,
        weighting: Weighting = "none",
        pseudo_probability: float = 0.25,
        margin: float = 0.5,
        margin_warmup_epochs: int = 10,
        distill_weight: float = 0.5,
        score: ScoreMode = "all_patches",
        score_groups: int = 2,
        channel_groups: int = 8,
        last_n: int = 10,
        student_weight: float = 0.5,
        instance_norm: bool = False,
        input_limit: float | None = None,
    ) -> None:
        super().__init__()
        patch_size = patch_size or nearest_divisor(window, 10)
        n_patches = count_patches(window, patch_size)
        check_choice("mask_wiring", mask_wiring, get_args(Wiring))
        check_choice("schedule", schedule, get_args(Schedule))
        check_choice("weighting", weighting, get_args(Weighting))
        check_choice("score", score, get_args(ScoreMode))
        check_limit(input_limit)
        check_choice("mask_unit", mask_unit, get_args(MaskUnit))
        if mask_unit == "auto":
            mask_unit = "channel" if n_channels > 1 else "patch"
        if mask_unit != "patch" and n_channels < 2:
            raise ValueError(f"mask_unit={mask_unit!r} needs at least two channels: use mask_unit='patch'")
        if mask_unit != "patch" and score == "mask_last_n":
            raise ValueError("score='mask_last_n' hides patches: use it with mask_unit='patch'")
        check_range("mask_ratio", mask_ratio, 0.0 < mask_ratio < 1.0, "between 0 and 1")
        check_range("teacher_share", teacher_share, 0.0 < teacher_share < 1.0, "between 0 and 1")
        check_range(
            "d_model", d_model, d_model % (2 * n_heads) == 0, f"a multiple of 2 * n_heads={2 * n_heads}"
        )
        if score == "all_patches":
            check_range(
                "score_groups", score_groups, 2 <= score_groups <= n_patches, f"between 2 and {n_patches}"
            )
        else:
            longest = window - patch_size
            check_range("last_n", last_n, 1 <= last_n <= longest, f"between 1 and {longest}")

        by_patch, by_channel = mask_unit != "channel", mask_unit != "patch"
        self.units = ["patch"] * by_patch + ["channel"] * by_channel
        self.patch_size = patch_size
        self.n_patches = n_patches
        self.patch_values = patch_size * n_channels
        self.n_masked = min(max(1, round(n_patches * mask_ratio)), n_patches - 1)
        self.hide_masked = hide_masked
        self.mask_wiring = mask_wiring
        self.schedule = schedule
        self.warmup_epochs = warmup_epochs
        self.weighting = weighting
        self.pseudo_probability = pseudo_probability
        self.margin = margin
        self.margin_warmup_epochs = margin_warmup_epochs
        self.distill_weight = distill_weight
        self.score_mode = score
        self.last_n = last_n
        self.student_weight = student_weight
        self.instance_norm = instance_norm
        self.input_limit = input_limit
        if schedule == "two_phase":
            self.stages = (Stage("teacher", teacher_share), Stage("student", 1.0 - teacher_share))
            self.stage = "teacher"

        self.map_size = patch_size if weighting == "pseudo" else 0
        sizes = (d_model, n_heads, feedforward, dropout)
        self.patchify = build_patchify(patchify, n_channels, patch_size, d_model, pool)
        self.encoder = encoder_stack(encoder_layers, *sizes)
        self.teacher = CrossAttentionDecoder(teacher_layers, self.patch_values + self.map_size, *sizes)
        self.student = CrossAttentionDecoder(student_layers, self.patch_values, *sizes)
        self.teacher_token = nn.Parameter(torch.zeros(d_model)) if by_patch else None
        own_token = by_patch and mask_wiring == "after_encoder"
        self.student_token = nn.Parameter(torch.zeros(d_model)) if own_token else None
        self.register_buffer("positions", sinusoidal_positions(n_patches, d_model), persistent=False)
        masks = (
            spread_groups(n_patches, score_groups)
            if score == "all_patches"
            else last_patches(n_patches, patch_size, last_n)
        )
        self.register_buffer("masks", masks, persistent=False)
        self.n_hidden = int(masks[0].sum())
        self.detail = DetailPath(n_channels, patch_size) if by_channel else None
        self.channel_token = nn.Parameter(torch.zeros(n_channels, d_model)) if by_channel else None
        hidden = groups_of_channels(n_channels, channel_groups) if by_channel else torch.empty(0, n_channels)
        self.register_buffer("channel_masks", hidden.bool(), persistent=False)
        for token in (self.teacher_token, self.student_token, self.channel_token):
            if token is not None:
                nn.init.normal_(token, std=0.02)

    # ------------------------------------------------------------------ stages

    def begin_stage(self, stage: str, train_batches: Iterable[SeriesBatch]) -> None:
        """Freeze or unfreeze what `stage` needs."""
        self.stage = stage
        self.train(self.training)

    def trainable(self, stage: str) -> Iterable[nn.Parameter]:
        """The student's parameters in stage `student`, all but those in `teacher`, all in `joint`."""
        if self.schedule == "joint":
            return self.parameters()
        own = self._student_parameters()
        if stage == "student":
            return own
        return [p for p in self.parameters() if all(p is not other for other in own)]

    def train(self, mode: bool = True) -> "MaskedAutoencoder":
        """Set the mode of the parts that train; the frozen ones stay in evaluation mode."""
        super().train(mode)
        if self.stage == "student":  # what is frozen shows the student what it will show at test time
            for part in (self.patchify, self.encoder, self.teacher, self.detail):
                if part is not None:
                    part.eval()
        return self

    def _student_parameters(self) -> list[nn.Parameter]:
        token = [] if self.student_token is None else [self.student_token]
        return [*self.student.parameters(), *token]

    # ------------------------------------------------------------------ network

    def _encode(self, x: Tensor, mask: Tensor, n_masked: int) -> tuple[Tensor, Tensor | None]:
        """Latents of x (B, T, C) with `n_masked` patches hidden by mask (B, N), and where they belong."""
        if self.hide_masked:
            x = x.masked_fill(mask.repeat_interleave(self.patch_size, dim=1)[:, :, None], 0.0)
        tokens = self.patchify(x) + self.positions  # (B, N, D)
        if self.mask_wiring == "before_encoder":
            assert self.teacher_token is not None
            hidden = self.teacher_token + self.positions
            return self.encoder(torch.where(mask[:, :, None], hidden, tokens)), None
        visible = mask.long().argsort(dim=1, stable=True)[:, : mask.shape[1] - n_masked]
        index = visible[:, :, None].expand(-1, -1, tokens.shape[2])  # (B, visible, D)
        return self.encoder(tokens.gather(1, index)), index

    def _memory(self, latent: Tensor, index: Tensor | None, token: Tensor | None) -> Tensor:
        """Latents back in their places, a mask token in all others: (B, N, D)."""
        if index is None or token is None:
            return latent
        empty = (token + self.positions).to(latent.dtype).expand(latent.shape[0], -1, -1)
        return empty.scatter(1, index, latent)

    def _decode(self, unit: str, masked: Masked, *, student: bool) -> tuple[Tensor, Tensor | None]:
        """Patches (B, N, S) as the teacher and, if asked for, the student see them."""
        masked = masked._replace(x=limited(masked.x, self.input_limit))
        if unit == "channel":
            return self._decode_channels(masked, student=student)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.stage != "student"):
            latent, index = self._encode(masked.x, masked.mask, masked.n_hidden)
            teacher = self.teacher(self.positions, self._memory(latent, index, self.teacher_token))
        if not student:
            return teacher, None
        memory = self._memory(latent.detach(), index, self.student_token)
        return teacher, self.student(self.positions, memory)

    def _decode_channels(self, masked: Masked, *, student: bool) -> tuple[Tensor, Tensor | None]:
        """The same with hidden channels; detail that the visible ones show is added to both outputs."""
        assert self.detail is not None
        assert self.channel_token is not None
        seen = masked.x.masked_fill(masked.mask[:, None, :], 0.0)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.stage != "student"):
            which = masked.mask.to(seen) @ self.channel_token  # (B, D)
            latent = self.encoder(self.patchify(seen) + self.positions + which[:, None])
            detail = self.detail(seen, masked.mask)  # (B, N, P * C)
            detail = functional.pad(detail, (0, self.map_size))  # the map of pasted points has no detail
            teacher = self.teacher(self.positions, latent) + detail
        if not student:
            return teacher, None
        shown = detail[..., : self.patch_values].detach()
        return teacher, self.student(self.positions, latent.detach()) + shown

    def _random_mask(self, unit: str, x: Tensor) -> Masked:
        """Each window with a random mask."""
        if unit == "channel":  # the masks of the score: what hides together is never seen together
            chosen = self.share.integers(len(self.channel_masks), len(x), x.device)
            return self._masked(unit, x, self.channel_masks[chosen], 0)
        mask = random_masks(self.share.uniform(len(x), self.n_patches, device=x.device), self.n_masked)
        return self._masked(unit, x, mask, self.n_masked)

    def _each_mask(self, unit: str, x: Tensor) -> Masked:
        """Each window once per mask of the score, (B * G, ...)."""
        masks = self.channel_masks if unit == "channel" else self.masks
        return self._masked(
            unit, x.repeat_interleave(len(masks), dim=0), masks.repeat(x.shape[0], 1), self.n_hidden
        )

    def _masked(self, unit: str, x: Tensor, mask: Tensor, n_hidden: int) -> Masked:
        if unit == "channel":
            values = mask.repeat(1, self.patch_size)[:, None].expand(-1, self.n_patches, -1)  # (B, N, P * C)
        else:
            values = mask[:, :, None].expand(-1, -1, self.patch_values)  # (B, N, P * C)
        return Masked(x, mask, values, n_hidden)

    # ------------------------------------------------------------------ training

    def loss(self, batch: SeriesBatch) -> dict[str, Tensor]:
        """Reconstruction and distillation loss.

        In training each window gets a random mask. In evaluation every mask of the score is used, so that the
        value is deterministic and comparable between epochs.

        Args:
            batch: Windows; labels are read with `weighting="label_margin"` only.

        Returns:
            `loss`, `rec` = mean squared error of the teacher on hidden values, and, where the student is
            trained, `disc` = mean squared difference of student and teacher on hidden values.

        Raises:
            ValueError: If `weighting="label_margin"` and the training batch has no labels.
        """
        if self.weighting == "label_margin" and self.training and batch.labels is None:
            raise ConfigError("weighting='label_margin' needs training labels, but the batch has no labels")
        x = standardise_instances(batch.x).x if self.instance_norm else batch.x
        if self.training:
            unit = self.units[self.share.one_integer(len(self.units))]
            return self._loss(unit, self._random_mask(unit, x), batch.labels)
        parts = []
        for unit in self.units:
            masked = self._each_mask(unit, x)
            repeats = len(masked.x) // len(x)
            labels = None if batch.labels is None else batch.labels.repeat_interleave(repeats, dim=0)
            parts.append(self._loss(unit, masked, labels))
        return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}

    def _loss(self, unit: str, masked: Masked, labels: Tensor | None) -> dict[str, Tensor]:
        x, values = masked.x, masked.values
        pasted = None
        if self.weighting == "pseudo" and self.training:
            seen, changed = inject_windows(x, self.pseudo_probability)
            masked = masked._replace(x=seen)
            pasted = changed.any(dim=-1)  # (B, T)
        warming_up = self.training and self.schedule == "joint" and self.epoch < self.warmup_epochs
        with_student = self.stage != "teacher" and not warming_up
        teacher, student = self._decode(unit, masked, student=with_student)
        rec = self._reconstruction_loss(teacher, x, values, pasted)
        if student is None:
            return {"loss": rec, "rec": rec.detach()}
        disc = self._distillation_loss(teacher[..., : self.patch_values].detach(), student, values, labels)
        total = disc if self.stage == "student" else rec + self.distill_weight * disc
        return {"loss": total, "rec": rec.detach(), "disc": disc.detach()}

    def _reconstruction_loss(
        self, teacher: Tensor, x: Tensor, values: Tensor, pasted: Tensor | None
    ) -> Tensor:
        """L_rec: the teacher's output (B, N, S) against clean windows x (B, T, C)."""
        target = to_patches(x, self.patch_size)  # (B, N, P * C)
        if self.map_size:  # the last P outputs are the map of pasted points
            truth = values.new_zeros(x.shape[:2]) if pasted is None else pasted
            target = torch.cat([target, to_patches(truth[:, :, None].to(x), self.patch_size)], dim=-1)
            values = torch.cat([values, values.any(-1, keepdim=True).expand(-1, -1, self.map_size)], dim=-1)
        error = (teacher.float() - target).square()  # (B, N, S)
        if self.weighting in ("grad", "pseudo"):
            return (error.mean(dim=-1) * change_weights(x, self.patch_size, pasted)).sum(dim=1).mean()
        return self.share.ratio((error * values).sum(), values.sum())

    def _distillation_loss(
        self, teacher: Tensor, student: Tensor, values: Tensor, labels: Tensor | None
    ) -> Tensor:
        """L_disc: student against teacher, both (B, N, P * C)."""
        squared = (student.float() - teacher.float()).square() * values
        discrepancy = squared.sum(dim=-1) / values.sum(dim=-1).clamp(min=1)  # d_p (B, N)
        if self.weighting == "label_margin" and labels is not None:
            growth = min(1.0, (self.epoch + 1) / max(1, self.margin_warmup_epochs))
            anomalous = touched_patches(labels, self.patch_size)
            discrepancy = push_apart(discrepancy, anomalous, self.margin, growth)
        return self.share.mean(discrepancy[values.any(dim=-1)])

    # ------------------------------------------------------------------ scoring

    def deviations(self, x: Tensor) -> Tensor:
        """Signed error of each point while it was hidden; its square is `channel_scores`.

        The size joins the teacher's error and the student's weighted discrepancy, the sign is the teacher's.

        Args:
            x: (B, T, C) float32, standardised.

        Returns:
            (B, T, C) float32, or (B, T, 2 * C) for `mask_unit="both"`: patches hidden, then channels hidden.
            NaN = not scored, for points before the last `last_n` with `score="mask_last_n"`.
        """
        weight = 0.0 if self.stage == "teacher" else self.student_weight  # not trained yet
        if not self.instance_norm:
            return torch.cat([self._deviations(unit, x, weight) for unit in self.units], dim=-1)
        own = standardise_instances(x)
        return torch.cat([self._deviations(unit, own.x, weight) * own.scale for unit in self.units], dim=-1)

    def _deviations(self, unit: str, x: Tensor, weight: float) -> Tensor:
        teacher, student, values = self._decode_each_mask(unit, x, student=weight > 0.0)
        error = to_patches(x, self.patch_size)[:, None] - teacher  # (B, G, N, P * C)
        if student is not None:
            size = (error.square() + weight * (teacher - student).square()).sqrt()
            error = torch.where(error < 0, -size, size)
        joined = (error * values).sum(dim=1) / values.sum(dim=1)  # (B, N, P * C)
        deviations = from_patches(joined, self.patch_size)  # (B, T, C)
        if self.score_mode == "mask_last_n":
            deviations[:, : -self.last_n] = torch.nan
        return deviations

    def reconstruct(self, x: Tensor) -> Reconstruction:
        """What teacher and student make of windows x (B, T, C), with the first kind of mask."""
        own = standardise_instances(x) if self.instance_norm else None
        seen = x if own is None else own.x
        teacher, student, values = self._decode_each_mask(self.units[0], seen, student=True)
        assert student is not None
        times = values.sum(dim=1, keepdim=True)  # (B, 1, N, P * C)
        share = torch.where(times > 0, values / times.clamp(min=1), 1.0 / values.shape[1])
        hidden = from_patches((times[:, 0] > 0), self.patch_size).all(dim=-1)  # (B, T)
        both = [from_patches((out * share).sum(dim=1), self.patch_size) for out in (teacher, student)]
        both = both if own is None else [own.undo(out) for out in both]
        return Reconstruction(teacher=both[0], student=both[1], mask=hidden)

    def _decode_each_mask(
        self, unit: str, x: Tensor, *, student: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Outputs and hidden values (B, G, N, P * C) under each mask, all in one forward."""
        masked = self._each_mask(unit, x)
        teacher, imitation = self._decode(unit, masked, student=student)
        shape = (x.shape[0], -1, self.n_patches, self.patch_values)
        teacher = teacher[..., : self.patch_values].float().reshape(shape)  # (B, G, N, P * C)
        values = masked.values.reshape(shape)  # (B, G, N, P * C)
        return teacher, None if imitation is None else imitation.float().reshape(shape), values
