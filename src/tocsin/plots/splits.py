"""A series from its first to its last step: which part trains, validates and tests, and where anomalies lie."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tocsin.data.series_data import SeriesData
from tocsin.plots.lines import draw_line
from tocsin.plots.regions import draw_regions
from tocsin.plots.style import (
    CATEGORICAL,
    LABEL_SIZE,
    MUTED,
    PREDICTED,
    TICK_SIZE,
    TRUE,
    area_handle,
    horizontal_ylabel,
    new_figure,
    outside_legend,
    style_axes,
)

CHANNELS = 8  # shown at most
COLORS = (PREDICTED, CATEGORICAL[2], MUTED)  # of the parts


def splits_overview(
    parts: Sequence[tuple[str, SeriesData]], title: str = "The data, split in time", channels: int = CHANNELS
) -> Figure:
    """One panel per channel, the parts one after the other in their colours, labelled anomalies shaded.

    The gaps between the parts are left out.

    Args:
        parts: Name and series of each part, in order of time, all with the same channels.
        title: First line.
        channels: Most channels shown, the first ones.

    Raises:
        ValueError: There is no part.
    """
    if not parts:
        raise ValueError("there is no part of a series to draw")
    names = parts[0][1].channel_names
    shown = min(len(names), channels)
    figure = new_figure(11, 1.3 + 0.82 * shown, title)
    panels = figure.subplots(shown, 1, sharex=True, squeeze=False)[:, 0]
    starts = np.concatenate([[0], np.cumsum([len(series.values) for _, series in parts])])
    for channel, axes in enumerate(panels):
        for (name, series), start, color in zip(parts, starts, COLORS * len(parts), strict=False):
            x = start + np.arange(len(series.values), dtype=np.float64)
            values = np.asarray(series.values[:, channel], dtype=np.float64)
            draw_line(axes, x, values, color, 0.7)
            if series.labels is not None and series.labels.any():
                draw_regions(axes, np.asarray(series.labels, dtype=bool), x, TRUE)
            if channel == 0:
                where = (start + len(x) / 2, 1.05)
                share = f"{name}, {len(x):,} steps"
                axes.text(
                    *where,
                    share,
                    transform=axes.get_xaxis_transform(),
                    ha="center",
                    fontsize=LABEL_SIZE,
                    color=color,
                )
        style_axes(axes, "time step" if channel == shown - 1 else "", "", ticks=2)
        horizontal_ylabel(axes, names[channel])
        axes.tick_params(labelsize=TICK_SIZE)
        axes.set_xlim(0, float(starts[-1]))
        axes.xaxis.set_major_formatter("{x:,.0f}")
    figure.align_ylabels(panels)
    handles = [area_handle("true anomaly", TRUE)]
    outside_legend(figure, handles)
    return figure
