"""Diffusion in continuous time: the cosine schedule, v-prediction, DDIM steps and how one step stands for several.

Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022 (arXiv 2202.00512),
sections 2-4 and appendix D. A level u in [0, 1] says how noisy a window is: z_u = alpha_u x + sigma_u eps with
alpha_u = cos(pi u / 2) and sigma_u = sin(pi u / 2). A network predicts v = alpha_u eps - sigma_u x, from which both
x and eps follow at every level; x from eps alone would be ill-conditioned where there is much noise.
"""

import math

import torch
from torch import Tensor, nn


def alpha_sigma(level: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of signal and noise at levels u (B,): cos(pi u / 2) and sin(pi u / 2), (B, 1, 1) each."""
    angle = (math.pi / 2 * level)[:, None, None]
    return angle.cos(), angle.sin()


def level_of(sigma: float) -> float:
    """Level u in [0, 1] at which the noise has standard deviation sigma in [0, 1]."""
    return math.asin(sigma) * 2 / math.pi


def add_noise(x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Windows z_u (B, T, C) at levels u (B,), of clean ones x and noise, (B, T, C) each."""
    alpha, sigma = alpha_sigma(level)
    return alpha * x + sigma * noise


def ddim_step(z: Tensor, x_hat: Tensor, level: Tensor, to: Tensor) -> Tensor:
    """Deterministic DDIM step (eta = 0) from one level down to another.

    Args:
        z: (B, T, C) float, windows at `level`.
        x_hat: (B, T, C) float, the clean windows as predicted from z.
        level: (B,) float in (0, 1].
        to: (B,) float in [0, level).

    Returns:
        (B, T, C) float, windows at `to`.
    """
    alpha, sigma = alpha_sigma(level)
    alpha_to, sigma_to = alpha_sigma(to)
    return alpha_to * x_hat + sigma_to / sigma * (z - alpha * x_hat)


def one_step_target(z: Tensor, z_to: Tensor, level: Tensor, to: Tensor) -> Tensor:
    """The prediction x~ with which one `ddim_step` from z leads to z_to; arguments as there."""
    alpha, sigma = alpha_sigma(level)
    alpha_to, sigma_to = alpha_sigma(to)
    ratio = sigma_to / sigma
    return (z_to - ratio * z) / (alpha_to - ratio * alpha)


def truncated_snr(level: Tensor, largest: float) -> Tensor:
    """Weight (B, 1, 1) of an error in x at levels (B,): max(SNR, 1), at most `largest`."""
    alpha, sigma = alpha_sigma(level)
    return (alpha / sigma).square().clamp(min=1.0, max=largest)


def fixed_noise(draws: int, window: int, n_channels: int, seed: int) -> Tensor:
    """Normal noise (K, T, C) in pairs of opposite sign: what is linear in it cancels in their mean."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(-(-draws // 2), window, n_channels, generator=generator)
    return torch.cat([half, -half])[:draws]


def predict(network: nn.Module, z: Tensor, level: Tensor) -> Tensor:
    """Clean windows x_hat (B, T, C) float32 as a network that predicts v = alpha eps - sigma x tells them."""
    alpha, sigma = alpha_sigma(level)
    v: Tensor = network(z, level)
    return alpha * z - sigma * v.float()


def predict_noise(network: nn.Module, z: Tensor, level: Tensor) -> Tensor:
    """The noise eps_hat (B, T, C) float32 in z as the same network tells it."""
    alpha, sigma = alpha_sigma(level)
    v: Tensor = network(z, level)
    return sigma * z + alpha * v.float()
