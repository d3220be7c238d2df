"""PatchAD: MLP-Mixers that contrast two views of a patched window and reconstruct it.

Zhong, Yu, Yang, Wang and Yang, "PatchAD: A Lightweight Patch-based MLP-Mixer for Time Series Anomaly Detection",
arXiv 2401.09793; official code EmorZz1G/PatchAD @5a99bb4. For several patch sizes a window is seen as N patches
("num") and as the P places inside a patch ("size"). MLPs mix channels, patches or places, and features. Both views
become distributions over features: one branch learns to tell them apart, the other to bring them together, and a
small projector on each branch does the same crosswise. Two heads per patch size reconstruct the window.

What differs from the released code, where it does not do what the paper says:

- the reconstruction is trained. Released, its loss is commented out while its error is the score, so that the
  score is the error of a random decoder;
- the loss is 10 MSE - [c L_proj + (1 - c) L_cont]: released weights and sign of the contrast, with the
  reconstruction added. Both contrast terms are 0 in value and act by their gradients alone, so that the value of
  the loss is 10 MSE, and nothing follows the contrast;
- the positional encoding is added once, not once more with each patch size;
- the reconstruction goes back to the scale of the input where instances are normalised, which is an option here;
- the weights of the layers join their reconstructions. Released they scale distributions that are normalised again,
  which makes them without effect;
- no step of a window is dropped where no patch size fits: see `choose_patch_sizes`.

`released_behaviour=True` undoes the first, third, fourth and fifth.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from tocsin.batch import SeriesBatch
from tocsin.models.base import SeriesDetector
from tocsin.models.checks import check_choice, check_range
from tocsin.models.input_limit import check_limit, limited
from tocsin.models.instance_norm import standardise_instances
from tocsin.models.patchad_mixer import (
    Activation,
    LayerMode,
    MixerMlp,
    MixerSizes,
    PatchScale,
    check_patch_sizes,
    choose_patch_sizes,
)
from tocsin.models.patchify import sinusoidal_positions


class Views(NamedTuple):
    """Both views of a batch and its reconstruction.

    Attributes:
        num: For each patch size and layer, features (B, C, N, D).
        size: For each patch size and layer, features (B, C, P, D).
        expected: (B, T, C) float32.
    """

    num: list[Tensor]
    size: list[Tensor]
    expected: Tensor


# --- contrast -----------------------------------------------------------------------------------------------


def log_distributions(features: Tensor) -> Tensor:
    """Log of the channels' mean distribution over features, (B, C, M, D) -> (B, M, D) float32."""
    log_p = features.float().log_softmax(dim=-1)
    return log_p.logsumexp(dim=1) - math.log(features.shape[1])


def discrepancy(log_num: Tensor, log_size: Tensor) -> Tensor:
    """Symmetric KL divergence of each patch from each place.

    Step t of a window lies in patch t // P at place t % P, so that every pair is one step.

    Args:
        log_num: (B, N, D) float32 log distributions.
        log_size: (B, P, D) float32 log distributions.

    Returns:
        (B, N, P) float32, at least 0 but for rounding.
    """
    with torch.autocast(log_num.device.type, enabled=False):  # differences of products that are nearly equal
        num, size = log_num.exp(), log_size.exp()
        own = (num * log_num).sum(dim=-1)[:, :, None] + (size * log_size).sum(dim=-1)[:, None]
        return own - num @ log_size.transpose(1, 2) - log_num @ size.transpose(1, 2)


def opposed(x: Tensor) -> Tensor:
    """The same values, with the opposite gradient.

    The contrast is the discrepancy with one side held minus the discrepancy with the other side held: the
    gradient of one evaluation, with the sign of the second side turned.
    """
    return 2 * x.detach() - x


def gradient_only(x: Tensor) -> Tensor:
    """0 with the gradient of x."""
    return x - x.detach()


# --- detector -----------------------------------------------------------------------------------------------


