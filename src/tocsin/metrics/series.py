"""Time-series metrics for tasks: a thin torchmetrics shell, and all metrics of a thresholded score by name.

The mathematics is in `functional`, `vus`, `events` and `affiliation`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from tocsin.metrics.affiliation import affiliation
from tocsin.metrics.events import (
    detection_delay,
    event_f1,
    event_recall,
    false_alarms_per_1000,
    range_precision_recall_f1,
)
from tocsin.metrics.functional import auc_pr, auc_roc, precision_recall_f1
from tocsin.metrics.vus import vus


class SeriesMetrics(Metric):
    """Threshold-free metrics of one score per time step: `vus_pr vus_roc auc_pr auc_roc`.

    Updates must come in time order, as VUS looks at neighbours; their size does not matter. Across
    processes the parts are joined in the order of ranks.

    Args:
        buffer: Widest VUS buffer, in steps.
        lengths: Steps of each series if several lie end to end.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    scores: list[Tensor]
    labels: list[Tensor]

    def __init__(self, *, buffer: int = 100, lengths: Sequence[int] | None = None) -> None:
        super().__init__()
        self.buffer = buffer
        self.lengths = lengths
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Append points: (N,) scores, higher = more anomalous, and (N,) labels, bool or 0/1."""
        if scores.shape != labels.shape or scores.ndim != 1:
            raise ValueError(
                "scores and labels must both have shape (N,), "
                f"got {tuple(scores.shape)} and {tuple(labels.shape)}"
            )
        self.scores.append(scores.detach())
        self.labels.append(labels.detach())

    def compute(self) -> dict[str, Tensor]:
        """Each metric as a float64 scalar; NaN where the labels do not define it."""
        scores = dim_zero_cat(self.scores).double().cpu().numpy()
        labels = dim_zero_cat(self.labels).cpu().numpy()
        values = threshold_free_metrics(scores, labels, buffer=self.buffer, lengths=self.lengths)
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def threshold_free_metrics(
    scores: np.ndarray, labels: np.ndarray, *, buffer: int = 100, lengths: Sequence[int] | None = None
) -> dict[str, float]:
    """The metrics of `SeriesMetrics` of whole arrays.

    Args:
        scores: (N,) finite, in time order, higher = more anomalous.
        labels: (N,) bool or 0/1, true = anomalous.
        buffer: Widest VUS buffer, in steps.
        lengths: Steps of each series if several lie end to end.

    Returns:
        `vus_pr vus_roc auc_pr auc_roc`, in [0, 1]. NaN where undefined: all without an anomalous point,
        the ROC metrics without a normal one.

    Raises:
        ValueError: If the arrays do not fit each other, hold NaN, or an argument is out of range.
    """
    volume = vus(scores, labels, buffer=buffer, lengths=lengths)
    return {
        "vus_pr": volume.pr,
        "vus_roc": volume.roc,
        "auc_pr": auc_pr(scores, labels),
        "auc_roc": auc_roc(scores, labels),
    }


def thresholded_metrics(
    predicted: np.ndarray, labels: np.ndarray, *, lengths: Sequence[int] | None = None
) -> dict[str, float]:
    """Point, affiliation, range and event metrics of binary predictions.

    Args:
        predicted: (N,) bool or 0/1 in time order, true = alarm.
        labels: (N,) bool or 0/1, true = anomalous.
        lengths: Steps of each series if several lie end to end.

    Returns:
        By name; all but the last two lie in [0, 1] and are higher when better. Undefined values are NaN:
        without an event, everything but `false_alarms_per_1000`; without an alarm, the precisions, while
        recalls and F1 are 0; without a found event, `detection_delay` (steps).

    Raises:
        ValueError: If the arrays or `lengths` do not fit each other, or hold values other than 0 and 1.
    """
    point = precision_recall_f1(predicted, labels)
    near = affiliation(predicted, labels, lengths=lengths)
    return {
        "point_f1": point.f1,
        "point_precision": point.precision,
        "point_recall": point.recall,
        "affiliation_f1": near.f1,
        "affiliation_precision": near.precision,
        "affiliation_recall": near.recall,
        "range_f1": range_precision_recall_f1(predicted, labels, lengths=lengths).f1,
        "event_recall": event_recall(predicted, labels, lengths=lengths),
        "event_f1": event_f1(predicted, labels, lengths=lengths),
        "false_alarms_per_1000": false_alarms_per_1000(predicted, labels, lengths=lengths),
        "detection_delay": detection_delay(predicted, labels, lengths=lengths),
    }
