"""Pictures of a series run: the signal with its alarms, sections of it, and curves."""

from collections.abc import Iterator

import torch
from matplotlib.figure import Figure

from tocsin.evaluation import SAMPLE_WINDOWS
from tocsin.metrics.classification import confusion
from tocsin.metrics.functional import precision_recall_curve
from tocsin.models.base import Detector, Reconstructs
from tocsin.plots.confusion import confusion_matrix
from tocsin.plots.distributions import precision_recall, score_histogram
from tocsin.plots.overview import data_overview, samples_overview
from tocsin.plots.reconstruction import reconstruction
from tocsin.plots.series import sections, signal, zoom_windows
from tocsin.tasks.series_results import SeriesResults

ZOOMS = 4  # sections drawn in detail
CONTEXT = 150  # steps shown around each


def series_figures(results: SeriesResults, detector: Detector) -> Iterator[tuple[str, Figure]]:
    """Figures by name."""
    series, threshold = results.series, results.calibration.point
    shown = {
        "values": series.values,
        "scores": results.scores,
        "threshold": threshold,
        "labels": series.labels,
        "timestamps": series.timestamps,
        "channel_names": series.channel_names,
    }
    yield "signal", signal(**shown, title="Test series, alarms and true anomalies")  # type: ignore[arg-type]
    windows = zoom_windows(series.labels, results.predicted, n=ZOOMS, context=CONTEXT)
    if windows:
        yield "zoom", sections(**shown, windows=windows, title="Why: found, missed and false")  # type: ignore[arg-type]
    yield "score_histogram", score_histogram(results.scores, series.labels, threshold)
    if series.labels is not None and series.labels.any():
        yield from _labelled_figures(results)
    if isinstance(detector, Reconstructs) and results.example is not None:
        yield "reconstruction", _reconstruction(results, detector)


def _labelled_figures(results: SeriesResults) -> Iterator[tuple[str, Figure]]:
    series = results.series
    assert series.labels is not None
    curve = precision_recall_curve(results.scores, series.labels, max_points=2000)
    yield (
        "precision_recall",
        precision_recall(
            curve.precision,
            curve.recall,
            base_rate=float(series.labels.mean()),
            operating_point=(results.test["point_recall"], results.test["point_precision"]),
        ),
    )
    yield (
        "confusion_matrix",
        confusion_matrix(confusion(series.labels, results.predicted, 2), ("normal", "anomalous")),
    )
    if series.events is not None and len(series.events):
        many = len(series.lengths) > SAMPLE_WINDOWS
        yield "data_overview", samples_overview(series) if many else data_overview(series)


@torch.inference_mode()
def _reconstruction(results: SeriesResults, detector: Reconstructs) -> Figure:
    assert results.example is not None
    x, _, labels = results.example
    made = detector.reconstruct(x)
    return reconstruction(
        x[0].cpu().numpy(),
        made.teacher[0].float().cpu().numpy(),
        made.student[0].float().cpu().numpy(),
        made.mask[0].cpu().numpy(),
        channel_names=results.series.channel_names,
        labels=None if labels is None else labels[0].cpu().numpy(),
    )
