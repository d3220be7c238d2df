"""Window batches against a Dataset that makes one window at a time: `python benchmarks/windows.py`."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from report import best_of, row
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tocsin.data.base import _as_is
from tocsin.data.cleaning import Scaler
from tocsin.data.windows import WindowDataset, window_starts

Transform = Callable[[np.ndarray], np.ndarray]

N_STEPS, N_CHANNELS, WINDOW, STRIDE = 440_000, 8, 100, 10
# The DataLoader's own time per batch, a third of ours at 64, keeps small batches below 20.
TARGETS = {64: 15.0, 256: 20.0}
EPOCHS, ROUNDS = 5, 3


class OneByOne(Dataset[Any]):
    """The usual way to the same batches: a sample is a window (T, C) float32 and its first step."""

    def __init__(self, values: np.ndarray, starts: np.ndarray, transform: Transform) -> None:
        self.values, self.starts, self.transform = values, starts, transform

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Any:
        start = self.starts[index]
        return torch.from_numpy(self.transform(self.values[start : start + WINDOW])), start


class WindowsOnly(OneByOne):
    """Less than the same batches: a sample is the window alone."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)[0]


def series() -> np.ndarray:
    """(N, C) float32 in units of its own."""
    rng = np.random.default_rng(0)
    return rng.normal(50.0, [1, 2, 5, 10, 20, 50, 100, 200], (N_STEPS, N_CHANNELS)).astype(np.float32)


def shuffled() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def bench(batch_size: int) -> bool:
    """Print the rows of one batch size; each side goes from raw values to the last batch of all epochs."""
    values = series()
    scaler = Scaler.fit(values)
    starts = window_starts([N_STEPS], WINDOW, STRIDE)

    def ours() -> DataLoader:
        windows = WindowDataset(values=values, starts=starts, window=WINDOW, transform=scaler.transform)
        return DataLoader(windows, batch_size, shuffle=True, generator=shuffled(), collate_fn=_as_is)

    def peer(kind: type[OneByOne] = OneByOne) -> DataLoader:
        windows = kind(values, starts, scaler.transform)
        return DataLoader(windows, batch_size, shuffle=True, generator=shuffled())

    def only_windows() -> DataLoader:
        return peer(WindowsOnly)

    def prepared() -> DataLoader:
        windows = OneByOne(scaler.transform(values), starts, lambda window: window)
        return DataLoader(windows, batch_size, shuffle=True, generator=shuffled())

    loaders = (ours, peer, only_windows, prepared)
    seconds = [np.inf] * len(loaders)
    for _ in range(ROUNDS):  # by turns, so that a busy machine slows all of them
        for i, loader in enumerate(loaders):
            seconds[i] = min(seconds[i], best_of(1, lambda loader=loader: epochs(loader()))[0])
    ours_s, *others_s = seconds
    equal = [same_batches(ours(), other()) for other in loaders[1:]]
    names = (
        f"windows, batches of {batch_size}: one by one, default collate",
        "  only x, without the first step (no target)",
        "  standardised beforehand (no target)",
    )
    for name, other_s, same in zip(names, others_s, equal, strict=True):
        row(name, ours_s, other_s, same)
    return all(equal) and others_s[0] / ours_s >= TARGETS[batch_size]


def epochs(loader: DataLoader) -> None:
    """Walk through the loader as a short training does."""
    for _ in range(EPOCHS):
        for _ in loader:
            pass


def same_batches(ours: DataLoader, peer: DataLoader) -> bool:
    """Whether every batch has the same bits; a peer's batch is x, or x and start."""
    for batch, other in zip(ours, peer, strict=True):
        x, start = (other, batch.start) if isinstance(other, Tensor) else other
        if not (torch.equal(batch.x, x) and torch.equal(batch.start, start)):
            return False
    return True


if __name__ == "__main__":
    torch.set_num_threads(1)
    passed = [bench(batch_size) for batch_size in TARGETS]
    wanted = ", ".join(f"{ratio:g}x in batches of {size}" for size, ratio in TARGETS.items())
    sys.exit(0 if all(passed) else f"missed: {wanted}, and the same batches")
