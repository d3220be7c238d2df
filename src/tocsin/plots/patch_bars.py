"""Bars of average precision by condition, and how far a patch carries to detectors it was not trained on."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tocsin.metrics.estimates import Estimate
from tocsin.plots.patch_colors import ATTACK, CLEAN, condition_color
from tocsin.plots.style import (
    GRID,
    INK,
    LABEL_SIZE,
    MUTED,
    SUBTITLE_SIZE,
    TICK_SIZE,
    new_figure,
    style_axes,
)

_WHITE_FROM = 0.55  # of the colour scale: text on darker cells is white


def ap_bars(
    conditions: Mapping[str, Estimate],
    excess: Estimate | None = None,
    ylabel: str = "AP50 of persons",
    title: str = "What the patch does beyond covering a part",
) -> Figure:
    """One bar per condition with its interval, and the gap between the best control and the patch.

    Args:
        conditions: By name: `clean`, `patch`, and any other name for a control; values in [0, 1]. An interval that is
            NaN is not drawn.
        excess: How much less the patch has than the best control, for its interval; None writes none.
        ylabel: What the bars measure; lower = the detector is worse.
        title: First line.

    Raises:
        ValueError: There is no condition.
    """
    if not conditions:
        raise ValueError("there is no condition to draw")
    figure = new_figure(max(4.6, 1.0 + 0.95 * len(conditions)), 4.6, title)
    axes = figure.subplots()
    for place, (name, (value, low, high)) in enumerate(conditions.items()):
        axes.bar(place, value, width=0.66, color=condition_color(name), zorder=2)
        if np.isfinite([low, high]).all():
            axes.errorbar(
                place, value, [[value - low], [high - value]], color=INK, capsize=4, linewidth=1.3, zorder=3
            )
        top = max(value, high) if np.isfinite(high) else value
        axes.annotate(
            f"{value:.3f}",
            (place, top),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=LABEL_SIZE,
            color=INK,
        )
    subtitle = ""
    controls = {name: found.value for name, found in conditions.items() if name not in (CLEAN, ATTACK)}
    if ATTACK in conditions and controls:
        best = min(controls, key=lambda name: controls[name])
        axes.axhline(controls[best], color=MUTED, linestyle=":", linewidth=1.3, zorder=4)
        subtitle = _gap_text(controls[best] - conditions[ATTACK].value, best, excess)
    style_axes(axes, "", ylabel, subtitle)
    axes.grid(visible=False, axis="x")
    axes.set_xticks(range(len(conditions)), list(conditions), parse_math=False, fontsize=LABEL_SIZE)
    axes.set_ylim(0, 1.05 * max(0.1, *(np.nanmax([*found, 0]) for found in conditions.values())) + 0.04)
    return figure


def _gap_text(gap: float, best: str, excess: Estimate | None) -> str:
    """How far the patch lies below the best control."""
    side, sign = ("below", 1) if gap >= 0 else ("above", -1)
    interval = ""
    if excess is not None and np.isfinite(excess[1:]).all():
        low, high = sorted((sign * excess.low, sign * excess.high))
        interval = f" (95 %: {low:.3f} to {high:.3f})"
    return f"{sign * gap:.3f}{interval} {side} the best control, {best}"


def transfer(
    rates: np.ndarray,
    trained_on: Sequence[str],
    tested_on: Sequence[str],
    label: str = "vanish_25",
    title: str = "How far a patch carries to other detectors",
) -> Figure:
    """A matrix of rates: one row per patch, one column per detector it was tried on.

    Args:
        rates: (R, C) in [0, 1], higher = the patch works better; NaN where it was not measured.
        trained_on: R names: the detectors each patch was trained on. A cell of the same name has a frame.
        tested_on: C names.
        label: What the numbers are.
        title: First line.

    Raises:
        ValueError: Arrays do not fit each other.
    """
    if np.shape(rates) != (len(trained_on), len(tested_on)) or 0 in np.shape(rates):
        raise ValueError(
            f"rates has shape {np.shape(rates)}, but there are {len(trained_on)} patches and "
            f"{len(tested_on)} detectors"
        )
    R, C = np.shape(rates)
    figure = new_figure(max(4.6, 2.6 + 1.15 * C), 1.7 + 0.62 * R, title)
    axes = figure.subplots()
    axes.pcolormesh(
        np.ma.masked_invalid(rates), cmap="Oranges", vmin=0, vmax=1, edgecolors="white", linewidth=2
    )
    for row, patch in enumerate(trained_on):
        for column, victim in enumerate(tested_on):
            rate = rates[row, column]
            own = patch == victim
            axes.text(
                column + 0.5,
                row + 0.5,
                "not measured" if np.isnan(rate) else f"{rate:.2f}",
                ha="center",
                va="center",
                fontsize=TICK_SIZE if np.isnan(rate) else SUBTITLE_SIZE,
                fontweight="bold" if own else "normal",
                color="white" if rate > _WHITE_FROM else INK,
            )
            if own:
                axes.plot(
                    column + np.array([0.04, 0.96, 0.96, 0.04, 0.04]),
                    row + np.array([0.04, 0.04, 0.96, 0.96, 0.04]),
                    color=INK,
                    linewidth=1.6,
                )
    style_axes(axes, "tested on", "trained on", f"{label}; a frame: the detector it was trained on")
    axes.grid(visible=False)
    axes.set_facecolor(GRID)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(C) + 0.5, list(tested_on), parse_math=False)
    axes.set_yticks(np.arange(R) + 0.5, list(trained_on), parse_math=False)
    axes.set(xlim=(0, C), ylim=(R, 0))
    return figure
