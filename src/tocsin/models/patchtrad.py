"""PatchTrAD: each channel is cut into overlapping patches, which a transformer reconstructs.

Vilhes, Gasso and Alaya, "PatchTrAD: A Patch-Based Transformer focusing on Patch-Wise Reconstruction Error for
Time Series Anomaly Detection", EUSIPCO 2025, arXiv 2504.08827. Channels share the encoder and do not see each other;
each has a head of its own. The error of a patch is its anomaly score.

What differs: every patch is scored and a step's reconstructions are averaged, where the paper scores the last
patch of a window; so the end of the window is not padded, but has a patch of its own. The skip connection
around the attention that the released code lacks is there. `attn_residual=False pad_end=True` is the released
behaviour: no skip connection, a padded end, and the last patch's error as the score of the window's last step.

Nothing is hidden from the network, so it may learn to copy: `copied`, logged on validation data, says how much of
an anomaly that was pasted into them comes out again. Channels are independent: a broken relation between them is
invisible to it.
"""

import torch
from torch import Tensor

from tocsin.batch import SeriesBatch
from tocsin.data.injection import inject_windows
from tocsin.models.base import SeriesDetector
from tocsin.models.checks import check_range
from tocsin.models.input_limit import check_limit, limited
from tocsin.models.instance_norm import Instance, standardise_instances
from tocsin.models.patchtrad_encoder import ChannelHeads, PatchEncoder

_PASTE_SEED = 0  # the same anomalies in every epoch, so that `copied` can be compared
_TINY = 1e-12


def patch_steps(window: int, patch_size: int, stride: int, *, pad_end: bool) -> Tensor:
    """Which steps each patch shows.

    Args:
        window: Steps T of a window.
        patch_size: Steps P of a patch, at most T.
        stride: Steps S from one patch to the next, at most P.
        pad_end: Go on for one patch beyond the end, where the last value is repeated, as published. Else, if the
            last patch does not end with the window, one more does, which overlaps it further.

    Returns:
        (N, P) int64 in [0, T); together the patches show every step. N = floor((T - P) / S) + 2 with `pad_end`,
        ceil((T - P) / S) + 1 without.
    """
    starts = torch.arange(0, window - patch_size + 1, stride)
    if pad_end:
        starts = torch.cat([starts, starts[-1:] + stride])
    elif int(starts[-1]) < window - patch_size:
        starts = torch.cat([starts, torch.tensor([window - patch_size])])
    return (starts[:, None] + torch.arange(patch_size)).clamp(max=window - 1)  # (N, P)


