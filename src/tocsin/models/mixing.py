"""MixUp and CutMix of a batch, by timm.

Sources: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (ICLR 2018); Yun et al., "CutMix" (ICCV 2019). timm
pairs each image with the one at the mirrored place of the batch, which asks for an even number, writes into the
images it is given, smooths the labels itself, and draws from numpy's global numbers. Here the last image of an odd
batch stays as it is, the batch is left alone, and the draws follow torch's seed, so that a resumed run repeats them.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tocsin.models.batch_share import ALONE, BatchShare
from tocsin.models.checks import check_range
from tocsin.models.class_losses import smooth_targets


class Mixing:
    """Mixes pairs of images and their targets.

    Args:
        n_classes: K.
        mixup: Alpha of the Beta distribution of the share of MixUp; 0 for none.
        cutmix: Alpha of that of CutMix; 0 for none. With both, a batch gets one of them.
        prob: Share of the batches that are mixed.
        label_smoothing: Of the targets, mixed or not.
    """

    def __init__(
        self, *, n_classes: int, mixup: float, cutmix: float, prob: float, label_smoothing: float
    ) -> None:
        check_range("mixup", mixup, mixup >= 0, "0 or more")
        check_range("cutmix", cutmix, cutmix >= 0, "0 or more")
        check_range("mix_prob", prob, 0 <= prob <= 1, "in [0, 1]")
        self.n_classes = n_classes
        self.label_smoothing = label_smoothing
        self.active = prob > 0 and (mixup > 0 or cutmix > 0)
        self._options = {
            "mixup_alpha": mixup,
            "cutmix_alpha": cutmix,
            "prob": prob,
            "label_smoothing": label_smoothing,
            "num_classes": n_classes,
        }
        self._mixup: Any = None

    def __call__(self, images: Tensor, labels: Tensor, share: BatchShare = ALONE) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: (B, 3, H, W); left as they are.
            labels: (B,) int64.
            share: What they are part of; partners are found in the whole batch.

        Returns:
            Mixed images (B, 3, H, W) and targets (B, K), smoothed once.
        """
        if not self.active or share.total(len(images)) < 2:
            return images, smooth_targets(labels, self.n_classes, self.label_smoothing)
        mixed, targets = self._mix(share.whole(images), share.whole(labels), share.one_integer(2**32))
        return share.own(mixed), share.own(targets)

    def _mix(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        even = len(images) // 2 * 2
        state = np.random.get_state()
        np.random.seed(seed)
        mixed, targets = self._timm()(images[:even].clone(), labels[:even])
        np.random.set_state(state)
        if even < len(images):
            rest = smooth_targets(labels[even:], self.n_classes, self.label_smoothing)
            mixed, targets = torch.cat([mixed, images[even:]]), torch.cat([targets, rest])
        return mixed, targets

    def _timm(self) -> Any:
        if self._mixup is None:
            from timm.data.mixup import Mixup  # takes seconds

            self._mixup = Mixup(**self._options)  # type: ignore[no-untyped-call]
        return self._mixup
