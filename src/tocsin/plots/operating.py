"""What a threshold costs: defects missed against faultless parts rejected."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tocsin.metrics.classification import alarm_rates
from tocsin.metrics.functional import roc_curve
from tocsin.plots.style import (
    MUTED,
    PREDICTED,
    THRESHOLD,
    line_handle,
    new_figure,
    outside_legend,
    style_axes,
)

ENOUGH = 30  # images from which on a rate is drawn on a log axis
_TICKS = np.array([f * 10.0**e for e in range(-6, 0) for f in (1, 2, 5)] + [1.0])


def detection_curve(
    defect_probability: np.ndarray,
    defective: np.ndarray,
    threshold: float | None = None,
    title: str = "Missed defects and false alarms over all thresholds",
) -> Figure:
    """Miss rate over false-alarm rate, both logarithmic where there are images enough, and the chosen threshold.

    A log axis ends at half an image, which stands for none.

    Args:
        defect_probability: (N,) higher = more anomalous.
        defective: (N,) bool, of both kinds.
        threshold: An alarm is `defect_probability >= threshold`; None marks none.
        title: First line.

    Raises:
        ValueError: Arrays do not fit each other, or one kind is missing.
    """
    curve = roc_curve(defect_probability, defective)
    missed, false = 1 - curve.true_positive_rate, curve.false_positive_rate
    if not np.isfinite([missed, false]).all():
        raise ValueError(
            f"all {len(missed)} images are of one kind: the curve needs defective and faultless ones"
        )
    n_defective = int(np.sum(defective))
    n_faultless = len(np.asarray(defective)) - n_defective
    figure = new_figure(5.8, 6.2, title)
    axes = figure.subplots()
    floors = (_scale(axes, "x", n_faultless), _scale(axes, "y", n_defective))
    axes.plot(
        false.clip(floors[0]),
        missed.clip(floors[1]),
        color=PREDICTED,
        linewidth=1.8,
        drawstyle="steps-post",
        zorder=3,
    )
    chance = np.linspace(0, 1, 400)
    axes.plot(chance.clip(floors[0]), (1 - chance).clip(floors[1]), color=MUTED, linestyle=":", linewidth=1.3)
    handles = [line_handle("classifier", PREDICTED), line_handle("random score", MUTED, ":")]
    if threshold is not None:
        rates = alarm_rates(defect_probability, defective, threshold)
        (mark,) = axes.plot(
            [max(rates["false_alarm_rate"], floors[0])],
            [max(rates["miss_rate"], floors[1])],
            marker="o",
            markersize=10,
            color=THRESHOLD,
            markeredgecolor="white",
            linestyle="none",
            zorder=5,
            label=f"chosen threshold {threshold:.3g}: {100 * rates['miss_rate']:.3g} % of defects missed, "
            f"{100 * rates['false_alarm_rate']:.3g} % false alarms",
        )
        handles.append(mark)
    style_axes(
        axes,
        f"false alarms (share of {n_faultless:,} faultless images)",
        f"missed (share of {n_defective:,} defective images)",
    )
    for axis, floor in zip((axes.xaxis, axes.yaxis), floors, strict=True):
        if floor > 0:
            axis.set_major_locator(FixedLocator([floor, *_TICKS[1.9 * floor < _TICKS]]))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(
                FuncFormatter(lambda rate, _, floor=floor: "none" if rate <= floor else f"{100 * rate:g} %")
            )
        else:
            axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
    outside_legend(figure, handles, columns=1)
    return figure


def _scale(axes: Axes, axis: str, images: int) -> float:
    """Make an axis logarithmic if so many images allow it; the rate that stands for none, 0 on a linear one."""
    floor = 0.5 / images if images >= ENOUGH else 0.0
    limits = (0.9 * floor, 1.15) if floor else (-0.02, 1.02)
    if axis == "x":
        axes.set_xscale("log" if floor else "linear")
        axes.set_xlim(limits)
    else:
        axes.set_yscale("log" if floor else "linear")
        axes.set_ylim(limits)
    return floor