class PatchAD(SeriesDetector):
    """Error of the reconstruction from contrasted views of patches and of places inside them.

    Args:
        window: Steps T of a window.
        n_channels: Channels C.
        patch_sizes: Steps of the patches, each a divisor of the window. None takes the three nearest to 3, 5 and
            7, and pads the window where it has too few divisors (`choose_patch_sizes`).
        d_model: Features D of a patch or place, even.
        n_layers: Mixer layers E per patch size.
        bottleneck: Features in the middle of a reconstruction head; None takes D, as published. The fewer, the
            less of an anomaly gets through.
        layer_mode: `parallel`: each layer reads the embedding, as released. `stacked`: each reads the one before.
        dropout: Dropout in the mixers, in [0, 1).
        activation: `relu` or `gelu`.
        mse_weight: Weight of the reconstruction in the loss.
        projection_share: c in [0, 1], part of the projectors in the contrast; at 0 there are none.
        beta: Part of the contrast in the score, in [0, 1]; 0 scores the reconstruction alone.
        instance_norm: Standardise each window by itself. It erases shifts of level.
        input_limit: Largest size of a value that the network reads; None: as it is. Errors count in full.
        released_behaviour: What the released code does, faults included: inputs have no limit, the reconstruction
            is not trained, encodings pile up over the patch sizes, instances are normalised but reconstructions not
            put back on scale, layers count alike, and the score's contrast is laid out at the wrong steps.

    Raises:
        ValueError: If a value is outside its range or unknown.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        window: int,
        n_channels: int,
        patch_sizes: Sequence[int] | None = None,
        d_model: int = 60,
        n_layers: int = 3,
        bottleneck: int | None = None,
        layer_mode: LayerMode = "parallel",
        dropout: float = 0.1,
        activation: Activation = "relu",
        mse_weight: float = 10.0,
        projection_share: float = 0.1,
        beta: float = 0.0,
        instance_norm: bool = False,
        input_limit: float | None = None,
        released_behaviour: bool = False,
    ) -> None:
        super().__init__()
        check_choice("layer_mode", layer_mode, get_args(LayerMode))
        check_choice("activation", activation, get_args(Activation))
        check_range("d_model", d_model, d_model >= 2 and d_model % 2 == 0, "a positive even number")
        check_range("n_layers", n_layers, n_layers >= 1, "at least 1")
        check_range("dropout", dropout, 0.0 <= dropout < 1.0, "in [0, 1)")
        check_range("mse_weight", mse_weight, mse_weight > 0.0, "above 0")
        check_range("projection_share", projection_share, 0.0 <= projection_share <= 1.0, "in [0, 1]")
        check_range("beta", beta, 0.0 <= beta <= 1.0, "in [0, 1]")
        check_limit(input_limit)
        bottleneck = d_model if bottleneck is None else bottleneck
        check_range("bottleneck", bottleneck, bottleneck >= 2, "at least 2, or null")
        padded = window
        if patch_sizes is None:
            patch_sizes, padded = choose_patch_sizes(window)
        check_patch_sizes(patch_sizes, padded)

        self.padding = padded - window
        self.mse_weight = mse_weight
        self.projection_share = projection_share
        self.beta = beta
        self.instance_norm = instance_norm or released_behaviour
        self.input_limit = None if released_behaviour else input_limit
        self.released_behaviour = released_behaviour
        sizes = MixerSizes(window, n_channels, d_model, n_layers, bottleneck, dropout, activation)
        self.scales = nn.ModuleList(
            PatchScale(
                sizes,
                padded=padded,
                patch_size=size,
                layer_mode=layer_mode,
                weigh_layers=not released_behaviour,
            )
            for size in patch_sizes
        )
        self.project_num, self.project_size = (
            MixerMlp(d_model, d_model // 2, dropout, activation, identity=True) if projection_share else None
            for _ in range(2)
        )
        positions = sinusoidal_positions(padded, n_channels + n_channels % 2)[:, :n_channels]  # (L, C)
        self.register_buffer("positions", positions.T.contiguous(), persistent=False)  # (C, L)

    def trainable(self, stage: str) -> Iterable[nn.Parameter]:
        """All parameters; with `released_behaviour` those of the reconstruction stay as drawn."""
        if not self.released_behaviour:
            return self.parameters()
        left = {id(p) for scale in self.scales for p in scale.reconstruction_parameters()}  # type: ignore[operator]
        return [p for p in self.parameters() if id(p) not in left]

    # ------------------------------------------------------------------ network

    def _look(self, x: Tensor) -> Views:
        """Views and reconstruction of windows x (B, T, C)."""
        instance = standardise_instances(x) if self.instance_norm else None
        seen = limited(x if instance is None else instance.x, self.input_limit).transpose(1, 2)  # (B, C, T)
        if self.padding:
            seen = functional.pad(seen, (self.padding, 0), mode="replicate")  # (B, C, L)
        num: list[Tensor] = []
        size: list[Tensor] = []
        expected = torch.zeros((), device=x.device)
        for index, scale in enumerate(self.scales):
            copies = index + 1 if self.released_behaviour else 1
            output = scale(seen + copies * self.positions)
            num += output.num
            size += output.size
            expected = expected + output.expected
        expected = (expected / len(self.scales)).transpose(1, 2)  # (B, T, C)
        if instance is not None and not self.released_behaviour:
            expected = instance.undo(expected)
        return Views(num, size, expected)

    def _contrast(self, views: Views) -> tuple[Tensor, Tensor]:
        """The contrast c L_proj + (1 - c) L_cont, of value 0, and the mean discrepancy that L_cont acts on."""
        between: list[Tensor] = []
        crosswise: list[Tensor] = []
        for num, size in zip(views.num, views.size, strict=True):
            log_num, log_size = log_distributions(num), log_distributions(size)  # P_num, P_size
            between.append(discrepancy(log_num, opposed(log_size)).mean())
            if self.project_num is not None and self.project_size is not None:
                q_num = self.project_num(num.mean(dim=1)).float()  # (B, N, D)
                q_size = self.project_size(size.mean(dim=1)).float()  # (B, P, D)
                crosswise += [
                    discrepancy(log_num, opposed(q_size.log_softmax(dim=-1))).mean(),
                    discrepancy(q_num.log_softmax(dim=-1), opposed(log_size)).mean(),
                ]
        mean = torch.stack(between).mean()
        contrast = (1 - self.projection_share) * gradient_only(mean)
        if crosswise:
            contrast = contrast + self.projection_share * gradient_only(torch.stack(crosswise).sum())
        return contrast, mean.detach()

    # ------------------------------------------------------------------ training and scoring

    def loss(self, batch: SeriesBatch) -> dict[str, Tensor]:
        """Reconstruction and contrast.

        Args:
            batch: Windows; labels are not read.

        Returns:
            `loss` = `mse_weight` times `mse` in value; `mse` = mean squared error of the reconstruction; `skl` =
            mean discrepancy of the views, which the patches raise and the places lower.
        """
        views = self._look(batch.x)
        mse = (batch.x.float() - views.expected).square().mean()
        contrast, skl = self._contrast(views)
        fit = mse.detach() if self.released_behaviour else mse
        return {"loss": self.mse_weight * fit - contrast, "mse": mse.detach(), "skl": skl}

    def deviations(self, x: Tensor) -> Tensor:
        """Signed error of the reconstruction, or with `beta` of a size that the contrast has part in.

        Its square is (1 - beta) (x - x_hat)^2 + beta softmax_t(-sKL_t): the less the views differ at a step, the
        more anomalous it is.

        Args:
            x: (B, T, C) float32, standardised.

        Returns:
            (B, T, C) float32; the further from 0, the more anomalous.
        """
        views = self._look(x)
        error = x.float() - views.expected
        if self.beta == 0.0:
            return error
        alike = self._steps_discrepancy(views).neg().softmax(dim=1)[:, :, None]  # (B, T, 1)
        size = ((1 - self.beta) * error.square() + self.beta * alike).sqrt()
        return torch.where(error < 0, -size, size)

    def _steps_discrepancy(self, views: Views) -> Tensor:
        """Discrepancy (B, T) of the views at each step, mean over patch sizes and layers."""
        total = torch.zeros((), device=views.expected.device)
        for num, size in zip(views.num, views.size, strict=True):
            pairs = discrepancy(log_distributions(num), log_distributions(size))  # (B, N, P)
            if self.released_behaviour:  # step t takes patch t % N and place t // N
                pairs = pairs.transpose(1, 2)  # (B, P, N)
            total = total + pairs.flatten(start_dim=1)  # (B, L)
        return total[:, self.padding :] / len(views.num)
