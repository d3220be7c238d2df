"""ProDiffAD: partial diffusion with a denoiser that is distilled to fewer and fewer steps.

Source: "ProDiffAD: Progressively Distilled Diffusion Models for Multivariate Time Series Anomaly Detection in
JointCloud Environment", IJCNN 2024 (IEEE 10650364); official code AiShare-WHU/ProDiffAD @7aa2a56. A window is made
noisy up to an intermediate level and denoised again by a network that has seen normal windows only: what it does
not know comes back changed. Each round of distillation halves the number of denoising steps.

What differs. The released `--training distill` never evaluates its distillation term, and the term itself asks the
teacher for the noise of a level that the window does not have. Here distillation is that of Salimans and Ho,
"Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022 (arXiv 2202.00512), sections 2-4: cosine
schedule in continuous time, v-prediction, a student that starts as a copy of its teacher and learns to take two of
its DDIM steps in one. `distill="repo"` trains on the released term instead (evaluated, unlike there); it is not
progressive distillation in the strict sense. DDIM replaces random sampling and the noise of scoring is fixed, so
that scores are repeatable. Windows are standardised by the data layer, as for every method: there is no min-max
scaling and no clipping, which would hide that a value leaves the range of the training data. The draws of noise are
averaged before the error is taken: what is left has a sign, and that tells the scorer more. No label is read. The
auto-encoder in front of the diffusion (DiffusionAE) is left out. New here: several starting levels give several views
of a window, because little noise hides short anomalies only and much noise hides the details of normal windows too.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from tocsin.batch import SeriesBatch
from tocsin.models.base import SeriesDetector, Stage
from tocsin.models.checks import check_choice, check_range
from tocsin.models.diffusion import (
    add_noise,
    ddim_step,
    fixed_noise,
    level_of,
    one_step_target,
    predict,
    predict_noise,
    truncated_snr,
)
from tocsin.models.instance_norm import standardise_instances
from tocsin.models.unet1d import UNet1d

Distill = Literal["salimans_ho", "repo"]
Weights = Literal["student", "teacher"]

_REPO_SHARE = 0.1  # of the teacher's term in the released loss


class Noisy(NamedTuple):
    """A batch on its way to the denoiser.

    Attributes:
        x: (B, T, C) float, clean.
        noise: (B, T, C) float.
        height: (B,) float in (0, 1], where between no noise and the highest level each window is.
        start: (B,) float, the level that a student starts from.
    """

    x: Tensor
    noise: Tensor
    height: Tensor
    start: Tensor


class ProDiffAD(SeriesDetector):
    """Error of a window after partial diffusion and a few denoising steps.

    Stage `teacher` trains a denoiser for all levels up to `train_noise`. Each stage `distil_N` trains a student of N
    steps on the network before it, which takes 2 N. Every round keeps its own weights, so that a trained model can
    be run with any of these numbers of steps, and the teacher with any number at all.

    Args:
        window: Steps T of a window.
        n_channels: Channels C.
        teacher_steps: Denoising steps of the teacher that the first student halves.
        student_steps: Steps of the last student: `teacher_steps` over a power of two, 1 = fastest. The same as
            `teacher_steps` = no distillation.
        start_noise: Noise that is added to a window to be scored, in standard deviations of the data, each in
            (0, 1). Too little and anomalies come back; too much and normal windows come back changed. Several give
            a view each, and scoring takes as many times as long.
        train_noise: Most noise that the teacher learns to remove, up to 1; None = the largest `start_noise`, above
            which it is never asked.
        draws: Fixed draws of noise K that a score averages, in pairs of opposite sign.
        noise_seed: Seed of these draws.
        steps: Denoising steps at scoring; None = those of the newest student.
        weights: Whose weights score. `teacher`: those before any distillation, with any `steps` (None =
            `teacher_steps`): plain DDIM, for comparison. `student`: those that were distilled for `steps`.
        distill: `salimans_ho`: the student takes two steps of its teacher in one. `repo`: the released loss, of
            fresh students that start at half their teacher's level.
        max_loss_weight: Largest weight of a level in the loss, at least 1.
        ema: Decay of a running mean of the weights, which then scores and teaches, in [0, 1); 0 for none.
        teacher_share: Largest part of the epochs for the teacher, in (0, 1); the students share the rest.
        instance_norm: Standardise each window by itself first: forgives level shifts.
        dim: Width of the U-Net at full length; a multiple of 8.
        dim_mults: Its widths as multiples of `dim`, one for each length.
        n_heads: Its attention heads.
        head_dim: Width of a head.

    Raises:
        ValueError: If a value is outside its range or unknown.
    """

    noise: Tensor
    start_levels: Tensor

    def __init__(
        self,
        *,
        window: int,
        n_channels: int,
        teacher_steps: int = 4,
        student_steps: int = 1,
        start_noise: Sequence[float] = (0.35,),
        train_noise: float | None = None,
        draws: int = 4,
        noise_seed: int = 0,
        steps: int | None = None,
        weights: Weights = "student",
        distill: Distill = "salimans_ho",
        max_loss_weight: float = 20.0,
        ema: float = 0.0,
        teacher_share: float = 0.7,
        instance_norm: bool = False,
        dim: int = 16,
        dim_mults: Sequence[int] = (1, 2, 4),
        n_heads: int = 4,
        head_dim: int = 8,
    ) -> None:
        super().__init__()
        check_choice("distill", distill, get_args(Distill))
        check_range("len(start_noise)", len(start_noise), len(start_noise) >= 1, "at least 1")
        for sigma in start_noise:
            check_range("start_noise", sigma, 0.0 < sigma < 1.0, "between 0 and 1")
        largest = max(start_noise)
        train_noise = largest if train_noise is None else train_noise
        fits = largest <= train_noise <= 1.0
        check_range("train_noise", train_noise, fits, f"between the largest start_noise={largest} and 1")
        check_range("draws", draws, draws >= 1, "at least 1")
        check_range("max_loss_weight", max_loss_weight, max_loss_weight >= 1.0, "at least 1")
        check_range("ema", ema, 0.0 <= ema < 1.0, "at least 0 and below 1")
        check_range("teacher_share", teacher_share, 0.0 < teacher_share < 1.0, "between 0 and 1")
        self.step_counts = halvings(teacher_steps, student_steps)
        self.train_level = level_of(train_noise)
        self.distill = distill
        self.max_loss_weight = max_loss_weight
        self.ema = ema
        self.instance_norm = instance_norm
        self.use(steps=steps, weights=weights)
        self.stages = self._make_stages(teacher_share)
        self.stage = "teacher"
        self.denoisers = nn.ModuleList(
            UNet1d(n_channels=n_channels, dim=dim, dim_mults=dim_mults, n_heads=n_heads, head_dim=head_dim)
            for _ in self.step_counts
        )
        self.averages = deepcopy(self.denoisers).requires_grad_(False) if ema else nn.ModuleList()
        starts = torch.tensor([level_of(sigma) for sigma in start_noise])  # u_0 of each view
        self.register_buffer("start_levels", starts, persistent=False)
        self.register_buffer("noise", fixed_noise(draws, window, n_channels, noise_seed), persistent=False)

    def use(self, *, steps: int | None = None, weights: Weights = "student") -> None:
        """Choose how to score from now on; arguments as in the constructor.

        Raises:
            ValueError: If there are no such weights, or none for this number of steps.
        """
        check_choice("weights", weights, get_args(Weights))
        if steps is not None and weights == "teacher":
            check_range("steps", steps, steps >= 1, "at least 1")
        elif steps is not None:
            known = ", ".join(map(str, self.step_counts))
            wanted = f"one that was distilled: {known}; weights='teacher' takes any"
            check_range("steps", steps, steps in self.step_counts, wanted)
        self.steps = steps
        self.weights = weights

    # ------------------------------------------------------------------ stages

    def _make_stages(self, teacher_share: float) -> tuple[Stage, ...]:
        students = self.step_counts[1:]
        if not students:
            return (Stage("teacher"),)
        share = (1.0 - teacher_share) / len(students)
        return (Stage("teacher", teacher_share), *(Stage(f"distil_{n}", share) for n in students))

    @property
    def _round(self) -> int:
        """Index of the current stage, and of the network that it trains."""
        return [stage.name for stage in self.stages].index(self.stage)

    def begin_stage(self, stage: str, train_batches: Iterable[SeriesBatch]) -> None:
        """Let a student start as a copy of its teacher."""
        self.stage = stage
        index = self._round
        if index and self.distill == "salimans_ho":
            self.denoisers[index].load_state_dict(self._settled(index - 1).state_dict())
        if self.ema:
            self.averages[index].load_state_dict(self.denoisers[index].state_dict())

    def trainable(self, stage: str) -> Iterable[nn.Parameter]:
        """The weights of this round's network."""
        index = [other.name for other in self.stages].index(stage)
        return self.denoisers[index].parameters()

    def _settled(self, index: int) -> nn.Module:
        """A network as it scores and teaches."""
        return self.averages[index] if self.ema else self.denoisers[index]

    @torch.no_grad()
    def _follow(self, index: int) -> None:
        """Move the running mean towards the weights that the step before has left."""
        pairs = zip(self.averages[index].parameters(), self.denoisers[index].parameters(), strict=True)
        for mean, current in pairs:
            mean.lerp_(current, 1.0 - self.ema)

    # ------------------------------------------------------------------ training

    def loss(self, batch: SeriesBatch) -> dict[str, Tensor]:
        """Denoising loss of the teacher, or distillation loss of a student.

        In training each window gets a random level and noise. In evaluation it gets the fixed noise of the score at
        evenly spaced levels, so that the value is deterministic and comparable between epochs.

        Args:
            batch: Windows; labels are not read.

        Returns:
            `loss`; and `rec` = mean squared error of the clean windows as predicted, or, of a student, `distil` =
            mean squared difference from its teacher's.
        """
        index = self._round
        if self.training and self.ema:
            self._follow(index)
        network = self.denoisers[index] if self.training else self._settled(index)
        noisy = self._made_noisy(batch.x)
        if index == 0:
            return self._teacher_loss(network, noisy)
        if self.distill == "repo":
            return self._repo_loss(network, self._settled(index - 1), noisy)
        return self._student_loss(network, self._settled(index - 1), noisy, self.step_counts[index])

    def _made_noisy(self, x: Tensor) -> Noisy:
        if self.instance_norm:
            x = standardise_instances(x).x
        if self.training:
            chosen = self.share.integers(len(self.start_levels), len(x), x.device)
            height = 1.0 - self.share.uniform(len(x), device=x.device)
            noise = self.share.normal(*x.shape, device=x.device)
            return Noisy(x, noise, height, self.start_levels[chosen])
        copies = max(len(self.noise), len(self.start_levels))  # each window with every draw and every start
        k = torch.arange(copies, device=x.device)
        return Noisy(
            x.repeat_interleave(copies, dim=0),
            self.noise[k % len(self.noise)].to(x).repeat(len(x), 1, 1),
            ((k + 0.5) / copies).repeat(len(x)),
            self.start_levels[k % len(self.start_levels)].repeat(len(x)),
        )

    def _teacher_loss(self, network: nn.Module, noisy: Noisy) -> dict[str, Tensor]:
        level = self.train_level * noisy.height
        predicted = predict(network, add_noise(noisy.x, noisy.noise, level), level)
        error = (predicted - noisy.x).square()
        weight = truncated_snr(level, self.max_loss_weight)
        return {"loss": (weight * error).mean(), "rec": error.detach().mean()}

    def _student_loss(
        self, network: nn.Module, teacher: nn.Module, noisy: Noisy, n_steps: int
    ) -> dict[str, Tensor]:
        """Salimans and Ho, algorithm 2: two steps of the teacher are the target of one."""
        i = (noisy.height * n_steps).ceil()  # 1 .. N
        level, end = noisy.start * (i / n_steps), noisy.start * ((i - 1) / n_steps)
        middle = (level + end) / 2
        z = add_noise(noisy.x, noisy.noise, level)
        with torch.no_grad():
            half_way = ddim_step(z, predict(teacher, z, level), level, middle)
            arrived = ddim_step(half_way, predict(teacher, half_way, middle), middle, end)
            target = one_step_target(z, arrived, level, end)
        error = (predict(network, z, level) - target).square()
        weight = truncated_snr(level, self.max_loss_weight)
        return {"loss": (weight * error).mean(), "distil": error.detach().mean()}

    def _repo_loss(self, network: nn.Module, teacher: nn.Module, noisy: Noisy) -> dict[str, Tensor]:
        """As released: mostly ordinary training; the teacher is told twice the true level."""
        level = self.train_level * noisy.height
        z = add_noise(noisy.x, noisy.noise, level)
        found = predict_noise(network, z, level)
        with torch.no_grad():
            told = predict_noise(teacher, z, (2 * level).clamp(max=1.0))
        own = (found - noisy.noise).square().mean()
        distil = (found - told).square().mean()
        return {"loss": (1.0 - _REPO_SHARE) * own + _REPO_SHARE * distil, "distil": distil.detach()}

    # ------------------------------------------------------------------ scoring

    def _sampler(self) -> tuple[nn.Module, list[float]]:
        """The network that scores, and the levels that it walks down, as shares of the starting level."""
        if self.weights == "teacher":
            n_steps = self.steps or self.step_counts[0]
            return self._settled(0), [i / n_steps for i in range(n_steps, -1, -1)]
        index = self._round if self.steps is None else self.step_counts.index(self.steps)
        n_steps = self.step_counts[index]
        # As released, a student takes steps as small as its teacher's, fewer of them, from a lower level.
        whole = self.step_counts[0] if self.distill == "repo" else n_steps
        return self._settled(index), [i / whole for i in range(n_steps, -1, -1)]

    def _reconstruct(self, x: Tensor, start: Tensor) -> Tensor:
        """Windows (B, T, C) made noisy up to level `start` () and denoised again, mean of all draws."""
        network, walk = self._sampler()
        draws = len(self.noise)
        start = start.expand(x.shape[0] * draws)  # (B * K,)
        noise = self.noise.to(x).repeat(x.shape[0], 1, 1)  # (B * K, T, C)
        z = add_noise(x.repeat_interleave(draws, dim=0), noise, walk[0] * start)
        for share, share_to in pairwise(walk):
            level, to = share * start, share_to * start
            z = ddim_step(z, predict(network, z, level), level, to)
        return torch.unflatten(z, 0, (x.shape[0], draws)).mean(dim=1)  # (B, T, C)

    def deviations(self, x: Tensor) -> Tensor:
        """Signed difference of each point from its reconstruction.

        Args:
            x: (B, T, C) float32, standardised.

        Returns:
            (B, T, V * C) float32, one view for each `start_noise`; the further from 0, the more anomalous.
        """
        if not self.instance_norm:
            return torch.cat([x - self._reconstruct(x, start) for start in self.start_levels], dim=2)
        instance = standardise_instances(x)
        rebuilt = [instance.undo(self._reconstruct(instance.x, start)) for start in self.start_levels]
        return torch.cat([x - view for view in rebuilt], dim=2)


def halvings(first: int, last: int) -> tuple[int, ...]:
    """Numbers of steps from `first` down to `last`, each half the one before."""
    check_range("student_steps", last, last >= 1, "at least 1")
    counts = [last]
    while counts[-1] < first:
        counts.append(2 * counts[-1])
    wanted = f"student_steps={last} times a power of two"
    check_range("teacher_steps", first, counts[-1] == first, wanted)
    return tuple(reversed(counts))
