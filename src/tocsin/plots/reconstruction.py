"""What a masked auto-encoder's teacher and student make of a window."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tocsin.plots.channels import EPSILON, check_lengths, check_names, check_table
from tocsin.plots.lines import draw_line, time_axis
from tocsin.plots.regions import draw_regions
from tocsin.plots.style import (
    INK,
    MASKED,
    MUTED,
    STUDENT,
    TEACHER,
    TRUE,
    area_handle,
    horizontal_ylabel,
    line_handle,
    new_figure,
    outside_legend,
    style_axes,
)

MASK_ALPHA = 0.55
STRIP = 0.06  # height of the true areas, as a share of the panel


def reconstruction(
    x: np.ndarray,
    teacher: np.ndarray,
    student: np.ndarray,
    mask: np.ndarray,
    channel_names: Sequence[str] | None = None,
    labels: np.ndarray | None = None,
    title: str = "Reconstruction of a window",
    max_channels: int = 4,
) -> Figure:
    """Original and both reconstructions; masked patches are shaded, unless all are, true areas a strip at the top.

    Of more than `max_channels` channels those are shown where the reconstructions are worst or differ most
    from each other, in units of the channel's standard deviation; they keep their order.

    Args:
        x: (T, C) numbers.
        teacher: (T, C) reconstruction in the units of `x`.
        student: (T, C) reconstruction in the units of `x`.
        mask: (T,) bool, true = hidden from the model.
        channel_names: C names; None counts channels.
        labels: (T,) bool, true = anomalous; None if unknown.
        title: First line.
        max_channels: At most this many panels.

    Raises:
        ValueError: Arrays do not fit each other.
    """
    T, C = check_table(x, "x")
    for name, other in {"teacher": teacher, "student": student}.items():
        if np.shape(other) != (T, C):
            raise ValueError(
                f"{name} has shape {np.shape(other)}, but x has {(T, C)}: give one number for each"
            )
    check_lengths(T, mask=mask, labels=labels)
    names = check_names(channel_names, C)
    shown = _worst(x, teacher, student, max_channels)
    parts = not np.all(mask)  # what was hidden everywhere needs no shade
    time = time_axis(None, T)
    figure = new_figure(10, 1.7 + 1.5 * len(shown), title)
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, channel in zip(panels, shown, strict=True):
        if parts:
            draw_regions(axes, mask, time.x, MASKED, alpha=MASK_ALPHA)
        # The original is broad and below, so that it stays visible under a good copy.
        draw_line(axes, time.x, x[:, channel], INK, 2.4)
        draw_line(axes, time.x, teacher[:, channel], TEACHER, 1.2)
        draw_line(axes, time.x, student[:, channel], STUDENT, 1.2)
        if labels is not None:
            _draw_strip(axes, labels, time.x)
        style_axes(axes, ticks=4)
        horizontal_ylabel(axes, names[channel])
    style_axes(panels[-1], "step in the window", ticks=4)
    horizontal_ylabel(panels[-1], names[shown[-1]])
    time.apply(panels[-1], ticks=10)
    if not parts:
        panels[0].set_title("each step as rebuilt while hidden", loc="left", fontsize=9, color=MUTED)
    outside_legend(figure, _handles(parts, labels is not None))
    return figure


def _worst(x: np.ndarray, teacher: np.ndarray, student: np.ndarray, count: int) -> np.ndarray:
    """(min(count, C),) channels with the largest root mean square error or disagreement, ascending."""
    unit = np.nanstd(np.asarray(x, np.float64), axis=0) + EPSILON
    pairs = [(x, teacher), (x, student), (teacher, student)]
    apart = [np.sqrt(np.nanmean((np.asarray(a, np.float64) - b) ** 2, axis=0)) for a, b in pairs]
    measure = np.max(apart, axis=0) / unit
    return np.sort(np.argsort(-measure, kind="stable")[:count])


def _draw_strip(axes: Axes, labels: np.ndarray, x: np.ndarray) -> None:
    """True areas as a strip at the top, so that they do not mix with the masked patches."""
    axes.fill_between(
        x,
        1 - STRIP,
        1,
        where=list(np.asarray(labels).astype(bool)),
        transform=axes.get_xaxis_transform(),
        color=TRUE,
        linewidth=1.5,
        step="mid",
        zorder=3,
    )


def _handles(parts: bool, labelled: bool) -> list[Artist]:
    """Legend entries of what is drawn."""
    hidden: list[Artist] = [area_handle("masked patch", MASKED, MASK_ALPHA)] if parts else []
    known: list[Artist] = [area_handle("true anomaly", TRUE, alpha=1.0)] if labelled else []
    return [
        line_handle("original", INK),
        line_handle("teacher", TEACHER),
        line_handle("student", STUDENT),
        *hidden,
        *known,
    ]
