"""Classes of images: training, calibration and test of an `ImageClassifier`.

Checkpoints are chosen by the macro F1 of validation images in their natural shares. Beside them, as many training
images are measured without augmentation and without mixing, so that the gap between the two is honest. Afterwards, a
temperature, the threshold for a defect and the one below which an answer is unsure come from validation.
"""

import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import lightning.pytorch as L
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from tocsin.batch import ClassBatch
from tocsin.data.defects import Defects
from tocsin.data.image_data import ImageSet
from tocsin.data.module import DataModule
from tocsin.errors import ConfigError
from tocsin.metrics.bootstrap import bootstrap_intervals
from tocsin.metrics.calibration import conformal_threshold, fit_temperature, tempered
from tocsin.metrics.classification import classification_metrics, defect_probability, per_class
from tocsin.metrics.thresholds import Threshold
from tocsin.models.base import ImageClassifier
from tocsin.tasks.base import OptimizerFactory, SchedulerFactory, Task
from tocsin.tasks.class_figures import class_figures
from tocsin.tasks.class_results import ClassCalibration, ClassExamples, ClassResults

log = logging.getLogger(__name__)

TestTimeAugmentation = Literal["none", "flips", "d4"]
PROBE = "train_probe"  # training images, seen as those of validation are
N_EXAMPLES = 12


class Answers(NamedTuple):
    """What a classifier says of some images.

    Attributes:
        logits: (N, K) float32.
        labels: (N,) int64.
    """

    logits: np.ndarray
    labels: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(np.mean(self.logits.argmax(axis=1) == self.labels))


