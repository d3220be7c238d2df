"""Curves of a patch: precision over recall by condition, and what survives of the attack when the scene changes."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from tocsin.metrics.detection import PrecisionRecall
from tocsin.metrics.estimates import Estimate
from tocsin.plots.patch_colors import (
    ATTACK,
    ATTACK_COLOR,
    CLEAN_COLOR,
    CONTROL_COLOR,
    LineStyle,
    condition_lines,
)
from tocsin.plots.style import (
    CATEGORICAL,
    MUTED,
    PREDICTED,
    TRUE,
    line_handle,
    new_figure,
    outside_legend,
    style_axes,
)

MOST = 3  # panels in a row
_TICKS = 7
_WARM = (ATTACK_COLOR, CATEGORICAL[3], TRUE)


class Sweep(NamedTuple):
    """One thing changed step by step, such as the size of the patch or the quality of JPEG.

    Attributes:
        values: (S,) the steps, in any order.
        xlabel: What was changed, with its unit.
        measured: By name, such as `vanish_25`, `ap50_patch` and `vanish_25 of the control`: S numbers in [0, 1], with
            an interval where it is known.
        trained_at: The value of training or of no change, marked by a line; None marks none.
        falls: Whether the change is stronger to the left, as of the quality of JPEG; the axis is turned round then.
    """

    values: np.ndarray
    xlabel: str
    measured: Mapping[str, list[Estimate]]
    trained_at: float | None = None
    falls: bool = False


def precision_recall_curves(
    curves: Mapping[str, PrecisionRecall],
    ap50: Mapping[str, float] | None = None,
    title: str = "Precision and recall of persons",
) -> Figure:
    """Precision over recall at an overlap of 0.5, one line per condition.

    Args:
        curves: By condition: `clean`, `patch`, and any other name for a control.
        ap50: Written into the legend, by condition; None writes none.
        title: First line.

    Raises:
        ValueError: There is no curve.
    """
    if not curves:
        raise ValueError("there is no curve to draw")
    figure = new_figure(6.4, 5.6, title)
    axes = figure.subplots()
    handles = []
    for name, (color, dashes) in condition_lines(list(curves)).items():
        recall, precision, _ = curves[name]
        # Down to no recall, the precision is that of the first detection.
        axes.plot(
            np.append(0.0, recall),
            np.append(precision[:1], precision) if len(precision) else [0.0],
            color=color,
            linestyle=dashes,
            linewidth=2.0 if name == ATTACK else 1.5,
            zorder=4 if name == ATTACK else 3,
        )
        label = name if ap50 is None else f"{name} (AP50 {ap50[name]:.3f})"
        handles.append(line_handle(label, color, dashes))
    style_axes(
        axes, "recall (share of the persons found)", "precision (share of the detections that are persons)"
    )
    axes.set(xlim=(0, 1.01), ylim=(0, 1.01))
    outside_legend(figure, handles, columns=2)
    return figure


def robustness(
    sweeps: Mapping[str, Sweep], title: str = "What survives of the attack when the scene changes"
) -> Figure:
    """One panel per sweep, all with the same lines: vanish rates and average precision over the strength.

    Args:
        sweeps: By the title of their panel. Lines whose name begins with `ap` are dashed, those that name a control
            are gray, those of `no patch` green.
        title: First line.

    Raises:
        ValueError: There is no sweep, or a line has not one number per step.
    """
    if not sweeps:
        raise ValueError("there is no sweep to draw")
    columns = min(MOST, len(sweeps))
    rows = -(-len(sweeps) // columns)
    figure = new_figure(max(5.0, 3.7 * columns), 3.1 * rows + 1.0, title)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    names = list(dict.fromkeys(name for sweep in sweeps.values() for name in sweep.measured))
    lines = _lines(names)
    for place, (axes, (subtitle, sweep)) in enumerate(zip(panels.flat, sweeps.items(), strict=False)):
        _draw_sweep(axes, sweep, lines)
        style_axes(axes, sweep.xlabel, "share" if place % columns == 0 else "", subtitle)
        axes.set_ylim(-0.02, 1.02)
        steps = np.unique(sweep.values)
        axes.xaxis.set_major_locator(
            FixedLocator(steps.tolist()) if len(steps) <= _TICKS else MaxNLocator(_TICKS)
        )
    for axes in panels.flat[len(sweeps) :]:
        axes.set_axis_off()
    handles = [line_handle(name, line.color, line.dashes) for name, line in lines.items()]
    if any(sweep.trained_at is not None for sweep in sweeps.values()):
        handles.append(line_handle("as in training, or unchanged", MUTED, ":"))
    outside_legend(figure, handles)
    return figure


def _draw_sweep(axes: Axes, sweep: Sweep, lines: Mapping[str, LineStyle]) -> None:
    order = np.argsort(sweep.values)
    steps = np.asarray(sweep.values, dtype=np.float64)[order]
    for name, estimates in sweep.measured.items():
        if len(estimates) != len(steps):
            raise ValueError(
                f"{len(estimates)} numbers of {name!r} for {len(steps)} steps of {sweep.xlabel!r}"
            )
        value, low, high = np.array(estimates, dtype=np.float64)[order].T
        axes.fill_between(steps, low, high, color=lines[name].color, alpha=0.15, linewidth=0)
        axes.plot(
            steps,
            value,
            marker="o",
            markersize=4,
            color=lines[name].color,
            linestyle=lines[name].dashes,
            linewidth=1.6,
        )
    if sweep.trained_at is not None:
        axes.axvline(sweep.trained_at, color=MUTED, linestyle=":", linewidth=1.2, zorder=1)
    if sweep.falls:
        axes.invert_xaxis()


def _lines(names: Sequence[str]) -> dict[str, LineStyle]:
    """The line of each measured value: rates of the attack in warm colours, precision dashed and blue.

    What is measured without a patch is green, of a control gray.
    """
    warm = iter(itertools.cycle(_WARM))
    lines = {}
    for name in names:
        is_precision = name.lower().startswith("ap")
        if "control" in name:
            color = CONTROL_COLOR
        elif "no patch" in name:
            color = CLEAN_COLOR
        else:
            color = PREDICTED if is_precision else next(warm)
        lines[name] = LineStyle(color, "--" if is_precision else "-")
    return lines
