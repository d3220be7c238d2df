"""The parts of CARLA that hold no state of the training: encoder block, losses of both stages, mining.

Source: see `models/carla.py`. Losses are float32, whatever autocast does around them.
"""

import torch
from torch import Tensor, nn

from tocsin.models.losses import focal_log_loss

_KERNELS = (8, 5, 3)
_TINY = 1e-8  # keeps logarithms finite and is lost beside 1


class ResidualBlock(nn.Module):
    """Three convolutions over time that keep its length, and a skip connection around them.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, kernel in enumerate(_KERNELS):
            layers += [
                nn.ConstantPad1d(((kernel - 1) // 2, kernel // 2), 0.0),
                nn.Conv1d(n_out if index else n_in, n_out, kernel, bias=False),  # the norm has a bias
                nn.BatchNorm1d(n_out),
                nn.ReLU(),
            ]
        self.convolve = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv1d(n_in, n_out, 1, bias=False), nn.BatchNorm1d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, T) -> (B, n_out, T)."""
        out: Tensor = self.convolve(x) + self.shortcut(x)
        return out


def occlude(x: Tensor, n_segments: int) -> tuple[Tensor, Tensor]:
    """Windows with one part after the other hidden behind a straight line between its ends.

    Args:
        x: (B, T, C) float.
        n_segments: Parts G, in [2, T]; each overlaps its neighbours by about half.

    Returns:
        What is hidden, (G, T) float of 0 and 1, at least once at each step, and the windows (B, G, T, C).
    """
    T = x.shape[1]
    centers = torch.linspace(0, T - 1, n_segments, device=x.device)
    half = T / n_segments
    first = (centers - half).ceil().clamp(min=0).long()
    last = (centers + half).floor().clamp(max=T - 1).long()
    left, right = first - 1, last + 1  # the ends of the line; where one is missing, it is level
    left, right = torch.where(left < 0, right, left), torch.where(right >= T, left, right)
    steps = torch.arange(T, device=x.device)
    hidden = (steps >= first[:, None]) & (steps <= last[:, None])  # (G, T)
    rise = (steps - first[:, None] + 1) / (last - first + 2)[:, None]  # (G, T)
    begin, end = x[:, left, None], x[:, right, None]  # (B, G, 1, C)
    line = begin + (end - begin) * rise[:, :, None]  # (B, G, T, C)
    return hidden.to(x), torch.where(hidden[:, :, None], line, x[:, None])


def triplet_loss(anchor: Tensor, positive: Tensor, negatives: Tensor, margin: Tensor, tau: float) -> Tensor:
    """Triplet loss with the hardest negative of the batch.

    Args:
        anchor: (B, E) float, of unit length.
        positive: (B, E) float, of unit length; should be near its anchor.
        negatives: (M, E) float, of unit length; none should be near any anchor.
        margin: () float, how much further they should be.
        tau: Divisor of squared distances, > 0.

    Returns:
        () float >= 0.
    """
    near = (anchor - positive).square().sum(dim=1) / tau
    # Differences rather than a product of matrices, which autocast would round.
    far = (anchor[:, None] - negatives[None]).square().sum(dim=2).amin(dim=1) / tau
    return (margin + near - far).clamp(min=0).mean()


def consistency(p: Tensor, q: Tensor, *, gamma: float = 0.0, label_smoothing: float = 0.0) -> Tensor:
    """Mean -log(p . q) of class probabilities (B, K): 0 if and only if each pair agrees on one class.

    Options as in `focal_log_loss`, of the outcomes "same class" and "another".
    """
    same = (p * q).sum(dim=1)
    return focal_log_loss(same, gamma=gamma, label_smoothing=label_smoothing).mean()


def inconsistency(p: Tensor, q: Tensor, *, gamma: float = 0.0, label_smoothing: float = 0.0) -> Tensor:
    """Mean -log(1 - p . q) of class probabilities (B, K): 0 if and only if no pair shares a class.

    Options as in `consistency`.
    """
    another = (1.0 - (p * q).sum(dim=1)).clamp(min=0)
    return focal_log_loss(another, gamma=gamma, label_smoothing=label_smoothing).mean()


def entropy(share: Tensor) -> Tensor:
    """Entropy () in nats of a distribution (K,)."""
    return -(share * (share + _TINY).log()).sum()


def mine_neighbours(embeddings: Tensor, n_neighbours: int, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """Nearest and furthest others of every row, by exact Euclidean distance.

    Args:
        embeddings: (N, E) float, N >= 2.
        n_neighbours: Q wanted of each; N - 1 if there are fewer others.
        chunk: Rows compared with all others at a time; bounds the memory at 4 * chunk * N bytes.

    Returns:
        Indices (N, Q) int64 of the nearest, nearest first, and of the furthest, furthest first; never the row itself.
    """
    n_neighbours = min(n_neighbours, len(embeddings) - 1)
    near, far = [], []
    for rows in torch.split(torch.arange(len(embeddings), device=embeddings.device), chunk):
        # By differences: by products, near duplicates are lost in rounding.
        distance = torch.cdist(
            embeddings[rows], embeddings, compute_mode="donot_use_mm_for_euclid_dist"
        )  # (chunk, N)
        own = rows[:, None]
        near.append(distance.scatter(1, own, torch.inf).topk(n_neighbours, dim=1, largest=False).indices)
        far.append(distance.scatter(1, own, -torch.inf).topk(n_neighbours, dim=1).indices)
    return torch.cat(near), torch.cat(far)
