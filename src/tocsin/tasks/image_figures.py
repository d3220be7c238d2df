"""Pictures of an image run: what was found, missed and falsely alarmed, and curves."""

import math
from collections.abc import Iterator

from matplotlib.figure import Figure

from tocsin.metrics.classification import confusion
from tocsin.metrics.functional import precision_recall_curve, roc_curve
from tocsin.plots.confusion import confusion_matrix
from tocsin.plots.distributions import precision_recall, roc, score_histogram
from tocsin.plots.heat import heat_limits
from tocsin.plots.images import overlays
from tocsin.plots.telling import telling_images
from tocsin.tasks.image_results import ImageResults

SHOWN = 12  # images with their maps


def image_figures(results: ImageResults) -> Iterator[tuple[str, Figure]]:
    """Figures by name."""
    labels, threshold = results.images.labels, results.calibration.image
    yield "anomaly_maps", _overlays(results)
    yield "score_histogram", score_histogram(results.scores, labels, threshold, unit="images")
    if labels is None or not labels.any() or labels.all():
        return
    curve = precision_recall_curve(results.scores, labels)
    precision, recall = results.test["image_precision"], results.test["image_recall"]
    yield (
        "precision_recall",
        precision_recall(
            curve.precision,
            curve.recall,
            base_rate=float(labels.mean()),
            operating_point=(recall, precision)
            if math.isfinite(precision)
            else None,  # there may be no alarm
        ),
    )
    curves = {"images": roc_curve(results.scores, labels, max_points=2000)}
    areas = {"images": results.test["image_auroc"]}
    yield "roc", roc(curves, areas)
    yield (
        "confusion_matrix",
        confusion_matrix(confusion(labels, results.scores >= threshold, 2), ("normal", "anomalous")),
    )


def _overlays(results: ImageResults) -> Figure:
    labels, threshold = results.images.labels, results.calibration.image
    chosen = [image.position for image in telling_images(results.scores, labels, threshold, SHOWN)]
    return overlays(
        results.read(results.images, chosen),
        results.maps[chosen],
        [results.masks[index] if results.known[index] else None for index in chosen],
        results.scores[chosen],
        None if labels is None else labels[chosen],
        threshold,
        titles=[f"{results.images.classes[i]}/{results.images.paths[i].name}" for i in chosen],
        title="Best found, worst missed, false alarms and close calls of the test images",
        limits=heat_limits(results.maps[:: max(1, len(results.maps) // 200)]),
    )
