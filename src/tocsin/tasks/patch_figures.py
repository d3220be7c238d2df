"""Pictures of the results of an attack with a patch, by name."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from tocsin.metrics.box_matching import ImageBoxes
from tocsin.metrics.detection import ap50_estimate, precision_recall
from tocsin.metrics.estimates import Estimate
from tocsin.plots.detections import Seen, detections
from tocsin.plots.patch_bars import ap_bars, transfer
from tocsin.plots.patch_curves import Sweep, precision_recall_curves, robustness
from tocsin.plots.patch_growth import patch_growth
from tocsin.tasks.patch_evaluation import CLEAN, PATCH
from tocsin.tasks.patch_results import PatchResults

# Title of a panel, what was changed, the value of training or of no change, whether it is stronger to the left.
PANELS: Mapping[str, tuple[str, str, float | None, bool]] = {
    "size": ("Size", "side of the patch / diagonal of the person", None, True),
    "rotation": ("Rotation", "degrees", 0.0, False),
    "jpeg": ("JPEG", "quality", 100.0, True),
    "blur": ("Blur", "standard deviation, pixels", 0.0, False),
    "brightness": ("Light", "factor", 1.0, False),
}
LINES = {
    "vanish_25": "lost at a confidence of 0.25",
    "ap50_clean": "AP50, no patch",
    "ap50_patch": "AP50, patch",
}


def patch_figures(results: PatchResults) -> Iterator[tuple[str, Figure]]:
    """Draw what was measured, one picture after the other."""
    seen = results.evaluation
    if results.growth:
        epochs, losses, patches = zip(*results.growth, strict=True)
        stacked = np.stack(patches).transpose(0, 2, 3, 1) / 255  # (K, P, P, 3)
        yield "patch_growth", patch_growth(stacked, epochs, losses)
    estimates = {
        name: ap50_estimate(found, seen.truth, n_images=seen.n_images) for name, found in seen.found.items()
    }
    beyond = Estimate(results.test["ap50_beyond_control"], *results.intervals["ap50_beyond_control"])
    yield "average_precision", ap_bars(estimates, beyond)
    shown = {name: seen.found[name] for name in (CLEAN, results.best_control, PATCH)}
    yield (
        "precision_recall",
        precision_recall_curves(
            {name: precision_recall(found, seen.truth) for name, found in shown.items()},
            {name: results.conditions[name]["ap50"] for name in shown},
        ),
    )
    yield "detections", _before_and_after(results)
    if results.sweeps:
        yield (
            "robustness",
            robustness({PANELS[name][0]: _sweep(name, rows) for name, rows in results.sweeps.items()}),
        )
    if results.transfer:
        yield "transfer", _transfer(results)


def _before_and_after(results: PatchResults) -> Figure:
    """The same scenes without a patch, with the strongest control and with the patch."""
    seen = results.evaluation
    conditions = [
        Seen(name, seen.examples[name], _of_scenes(seen.found[name], seen.example_places))
        for name in (CLEAN, results.best_control, PATCH)
    ]
    return detections(conditions, _of_scenes(seen.truth, seen.example_places))


def _of_scenes(boxes: ImageBoxes, places: np.ndarray) -> ImageBoxes:
    """The boxes of some images, which are numbered anew; the places are in order."""
    chosen = boxes.where(np.isin(boxes.owner, places))
    return replace(chosen, owner=np.searchsorted(places, chosen.owner))


def _sweep(name: str, rows: Mapping[float, Mapping[str, float]]) -> Sweep:
    _, xlabel, usual, falls = PANELS[name]
    measured = {
        label: [Estimate(row[key], np.nan, np.nan) for row in rows.values()] for key, label in LINES.items()
    }
    return Sweep(np.array(list(rows)), xlabel, measured, usual, falls)


def _transfer(results: PatchResults) -> Figure:
    """How many persons every victim loses: to the patch, and to the strongest of its controls."""
    victims = {"trained on": results.conditions, **results.transfer}
    controls = list(results.evaluation.controls)
    rates = np.array(
        [
            [rows[PATCH]["vanish_25"] for rows in victims.values()],
            [max(rows[name]["vanish_25"] for name in controls) for rows in victims.values()],
        ]
    )
    return transfer(
        rates, [PATCH, "strongest control"], list(victims), label="share of the persons lost at 0.25"
    )
