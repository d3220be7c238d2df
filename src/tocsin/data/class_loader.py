"""Batches of classified images, augmented alike whatever the number of loader processes.

What happens to an image is seeded by the number of its draw since the start of training, not by the process that
draws it, so one process, several, and a resumed run all show the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tocsin.batch import ClassBatch
from tocsin.data.augmentation import Augmentation
from tocsin.data.image_data import ImageSet
from tocsin.data.image_loader import ShuffledPasses
from tocsin.data.image_reader import ImageReader, to_image


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassDataset(Dataset[ClassBatch]):
    """Images of a set as they are; `__getitems__` makes a whole batch at once.

    Attributes:
        images: N images.
        labels: (N,) int64 classes.
        reader: Reads those that are not in memory.
        stored: (N, C, H, W) pixels in memory, see `ImageCache`; None to read from files.
        positions: (M,) places in the set of the images to show.
    """

    images: ImageSet
    labels: np.ndarray
    reader: ImageReader
    stored: np.ndarray | None
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def pixels(self, position: int) -> np.ndarray:
        """(C, H, W) an image in the type of its file."""
        return (
            self.reader.pixels(self.images.paths[position]) if self.stored is None else self.stored[position]
        )

    def __getitem__(self, index: Any) -> ClassBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[Any]) -> ClassBatch:
        """Gather B images, by their places among `positions`."""
        chosen = self.positions[np.asarray(indices)]
        if self.stored is not None:
            return self._batch(to_image(self.stored[chosen]), chosen)
        return self._batch(torch.stack([to_image(self.pixels(position)) for position in chosen]), chosen)

    def _batch(self, image: Tensor, chosen: np.ndarray) -> ClassBatch:
        return ClassBatch(
            image=image, position=torch.from_numpy(chosen), label=torch.from_numpy(self.labels[chosen])
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class AugmentedDataset(ClassDataset):
    """Images of a set, each changed anew every time it is drawn.

    Attributes:
        augmentation: What changes them.
    """

    augmentation: Augmentation

    def __getitems__(self, indices: Sequence[tuple[int, int]]) -> ClassBatch:
        """Gather B images, by their places among `positions` and the numbers of their draws."""
        places, numbers = np.asarray(indices).T  # each (B,)
        chosen = self.positions[places]
        changed = [
            to_image(self.augmentation(self.pixels(position), number))
            for position, number in zip(chosen.tolist(), numbers.tolist(), strict=True)
        ]
        return self._batch(torch.stack(changed), chosen)


class NumberedPasses(ShuffledPasses):
    """`ShuffledPasses` that tells the number of each draw since the start of training, too."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        items, numbers = self.draws()
        return iter(zip(items.tolist(), numbers.tolist(), strict=True))


class BalancedPasses(NumberedPasses):
    """Draws in which every K in a row hold each of K classes once, however rare it is.

    A pass shows each image of the largest class once, and those of a smaller one in shuffled rounds. The classes of
    K draws come in a random order: processes, each of which takes a part of a batch, and a MixUp that pairs places
    of a batch, see all of them.

    Args:
        dataset: N items.
        labels: (N,) class of each item, in [0, K); each class occurs.
        n_draws: Items of an epoch.
        seed: Seed of the draws.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        labels: np.ndarray,
        n_draws: int | None,
        seed: int,
    ) -> None:
        super().__init__(dataset, n_draws=n_draws, seed=seed)
        self._members = [np.flatnonzero(labels == index) for index in range(labels.max() + 1)]
        self._rounds = max(map(len, self._members))

    @property
    def pass_length(self) -> int:
        """Draws of a pass: so many of each class as the largest one has images."""
        return self._rounds * len(self._members)

    def one_pass(self, number: int) -> np.ndarray:
        """(pass_length,) items of a pass, by its number since the start of training."""
        rng = np.random.default_rng((self.seed, number))
        by_class = np.stack([self._shuffled_rounds(own, rng) for own in self._members], axis=1)
        return rng.permuted(by_class, axis=1).reshape(-1)  # (rounds, K) -> (rounds * K,)

    def _shuffled_rounds(self, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rounds = [rng.permutation(own) for _ in range(-(-self._rounds // len(own)))]
        return np.concatenate(rounds)[: self._rounds]
