"""The contract every detector fulfils.

A detector is a plain `nn.Module` with explicit keyword arguments. It knows how to compute a loss and
an anomaly score; it knows nothing of Lightning, optimizers, thresholds or files. Arguments that only
the data can tell (`window`, `n_channels`; `height`, `width`) are filled in by the pipeline, by name.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from tocsin.batch import DetectionBatch
from tocsin.models.batch_share import ALONE, BatchShare


@dataclass(frozen=True)
class Stage:
    """One part of a training that runs in several parts.

    Attributes:
        name: Name shown in logs and stored in checkpoints.
        share: Largest part of `trainer.max_epochs` the stage may use, in (0, 1]. Early stopping may end
            it sooner.
    """

    name: str
    share: float = 1.0


class Detector(nn.Module):
    """Base of all detectors.

    Attributes:
        kind: The data kind it reads: `series`, `image`, `classification` or `detection`.
        stages: Parts of the training, in order. Most methods have one.
        stage: Name of the current stage; the task sets it.
        epoch: Epochs completed in the current stage; the task sets it.
        epochs: Most epochs of the current stage; the task sets it.
        total_steps: Most optimizer steps of the current stage; the task sets it.
        share: What this process has of the current batch, where several share it; the task sets it. A loss that draws
            for a batch, or whose mean has a divisor that depends on the draws, asks it.
    """

    kind: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.stages: tuple[Stage, ...] = (Stage("train"),)
        self.stage: str = "train"
        self.epoch: int = 0
        self.epochs: int = 1
        self.total_steps: int = 1
        self.share: BatchShare = ALONE

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Loss terms of a batch; `loss` is the one that is minimised, the rest is logged."""
        raise NotImplementedError

    def prepare(self, train_batches: Iterable[Any]) -> None:
        """Look at the training data before the first step of a run, whether new or resumed (bin edges, a memory)."""

    def begin_stage(self, stage: str, train_batches: Iterable[Any]) -> None:
        """Do what a stage needs once, before its first step (mining, copying a teacher).

        What it makes must be in parameters or buffers: a resumed run does not begin its stage again.
        """

    def after_step(self) -> None:
        """Follow an optimizer step, however many batches it took (a ramp over the steps of a recipe)."""

    def finalize(self, val_batches: Iterable[Any]) -> None:
        """Fit what needs the trained weights (a fusion of scores), before thresholds are sought.

        What it makes must be in parameters or buffers, so that it is in the checkpoint.

        Args:
            val_batches: Normal validation data.
        """

    def trainable(self, stage: str) -> Iterable[nn.Parameter]:
        """Parameters that `stage` optimises; all others are frozen while it runs."""
        return self.parameters()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters of the current stage as groups of an optimizer, with what differs from its options.

        Returns:
            Keys as in `torch.optim`; `lr_scale` multiplies the rate, so that one `optimizer.lr` rules all groups.
        """
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad]}]


class SeriesDetector(Detector):
    """Base of the detectors for time series.

    A subclass implements `loss` and `deviations`, or only `point_scores` where it has no sign and cannot tell
    channels apart.
    """

    kind = "series"

    def deviations(self, x: Tensor) -> Tensor:
        """How far each point is from what was expected, with the sign where there is one.

        The scorer averages deviations over time before it measures their size: noise cancels, a shift does
        not. That is why the sign is kept.

        Args:
            x: (B, T, C) float32, standardised.

        Returns:
            (B, T, K) float, K a multiple of C (block by block, if a method has several views of a channel), or 1.
            The further from 0, the more anomalous; NaN = not scored.
        """
        return self.point_scores(x).unsqueeze(-1)

    def channel_scores(self, x: Tensor) -> Tensor:
        """Anomaly score (B, T, C) of each point and channel, higher = more anomalous; (B, T, 1) if K = 1."""
        squared = self.deviations(x).square()
        channels = min(squared.shape[-1], x.shape[-1])
        by_view = squared.reshape(*squared.shape[:-1], -1, channels)  # (B, T, K / C, C)
        return by_view.mean(dim=-2)

    def point_scores(self, x: Tensor) -> Tensor:
        """Anomaly score (B, T) of each point, higher = more anomalous.

        Args:
            x: (B, T, C) float32, standardised.
        """
        return self.channel_scores(x).mean(dim=-1)


class Reconstruction(NamedTuple):
    """What the decoders make of a window; each point as it looked while it was hidden.

    Attributes:
        teacher: (B, T, C) float, output of the teacher.
        student: (B, T, C) float, output of the student.
        mask: (B, T) bool, true where the point was hidden; elsewhere the decoders had seen it.
    """

    teacher: Tensor
    student: Tensor
    mask: Tensor


@runtime_checkable
class Reconstructs(Protocol):
    """A detector that can show how it sees a window."""

    def reconstruct(self, x: Tensor) -> Reconstruction:
        """Reconstruct (B, T, C) windows."""


class ImageScores(NamedTuple):
    """Scores of a batch of images, higher = more anomalous.

    Attributes:
        map: (B, H, W) float32, one score per pixel.
        image: (B,) float32, one score per image.
    """

    map: Tensor
    image: Tensor


class ImageDetector(Detector):
    """Base of the detectors for images. A subclass implements `loss` and `score`.

    It normalises its input itself, so that an exported model takes the pixels of a file. Where the constructor
    names them, `height` and `width` are filled in from the data.
    """

    kind = "image"

    def score(self, images: Tensor) -> ImageScores:
        """Anomaly scores of images, the map at their resolution.

        Args:
            images: (B, 3, H, W) float32, in [0, 1] unless their files were floats.
        """
        raise NotImplementedError


class ImageClassifier(Detector):
    """Base of the classifiers of images. A subclass implements `loss` and `logits`.

    It normalises its input itself. Where the constructor names them, `height`, `width`, `n_classes`, `class_weights`
    and `log_priors` are filled in from the data.

    Attributes:
        n_classes: K.
    """

    kind = "classification"
    n_classes: int

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images.

        Args:
            images: (B, 3, H, W) float32, in [0, 1] unless their files were floats.
        """
        raise NotImplementedError

    def activation_map(self, images: Tensor, classes: Tensor) -> Tensor | None:
        """Where in an image a class was seen, or None where the network has no map of features.

        Args:
            images: (B, 3, H, W) float32.
            classes: (B,) int64, the class to explain.

        Returns:
            (B, H, W) float32 in [0, 1], higher = spoke more for the class.
        """
        return None