class Classification(Task):
    """Task of the classifiers of images.

    Args:
        detector: Gives logits.
        optimizer: Called with the groups of trainable parameters.
        scheduler: Called with the optimizer; None for a constant rate.
        threshold: Finds the probability of a defect that raises an alarm, where one class is the good one.
        tta: Test-time augmentation: logits are averaged over the image and its three flips (`flips`), or over its
            eight flips and turns (`d4`). For images without an up and a left.
        coverage: Share of the images whose class shall be among those that the answer leaves open; an answer that
            leaves open none or several is unsure.
        monitor: The logged value to follow.
        seed: Seed of training.
    """

    accepts = "classification"
    temperature: Tensor
    alarm_threshold: Tensor
    sure_threshold: Tensor

    def __init__(
        self,
        *,
        detector: ImageClassifier,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        threshold: Threshold,
        tta: TestTimeAugmentation = "none",
        coverage: float = 0.99,
        monitor: str = "val_macro_f1",
        seed: int = 42,
    ) -> None:
        super().__init__(
            detector=detector, optimizer=optimizer, scheduler=scheduler, monitor=monitor, seed=seed
        )
        self.detector: ImageClassifier
        if tta not in get_args(TestTimeAugmentation):
            raise ConfigError(f"task.tta={tta!r} is not one of {', '.join(get_args(TestTimeAugmentation))}")
        if not 0 < coverage < 1:
            raise ConfigError(f"task.coverage={coverage} is not between 0 and 1")
        self.threshold = threshold
        self.tta = tta
        self.coverage = coverage
        # Part of the state, so that a checkpoint is enough to judge new images.
        for name in ("temperature", "alarm_threshold", "sure_threshold"):
            self.register_buffer(name, torch.tensor(torch.nan, dtype=torch.float64))
        # Every process counts all answers: there is nothing to add up at the end.
        measures: dict[str, Metric | MetricCollection] = {
            "accuracy": MulticlassAccuracy(detector.n_classes, average="micro", sync_on_compute=False),
            "macro_f1": MulticlassF1Score(detector.n_classes, average="macro", sync_on_compute=False),
        }
        self.val_metrics = MetricCollection(measures, prefix="val_")
        self.probe_metrics = self.val_metrics.clone(prefix=f"{PROBE}_")

    # --- training -------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        super().setup(stage)
        datamodule = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(datamodule, Defects) and datamodule.ok_index is not None:
            # A threshold that these validation images cannot give is an error now, not after the training.
            labels = datamodule.labels(datamodule.ready.val)
            self._alarm(np.linspace(0, 1, len(labels)), labels != datamodule.ok_index)

    def validation_step(self, batch: ClassBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        assert batch.label is not None
        split, metrics = ("val", self.val_metrics) if dataloader_idx == 0 else (PROBE, self.probe_metrics)
        logits = self.detector.logits(batch.image)
        self._log_terms(split, {"loss": F.cross_entropy(logits.float(), batch.label)}, batch, batch_idx)
        share = self.detector.share
        metrics.update(share.whole(logits), share.whole(batch.label))

    def on_validation_epoch_end(self) -> None:
        values = {**self.val_metrics.compute(), **self.probe_metrics.compute()}
        self.val_metrics.reset()
        self.probe_metrics.reset()
        values["train_val_gap"] = values[f"{PROBE}_accuracy"] - values["val_accuracy"]
        self.log_dict(values)

    # --- answers --------------------------------------------------------------------------------------

    def logits(self, images: Tensor) -> Tensor:
        """(B, K) logits of (B, 3, H, W) images, averaged over flips and turns if asked for."""
        views = [images]
        if self.tta != "none":
            views += [images.flip(-1), images.flip(-2), images.flip(-1, -2)]
        if self.tta == "d4":
            if images.shape[-1] != images.shape[-2]:
                raise ConfigError(
                    "task.tta=d4 turns images by a right angle: they must be square; use task.tta=flips"
                )
            views += [view.rot90(1, (-2, -1)) for view in views]
        return torch.stack([self.detector.logits(view) for view in views]).mean(dim=0)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(N, K) calibrated probabilities of (N, K) logits."""
        return tempered(logits, float(self.temperature))

    def predict_step(self, batch: ClassBatch, batch_idx: int, dataloader_idx: int = 0) -> Answers:
        assert batch.label is not None
        return Answers(self.everywhere(self.logits(batch.image).float()), self.everywhere(batch.label))

    # --- calibration and metrics ----------------------------------------------------------------------

    def finalize(self, datamodule: DataModule) -> None:
        """A classifier has nothing to fit but what `assess` calibrates."""

    def calibrate(self, val: Answers, ok_class: int | None) -> ClassCalibration:
        """Temperature and thresholds from the answers on validation images."""
        self.temperature.fill_(fit_temperature(val.logits, val.labels))
        probabilities = self.probabilities(val.logits)
        most = len(val.labels) / (len(val.labels) + 1)
        if self.coverage > most:
            log.warning("%d validation images promise a coverage of %.3f at most", len(val.labels), most)
        coverage = min(self.coverage, most)
        self.sure_threshold.fill_(conformal_threshold(probabilities, val.labels, coverage))
        if ok_class is not None:
            score = defect_probability(probabilities, ok_class)
            self.alarm_threshold.fill_(self._alarm(score, val.labels != ok_class))
        return self.calibration

    def _alarm(self, scores: np.ndarray, defective: np.ndarray) -> float:
        """Threshold from (M,) probabilities of a defect and (M,) bool, true = defective."""
        chosen = np.ones_like(defective) if self.threshold.reads_labels else ~defective
        return self.threshold.fit_samples(scores[chosen], defective[chosen])

    @property
    def calibration(self) -> ClassCalibration:
        """What the checkpoint knows of how to read probabilities."""
        known = not torch.isnan(self.alarm_threshold)
        return ClassCalibration(
            method=self.threshold.chosen if known else None,
            temperature=float(self.temperature),
            alarm=float(self.alarm_threshold) if known else None,
            sure=float(self.sure_threshold),
        )

    def assess(self, trainer: L.Trainer, datamodule: DataModule) -> ClassResults:
        """Calibrate on the validation images, then measure the test images, with baselines beside them.

        Args:
            trainer: Runs the classifier over all of them.
            datamodule: Set up.
        """
        assert isinstance(datamodule, Defects)
        test_images = datamodule.ready.test
        val, probe = (_joined(pieces) for pieces in trainer.predict(self, datamodule.val_dataloader()) or [])
        begin = time.monotonic()
        test = _joined(trainer.predict(self, datamodule.score_dataloader(test_images)) or [])
        seconds = time.monotonic() - begin
        calibration = self.calibrate(val, datamodule.ok_index)
        probabilities, val_probabilities = self.probabilities(test.logits), self.probabilities(val.logits)
        measure = partial(
            classification_metrics, ok_class_index=datamodule.ok_index, threshold=calibration.alarm
        )
        return ClassResults(
            classes=datamodule.classes,
            ok_class=datamodule.ok_index,
            images=test_images,
            labels=test.labels,
            probabilities=probabilities,
            uncalibrated=tempered(test.logits, 1.0),
            val_probabilities=val_probabilities,
            val_labels=val.labels,
            calibration=calibration,
            items_per_s=len(test.labels) / seconds,
            val={**measure(val.labels, val_probabilities), "train_val_gap": probe.accuracy - val.accuracy},
            test=measure(test.labels, probabilities),
            intervals=bootstrap_intervals(
                test.labels,
                probabilities,
                groups=test_images.groups,
                seed=self.seed,
                ok_class_index=datamodule.ok_index,
            ),
            per_class=per_class(test.labels, probabilities.argmax(axis=1), datamodule.classes),
            baselines=self._baselines(datamodule, test.labels),
            examples=self._examples(datamodule, probabilities, test.labels),
            augmented=datamodule.augmented_pictures(4, 6),
        )

    def _baselines(self, datamodule: Defects, labels: np.ndarray) -> dict[str, dict[str, float]]:
        """Metrics of what needs no network: a guess by the shares of the classes, and how bright images are."""
        splits, n_classes = datamodule.ready, len(datamodule.classes)
        train_labels = datamodule.labels(splits.train)
        shares = np.bincount(train_labels, minlength=n_classes) / len(train_labels)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(_brightness(datamodule, splits.train), train_labels)
        by_brightness = np.zeros((len(labels), n_classes))
        by_brightness[:, model.classes_] = model.predict_proba(_brightness(datamodule, splits.test))
        pairs = {"majority": np.tile(shares, (len(labels), 1)), "brightness": by_brightness}
        return {
            name: classification_metrics(labels, found, ok_class_index=datamodule.ok_index)
            for name, found in pairs.items()
        }

    def _examples(self, datamodule: Defects, probabilities: np.ndarray, labels: np.ndarray) -> ClassExamples:
        """The worst mistakes, then the right answers that came closest to one, and what the network looked at."""
        predicted = probabilities.argmax(axis=1)
        of_label = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
        order = np.lexsort((of_label, predicted == labels))[:N_EXAMPLES]
        pictures = datamodule.pictures(datamodule.ready.test, order.tolist())
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(self.device)  # (n, 3, H, W)
        maps = self.detector.eval().activation_map(images, torch.from_numpy(predicted[order]).to(self.device))
        return ClassExamples(
            positions=order, images=pictures, maps=None if maps is None else maps.float().cpu().numpy()
        )

    def figures(self, results: ClassResults) -> Iterable[tuple[str, Figure]]:
        return class_figures(results)


def _joined(pieces: list[Any]) -> Answers:
    return Answers(
        np.concatenate([piece.logits for piece in pieces]), np.concatenate([piece.labels for piece in pieces])
    )


def _brightness(datamodule: Defects, images: ImageSet) -> np.ndarray:
    """(N, 8) statistics of the pixels of each image that know nothing of where they are."""
    rows = []
    for batch in datamodule.score_dataloader(images):
        pixels = batch.image.mean(dim=1).flatten(1)  # (B, H * W)
        marks = torch.tensor([0.0, 0.05, 0.25, 0.5, 0.75, 1.0])
        quantiles = torch.quantile(pixels, marks, dim=1).T  # (B, 6)
        rows.append(torch.cat([pixels.mean(1, keepdim=True), pixels.std(1, keepdim=True), quantiles], dim=1))
    return torch.cat(rows).numpy()