def patch_values_of_steps(steps: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Invert `patch_steps`: which values of the patches show each step.

    Args:
        steps: (N, P) int64 that show every step.
        window: Steps T of a window.

    Returns:
        Positions (T, K) int64 in the flattened patches and their weights (T, K) float32, 1 / count for the count of
        values that show a step and 0 to fill up. K is the largest count.
    """
    shows = steps.flatten() == torch.arange(window)[:, None]  # (T, N * P)
    counts = shows.sum(dim=1, keepdim=True)  # (T, 1)
    most = int(counts.max())
    positions = shows.long().argsort(dim=1, descending=True, stable=True)[:, :most]  # (T, K)
    return positions, (torch.arange(most) < counts) / counts


class PatchTrad(SeriesDetector):
    """Transformer on patches of single channels, scored by its reconstruction error.

    Args:
        window: Steps T of a window.
        n_channels: Channels C.
        patch_size: Steps P of a patch, less than the window.
        stride: Steps S from one patch to the next, at most P. Where S does not divide T - P, the last patch
            ends with the window and overlaps the one before further.
        d_model: Width of the tokens, even. The narrower, the less can be copied.
        n_heads: Attention heads; divides `d_model`.
        n_layers: Layers of the encoder.
        feedforward: Width of the hidden layer of the feed-forward blocks.
        dropout: Dropout of tokens and layers, in [0, 1).
        attn_residual: Whether there is a skip connection around the attention; the released code has none.
        pad_end: Pad the end of a window with its last value, one more patch, and score the last step by
            the error of the whole last patch: the published score, for streams. Offline, it takes
            `task.fold=last data.score_stride=1` too.
        instance_norm: Reconstruct each window on its own scale. It forgives a level that wanders, and hides shifts
            of a whole window.
        input_limit: Largest size of a value that the network reads; None: as it is. Errors count in full.

    Raises:
        ValueError: If a value is outside its range.
    """

    steps: Tensor
    positions_of_steps: Tensor
    weights_of_steps: Tensor

    def __init__(
        self,
        *,
        window: int,
        n_channels: int,
        patch_size: int = 8,
        stride: int = 6,
        d_model: int = 32,
        n_heads: int = 4,
        n_layers: int = 2,
        feedforward: int = 128,
        dropout: float = 0.3,
        attn_residual: bool = True,
        pad_end: bool = False,
        instance_norm: bool = False,
        input_limit: float | None = None,
    ) -> None:
        super().__init__()
        check_range("patch_size", patch_size, 1 <= patch_size < window, f"between 1 and {window - 1}")
        check_range("stride", stride, 1 <= stride <= patch_size, f"between 1 and patch_size={patch_size}")
        for name, value in (("n_heads", n_heads), ("n_layers", n_layers), ("feedforward", feedforward)):
            check_range(name, value, value >= 1, "at least 1")
        fits = d_model >= 2 and d_model % 2 == 0 and d_model % n_heads == 0
        check_range("d_model", d_model, fits, f"an even multiple of n_heads={n_heads}")
        check_range("dropout", dropout, 0.0 <= dropout < 1.0, "in [0, 1)")
        check_limit(input_limit)
        self.pad_end = pad_end
        self.instance_norm = instance_norm
        self.input_limit = input_limit

        steps = patch_steps(window, patch_size, stride, pad_end=self.pad_end)
        positions, weights = patch_values_of_steps(steps, window)
        self.register_buffer("steps", steps, persistent=False)
        self.register_buffer("positions_of_steps", positions, persistent=False)
        self.register_buffer("weights_of_steps", weights, persistent=False)
        self.encoder = PatchEncoder(
            patch_size=patch_size,
            n_patches=len(steps),
            d_model=d_model,
            n_heads=n_heads,
            n_layers=n_layers,
            feedforward=feedforward,
            dropout=dropout,
            attn_residual=attn_residual,
        )
        self.heads = ChannelHeads(n_channels, d_model, patch_size)

    # ------------------------------------------------------------------ network

    def to_patches(self, x: Tensor) -> Tensor:
        """Cut windows (B, T, C) into the patches (B, C, N, P) of each channel."""
        return x.transpose(1, 2)[:, :, self.steps]

    def from_patches(self, patches: Tensor) -> Tensor:
        """Put patches (B, C, N, P) together to windows (B, T, C), the mean where they overlap."""
        values = patches.flatten(2)[:, :, self.positions_of_steps]  # (B, C, T, K)
        return (values * self.weights_of_steps).sum(dim=-1).transpose(1, 2)

    def reconstruct_patches(self, x: Tensor) -> Tensor:
        """Reconstruct the patches of windows.

        Args:
            x: (B, T, C) float32, standardised.

        Returns:
            (B, C, N, P) float32, on the scale of x.
        """
        instance = standardise_instances(x) if self.instance_norm else None
        seen = limited(x if instance is None else instance.x, self.input_limit)
        patches = self.to_patches(seen)  # (B, C, N, P)
        tokens = self.encoder(patches.flatten(0, 1))  # (B * C, N, D)
        tokens = tokens.reshape(*patches.shape[:3], -1)  # (B, C, N, D)
        made: Tensor = self.heads(tokens).float()
        return made if instance is None else _undo(instance, made)

    # ------------------------------------------------------------------ training

    def loss(self, batch: SeriesBatch) -> dict[str, Tensor]:
        """Mean squared error over patches, channels and the values of a patch.

        Args:
            batch: Windows; no label is read.

        Returns:
            `loss`, and in evaluation mode `copied`: the share of pasted anomalies that the reconstruction
            follows, 1 for a network that copies and 0 for one that shows what would be normal.
        """
        made = self.reconstruct_patches(batch.x)
        loss = (made - self.to_patches(batch.x)).square().mean()
        if self.training:
            return {"loss": loss}
        return {"loss": loss, "copied": self._copied(batch.x, made)}

    def _copied(self, x: Tensor, made: Tensor) -> Tensor:
        """How far the reconstruction follows a change of x (B, T, C), of which it made (B, C, N, P)."""
        pasted, _ = inject_windows(x, generator=torch.Generator().manual_seed(_PASTE_SEED))
        change = self.to_patches(pasted - x)
        followed = self.reconstruct_patches(pasted) - made
        return (followed * change).sum() / change.square().sum().clamp(min=_TINY)

    # ------------------------------------------------------------------ scoring

    def deviations(self, x: Tensor) -> Tensor:
        """Signed error of each point, x minus its reconstruction, the mean over the patches that show it.

        Args:
            x: (B, T, C) float32, standardised.

        Returns:
            (B, T, C) float32. With `pad_end`, that of the last step has the size of the root mean squared error
            of the last patch and its mean error's sign: its square is the published score.
        """
        errors = self.to_patches(x) - self.reconstruct_patches(x)  # (B, C, N, P)
        deviations = self.from_patches(errors)  # (B, T, C)
        if self.pad_end:
            last = errors[:, :, -1]  # (B, C, P)
            size = last.square().mean(dim=-1).sqrt()
            deviations[:, -1] = torch.where(last.mean(dim=-1) < 0, -size, size)
        return deviations


def _undo(instance: Instance, patches: Tensor) -> Tensor:
    """Patches (B, C, N, P) back on the scale of the input."""
    mean = instance.mean.transpose(1, 2)[..., None]  # (B, C, 1, 1)
    scale = instance.scale.transpose(1, 2)[..., None]  # (B, C, 1, 1)
    return patches * scale + mean