class Detections(NamedTuple):
    """Objects of the attacked class that a victim found in a batch of images, most confident first in each image.

    Attributes:
        boxes: (N, 4) float32, left, top, right, bottom in pixels.
        scores: (N,) float32 in [0, 1], confidence.
        owner: (N,) int64, index in the batch of the image of each, ascending.
    """

    boxes: Tensor
    scores: Tensor
    owner: Tensor


class PatchModel(Detector):
    """Base of the attacks with a patch: the patch is the only parameter, the victims are frozen.

    A subclass implements `loss`, `patch`, `apply_patch` and `detect`.
    """

    kind = "detection"

    @property
    def patch(self) -> Tensor:
        """(3, P, P) float32 in [0, 1], as it would be printed."""
        raise NotImplementedError

    def apply_patch(
        self,
        batch: DetectionBatch,
        patch: Tensor | None = None,
        *,
        size: float | None = None,
        rotation: float = 0.0,
    ) -> Tensor:
        """Images (B, 3, S, S) with a patch on every target box, placed without any random change.

        Args:
            batch: Images and boxes.
            patch: (3, P, P) in [0, 1], such as a control; None takes the one being trained.
            size: Side of the patch as a share of the diagonal of a box; None takes that of training.
            rotation: Degrees, counter-clockwise.
        """
        raise NotImplementedError

    def detect(self, images: Tensor) -> Detections:
        """What the victim finds in (B, 3, S, S) images in [0, 1], down to a confidence of 0.001."""
        raise NotImplementedError


class FitOnceDetector(Detector):
    """A detector without gradient steps: it collects during one epoch, then finishes.

    A mix-in beside `SeriesDetector` or `ImageDetector`. `loss` is still a real number on validation data (the mean
    score), so that the same table, early stopping and checkpointing serve it.
    """

    def collect(self, batch: Any) -> None:
        """Keep what `finish` needs of a training batch, of all processes' items: `share.whole` of what it made."""
        raise NotImplementedError

    def finish(self) -> None:
        """Fit on all that was collected."""
        raise NotImplementedError
