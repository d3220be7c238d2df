"""Pictures of the results of a classifier, by name."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from tocsin.metrics.bootstrap import class_f1_intervals
from tocsin.metrics.classification import confusion, defect_probability
from tocsin.plots.confusion import class_scores, confusion_matrix
from tocsin.plots.contact_sheet import contact_sheet
from tocsin.plots.mistakes import mistakes
from tocsin.plots.operating import detection_curve
from tocsin.plots.reliability import reliability_diagram
from tocsin.tasks.class_results import ClassResults


def class_figures(results: ClassResults) -> Iterator[tuple[str, Figure]]:
    """Draw what was measured, one picture after the other."""
    labels, probabilities, names = results.labels, results.probabilities, results.classes
    predicted = probabilities.argmax(axis=1)
    yield "confusion", confusion_matrix(confusion(labels, predicted, len(names)), names)
    intervals = class_f1_intervals(labels, predicted, len(names), groups=results.images.groups)
    yield "classes", class_scores(results.per_class, intervals)
    yield "reliability", reliability_diagram(labels, probabilities, before=results.uncalibrated)
    if results.ok_class is not None:
        scores, defective = defect_probability(probabilities, results.ok_class), labels != results.ok_class
        if defective.any() and not defective.all():
            yield "defects", detection_curve(scores, defective, results.calibration.alarm)
    yield "mistakes", _examples(results, predicted)
    yield "augment", contact_sheet(*results.augmented)


def _examples(results: ClassResults, predicted: np.ndarray) -> Figure:
    """The worst mistakes and the answers closest to one."""
    chosen = results.examples.positions
    wrong = int((predicted != results.labels)[chosen].sum())
    return mistakes(
        results.examples.images,
        results.examples.maps,
        [results.classes[label] for label in results.labels[chosen]],
        [results.classes[label] for label in predicted[chosen]],
        results.probabilities[chosen, predicted[chosen]],
        title=f"{wrong} mistakes, then the answers that came closest to one"
        if wrong
        else "No mistake: the closest to one",
    )
