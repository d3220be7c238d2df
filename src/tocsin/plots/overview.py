"""What the data's anomalies look like: one panel per type, drawn around real examples with the true area."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tocsin.data.series_data import SeriesData
from tocsin.plots.channels import most_affected
from tocsin.plots.lines import draw_line, time_axis
from tocsin.plots.regions import draw_regions
from tocsin.plots.style import (
    CATEGORICAL,
    INK,
    TICK_SIZE,
    TRUE,
    area_handle,
    line_handle,
    new_figure,
    outside_legend,
    style_axes,
)

COLUMNS = 3
SHOWN_CHANNELS = 3
LEAST_CONTEXT = 40
CONTEXT = 1.5  # event lengths shown before and after
LANE = 1.25  # height of one channel's lane, whose line is 1 high
LONGEST_NAME = 14
COMPANION = "#9AA5B1"


def data_overview(series: SeriesData, examples_per_type: int = 1, title: str = "Anomaly types") -> Figure:
    """One panel per example: the most affected channels around the event, each scaled to its own lane.

    Examples are the events nearest to their type's median length. Where an event affects a single channel,
    the channel most correlated with it is drawn in grey, so that a broken relation can be seen.

    Args:
        series: With `events`.
        examples_per_type: Panels for each type; fewer where there are fewer events.
        title: First line.

    Raises:
        ValueError: There are no events.
    """
    events = _events(series)
    if examples_per_type < 1:
        raise ValueError(f"examples_per_type is {examples_per_type}: at least one example must be shown")
    chosen = [
        event
        for _, group in events.groupby("type", sort=True)
        for event in _typical(group, examples_per_type)
    ]
    counts = events["type"].value_counts()
    figure, panels = _grid(len(chosen), title, height=2.35)
    alone = False
    for number, (axes, event) in enumerate(zip(panels, chosen, strict=True)):
        alone |= _draw_event(axes, series, event)
        style_axes(
            axes,
            "time step" if number >= len(chosen) - COLUMNS else "",
            "channel (own range)" if number % COLUMNS == 0 else "",
        )
        of_type = f"{event['type']} ({_counted(int(counts[event['type']]), 'event')})"
        axes.set_title(of_type, loc="left", fontsize=9.5, color=INK, fontweight="bold", parse_math=False)
    figure.align_ylabels(panels[::COLUMNS])
    companion = [line_handle("unaffected, most correlated channel", COMPANION)] if alone else []
    outside_legend(figure, [area_handle("true anomaly", TRUE), *companion])
    return figure


def samples_overview(series: SeriesData, title: str = "Samples by type") -> Figure:
    """A collection of short series: one sample of each type, a normal one first if there is one.

    A sample with events of different types counts as `several types`.

    Args:
        series: Many short series laid end to end, with `events`; the first channel is drawn.
        title: First line.

    Raises:
        ValueError: There are no events.
    """
    events = _events(series)
    offsets = series.offsets
    owner = np.searchsorted(offsets, events["start"].to_numpy(np.int64), side="right") - 1
    kinds = np.full(len(series.lengths), "normal", dtype=object)
    types = events["type"].to_numpy(dtype=object)
    for sample in np.unique(owner):
        own = set(types[owner == sample])
        kinds[sample] = own.pop() if len(own) == 1 else "several types"
    order = sorted(set(kinds), key=lambda kind: (kind != "normal", kind))
    counts = {kind: int((kinds == kind).sum()) for kind in order}
    figure, panels = _grid(len(order), title, height=1.9)
    inside = _mask(series, events)
    for number, (axes, kind) in enumerate(zip(panels, order, strict=True)):
        sample = int(np.flatnonzero(kinds == kind)[0])
        start, end = int(offsets[sample]), int(offsets[sample + 1])
        time = time_axis(None, end - start)
        draw_line(axes, time.x, series.values[start:end, 0], CATEGORICAL[0], 1.2)
        draw_regions(axes, inside[start:end], time.x, TRUE)
        label = series.channel_names[0] if number % COLUMNS == 0 else ""
        style_axes(axes, "step in the sample" if number >= len(order) - COLUMNS else "", label, ticks=4)
        time.apply(axes, ticks=5)
        heading = f"{kind} ({_counted(counts[kind], 'sample')})"
        axes.set_title(heading, loc="left", fontsize=9.5, color=INK, fontweight="bold", parse_math=False)
    figure.align_ylabels(panels[::COLUMNS])
    outside_legend(figure, [area_handle("true anomaly", TRUE)])
    return figure


def _events(series: SeriesData) -> pd.DataFrame:
    """The events, checked."""
    if series.events is None or series.events.empty:
        raise ValueError("the series has no events: an overview of anomaly types needs the table of events")
    return series.events


def _counted(count: int, noun: str) -> str:
    """`1 event`, `2 events`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _grid(count: int, title: str, height: float) -> tuple[Figure, Sequence[Axes]]:
    """A figure with `count` panels in rows of `COLUMNS`."""
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = new_figure(4.1 * columns + 0.4, height * rows + 0.9, title)
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]


