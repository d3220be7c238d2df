"""One score for an image out of several: fixed rules, and two that are fitted on validation images.

Every way rises with each of its scores, so that more evidence never lowers the alarm.
"""

import numpy as np
import torch
from torch import Tensor, nn

from tocsin.models.checks import check_choice, check_range

FUSIONS = ("mean", "weighted", "max", "logistic", "calibrated")
_QUANTILES = 257
_EPSILON = 1e-4  # scores are kept this far from 0 and 1 before their logits are taken
_RIDGE = 1e-2
_TINY = 1e-6


class ScoreFusion(nn.Module):
    """Fuses the score of the map, the severity, and the mean of the highest pixels of the map.

    Args:
        fusion: `mean`, `weighted` and `max` of map score and severity; `logistic`: regression on the logits of all
            three, with weights >= 0, fitted on synthetic anomalies; `calibrated`: the mean of where map score and
            severity stand among those of normal images.
        weight: Of the severity, for `weighted`, in [0, 1].

    Raises:
        ValueError: If a value is outside its range.
    """

    weights: Tensor
    bias: Tensor
    quantiles: Tensor

    def __init__(self, *, fusion: str, weight: float) -> None:
        super().__init__()
        check_choice("fusion", fusion, FUSIONS)
        check_range("severity_share", weight, 0.0 <= weight <= 1.0, "in [0, 1]")
        self.fusion = fusion
        self.weight = weight
        self.register_buffer("weights", torch.tensor([0.5, 0.5, 0.0]))
        self.register_buffer("bias", torch.zeros(()))
        self.register_buffer("quantiles", torch.linspace(0, 1, _QUANTILES).repeat(2, 1))

    def forward(self, scores: Tensor) -> Tensor:
        """Fuse scores (B, 3), each in [0, 1], to (B,) float32, higher = more anomalous.

        In [0, 1], except `calibrated`, which goes on beyond 1 where a score is higher than any normal one: else all
        clear anomalies would be the same.
        """
        mask, severity, _ = scores.float().unbind(dim=1)
        if self.fusion == "max":
            return torch.maximum(mask, severity)
        if self.fusion == "logistic":
            return (scores.float().logit(eps=_EPSILON) @ self.weights + self.bias).sigmoid()
        if self.fusion == "calibrated":
            return (self._standing(mask, 0) + self._standing(severity, 1)) / 2
        share = 0.5 if self.fusion == "mean" else self.weight
        return (1.0 - share) * mask + share * severity

    def _standing(self, values: Tensor, index: int) -> Tensor:
        """Share of normal images (B,) with a lower score; beyond the highest, its excess over the normal range."""
        known = self.quantiles[index]
        place = torch.searchsorted(known, values.contiguous()).clamp(1, _QUANTILES - 1)
        low, high = known[place - 1], known[place]
        within = ((values - low) / (high - low).clamp(min=_TINY)).clamp(0.0, 1.0)
        excess = (values - known[-1]).clamp(min=0.0) / (known[-1] - known[0]).clamp(min=_TINY)
        return (place - 1 + within) / (_QUANTILES - 1) + excess

    @torch.no_grad()
    def fit(self, normal: Tensor, synthetic: Tensor, label: Tensor) -> None:
        """Fit what the two fitted ways need.

        Args:
            normal: (N, 3) float, scores of normal images.
            synthetic: (M, 3) float, scores of images of which some have a synthetic anomaly.
            label: (M,) bool, whether they have.
        """
        at = torch.linspace(0, 1, _QUANTILES, device=normal.device)
        self.quantiles.copy_(normal[:, :2].float().quantile(at, dim=0).T)
        if bool(label.any()) and not bool(label.all()):
            weights, bias = _logistic(synthetic.float().logit(eps=_EPSILON).cpu(), label.cpu())
            self.weights.copy_(weights)
            self.bias.copy_(bias)


def _logistic(x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (D,) >= 0 and bias of a logistic regression on (M, D) with a small ridge."""
    from scipy.optimize import minimize  # slow to import, and only fitting needs it

    features, sign = x.double().numpy(), np.where(label.numpy(), 1.0, -1.0)
    n = features.shape[1]

    def cost(theta: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (features @ theta[:n] + theta[n])
        slope = -sign / (1.0 + np.exp(np.clip(margin, -500, 500))) / len(sign)
        gradient = np.append(features.T @ slope + 2 * _RIDGE * theta[:n], slope.sum())
        return float(np.logaddexp(0.0, -margin).mean() + _RIDGE * (theta[:n] ** 2).sum()), gradient

    bounds = [(0.0, None)] * n + [(None, None)]
    found = minimize(cost, np.zeros(n + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return torch.from_numpy(found[:n]), torch.tensor(found[n])
