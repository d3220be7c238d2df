"""What makes up for classes of unequal size: exactly one of several ways, since two at once count a rare class twice.

Source: image specification, section 6.2; effective numbers after Cui et al. (CVPR 2019), logit adjustment after Menon
et al. (ICLR 2021). Weights are scaled so that their mean over the training images is 1: the loss keeps its size, and
the learning rate its meaning.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from tocsin.errors import ConfigError

Balance = Literal["none", "sampler", "loss", "logit_adjust", "effective_number"]
BALANCES: tuple[Balance, ...] = get_args(Balance)


def check_balance(balance: str | Sequence[str]) -> None:
    """Raise ConfigError unless this is one known way to balance."""
    if not isinstance(balance, str):
        raise ConfigError(
            f"data.balance=[{','.join(balance)}]: each of these evens out the classes by itself, so two at once "
            f"count a rare class twice; choose one of {', '.join(BALANCES)}"
        )
    if balance not in BALANCES:
        raise ConfigError(f"data.balance={balance} is not one of {', '.join(BALANCES)}")


def inverse_frequency(counts: np.ndarray) -> np.ndarray:
    """(K,) weights N / (K n_c) of classes of (K,) training images: every class has the same weight in all."""
    weights: np.ndarray = counts.sum() / (len(counts) * counts)
    return weights


def effective_number(counts: np.ndarray, beta: float) -> np.ndarray:
    """(K,) weights (1 - beta) / (1 - beta^n_c), which level off where more images of a class tell little new."""
    weights = (1 - beta) / (1 - beta**counts)
    scaled: np.ndarray = weights * counts.sum() / (weights * counts).sum()
    return scaled


def log_shares(counts: np.ndarray) -> np.ndarray:
    """(K,) logarithms of the shares of the classes: added to the logits in training, they adjust them."""
    logs: np.ndarray = np.log(counts / counts.sum())
    return logs