def _typical(group: pd.DataFrame, count: int) -> list[pd.Series]:
    """The events nearest to the group's median length."""
    length = group["end"] - group["start"]
    nearest = (length - length.median()).abs().sort_values(kind="stable").index[:count]
    return [group.loc[index] for index in nearest]


def _mask(series: SeriesData, events: pd.DataFrame) -> np.ndarray:
    """(N,) bool: the labels, or the union of all events where there are none."""
    if series.labels is not None:
        return np.asarray(series.labels).astype(bool)
    inside = np.zeros(len(series.values), bool)
    for start, end in events[["start", "end"]].to_numpy(np.int64):
        inside[start:end] = True
    return inside


def _draw_event(axes: Axes, series: SeriesData, event: pd.Series) -> bool:
    """The event's most affected channels, one lane each; returns whether a companion was added."""
    first, last = int(event["start"]), int(event["end"])
    offsets = series.offsets
    owner = int(np.searchsorted(offsets, first, side="right")) - 1
    context = max(LEAST_CONTEXT, int(CONTEXT * (last - first)))
    start, end = max(int(offsets[owner]), first - context), min(int(offsets[owner + 1]), last + context)
    inside = np.zeros(end - start, bool)
    inside[first - start : last - start] = True
    part = np.asarray(series.values[start:end], dtype=np.float64)
    candidates = (
        np.array(event["channels"], dtype=np.int64) if len(event["channels"]) else np.arange(part.shape[1])
    )
    shown = candidates[most_affected(part[:, candidates], inside, SHOWN_CHANNELS)]
    time = time_axis(None, len(series.values)).part(start, end)
    colors = list(CATEGORICAL[: len(shown)])
    if len(shown) == 1 and part.shape[1] > 1 and not inside.all():
        shown = np.append(shown, _companion(part[~inside], int(shown[0])))
        colors.append(COMPANION)
    lanes = LANE * np.arange(len(shown))[::-1]
    for lane, channel, color in zip(lanes, shown, colors, strict=True):
        draw_line(axes, time.x, lane + _unit_range(part[:, channel]), color, 1.1)
    draw_regions(axes, inside, time.x, TRUE)
    time.apply(axes, ticks=4)
    names = [series.channel_names[channel] for channel in shown]
    short = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in names]
    axes.set_yticks(lanes + 0.5, short, fontsize=TICK_SIZE, parse_math=False)
    axes.set_ylim(-0.12, LANE * len(shown) - LANE + 1.12)
    return COMPANION in colors


def _companion(normal: np.ndarray, channel: int) -> int:
    """The channel that goes most with another one in normal steps (M, C): by it a broken relation is seen."""
    spread = np.nan_to_num(normal - normal.mean(axis=0))
    norm = np.sqrt((spread**2).sum(axis=0))
    related = np.abs(spread.T @ spread[:, channel]) / np.maximum(norm * norm[channel], 1e-12)
    related[channel] = -1.0
    return int(related.argmax())


def _unit_range(values: np.ndarray) -> np.ndarray:
    """Values (T,) mapped to [0, 1]; a constant becomes 0.5."""
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.max() == finite.min():
        return np.where(np.isfinite(values), 0.5, np.nan)
    return np.asarray((values - finite.min()) / (finite.max() - finite.min()))
