"""The gap that regularisation should close: how much better a classifier is on the images it was trained on.

The probe is a part of the training images, measured as validation images are: without augmentation or dropout.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from tocsin.plots.style import AREA_ALPHA, CATEGORICAL, THRESHOLD, style_axes

PROBE, VALIDATION = "train_probe_", "val_"
NAMES = {PROBE: "training images, measured like validation images", VALIDATION: "validation images"}
TRAIN_COLOR, VAL_COLOR = CATEGORICAL[0], CATEGORICAL[2]


def gap_pairs(curves: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Curves that there are of both the probe and the validation images, such as `macro_f1`; losses are left out.

    Args:
        curves: (E, 2) epochs and values by name, such as `train_probe_macro_f1` and `val_macro_f1`.

    Returns:
        For each metric the curve of the probe and that of the validation images.
    """
    metrics = [name.removeprefix(PROBE) for name in curves if name.startswith(PROBE) and "loss" not in name]
    return {
        metric: (curves[PROBE + metric], curves[VALIDATION + metric])
        for metric in metrics
        if VALIDATION + metric in curves
    }


def draw_gap(
    axes: Axes, metric: str, probe: np.ndarray, validation: np.ndarray, best_epoch: int | None = None
) -> None:
    """Fill one panel with both curves of a metric and the area between them.

    Args:
        axes: What to fill.
        metric: Its name; higher = better.
        probe: (E, 2) epochs and values in [0, 1].
        validation: (F, 2) the same of the validation images.
        best_epoch: Marked with a star.
    """
    epochs, at_probe, at_val = np.intersect1d(probe[:, 0], validation[:, 0], return_indices=True)
    upper, lower = probe[at_probe, 1], validation[at_val, 1]
    axes.fill_between(epochs, lower, upper, color=TRAIN_COLOR, alpha=AREA_ALPHA / 2, linewidth=0)
    for name, curve, color in ((PROBE, probe, TRAIN_COLOR), (VALIDATION, validation, VAL_COLOR)):
        marker = "o" if len(curve) <= 25 else ""
        axes.plot(
            curve[:, 0],
            curve[:, 1],
            color=color,
            linewidth=1.6,
            marker=marker,
            markersize=3.5,
            label=NAMES[name],
        )
    shown = np.flatnonzero(epochs == best_epoch) if best_epoch is not None else np.arange(len(epochs))
    subtitle = ""
    if len(shown):
        at = shown[-1]
        when = "best" if best_epoch is not None else "last"
        subtitle = f"gap at the {when} epoch {int(epochs[at])}: {upper[at] - lower[at]:+.3f}"
        if best_epoch is not None:
            axes.plot(
                [epochs[at]],
                [lower[at]],
                marker="*",
                markersize=13,
                color=THRESHOLD,
                markeredgecolor="white",
                zorder=5,
            )
    style_axes(axes, "epoch", metric.replace("_", " "), subtitle)
