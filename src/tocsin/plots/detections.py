"""What a detector sees of the same scenes: as they are, under a control patch, under the trained one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from tocsin.metrics.box_matching import ImageBoxes, match
from tocsin.plots.cells import WIDTH
from tocsin.plots.style import (
    INK,
    LABEL_SIZE,
    PREDICTED,
    THRESHOLD,
    TICK_SIZE,
    TRUE,
    line_handle,
    new_figure,
    outside_legend,
)

ACROSS = 3
IOU = 0.5
_TALLEST = 1.25  # height of a row over the width of a column; a taller scene leaves room at its sides
_SMALL = 0.12  # of the image's height: boxes lower than that have no room for a number

_View = tuple[tuple[float, float], tuple[float, float]]  # limits in x and y


class Seen(NamedTuple):
    """Scenes under one condition, and what was detected in them.

    Attributes:
        name: Such as `clean`, `gray patch`, `patch`.
        images: (N, H, W, 3) in [0, 1], drawn as they are.
        detections: With scores; `owner` counts the images from 0.
    """

    name: str
    images: np.ndarray
    detections: ImageBoxes


def detections(
    conditions: Sequence[Seen],
    truth: ImageBoxes,
    *,
    confidence: float = 0.25,
    title: str = "What the detector sees",
) -> Figure:
    """One row per scene and one column per condition; persons found have a number, those missed a dashed box.

    Args:
        conditions: One or more, of the same scenes in the same order.
        truth: All persons, with crowds if there are any. Crowds are not drawn, nor what is detected in them.
        confidence: Least confidence of a detection that is drawn and counts as a find.
        title: First line.

    Raises:
        ValueError: There is no condition, or conditions do not have the same scenes.
    """
    _check(conditions)
    views = [_view(image) for image in conditions[0].images]
    across = len(conditions)
    figure, panels = _panels(title, views, across)
    for column, condition in enumerate(conditions):
        sure = condition.detections.where(condition.detections.confidence >= confidence)
        found, false, missed = _sorted_out(sure, truth)
        for scene, view in enumerate(views):
            axes = panels[scene, column]
            axes.set_axis_off()
            axes.imshow(np.clip(condition.images[scene], 0, 1), interpolation="antialiased")
            axes.set(xlim=view[0], ylim=view[1])
            lost = np.flatnonzero(missed & (truth.owner == scene))
            seen, wrong = (np.flatnonzero(which & (sure.owner == scene)) for which in (found, false))
            for box in truth.boxes[lost]:
                _draw_box(axes, box, THRESHOLD, "--")
            for place, color in [*((p, TRUE) for p in wrong), *((p, PREDICTED) for p in seen)]:
                _draw_box(axes, sure.boxes[place], color, "-", f"{sure.confidence[place]:.2f}")
            _draw_heading(axes, condition.name, len(seen), len(lost), len(wrong))
    handles = [
        line_handle(f"person found (confidence, {confidence:g} or more)", PREDICTED),
        line_handle("person missed", THRESHOLD, "--"),
        line_handle("no person there, or one found twice", TRUE),
    ]
    outside_legend(figure, handles, columns=min(ACROSS, across))
    return figure


def _check(conditions: Sequence[Seen]) -> None:
    """Raise ValueError unless all conditions have the same scenes."""
    if not conditions:
        raise ValueError("there is no condition to draw")
    shape = np.shape(conditions[0].images)
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise ValueError(f"images has shape {shape}: give (N, H, W, 3) with at least one image")
    for condition in conditions:
        if np.shape(condition.images) != shape:
            raise ValueError(
                f"{condition.name!r} has images {np.shape(condition.images)}, but {conditions[0].name!r} has {shape}"
            )


def _sorted_out(sure: ImageBoxes, truth: ImageBoxes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections (D,) bool that found a person, those that found nothing, and persons (N,) bool that were missed."""
    matching = match(sure, truth, iou_thresholds=np.array([IOU]))
    person = (matching.truth[0] >= 0) & ~matching.in_crowd[0]
    found, false = np.zeros(len(sure), dtype=bool), np.zeros(len(sure), dtype=bool)
    found[matching.place[person]] = True
    false[matching.place[matching.truth[0] < 0]] = True
    missed = ~truth.is_crowd
    missed[matching.truth[0, person]] = False
    return found, false, missed


def _draw_box(axes: Axes, box: np.ndarray, color: str, style: str, number: str = "") -> None:
    """A frame with a thin light one below it, to be seen on dark and light ground, and its number inside."""
    left, top, right, bottom = box
    light = withStroke(linewidth=3.2, foreground="white", alpha=0.75)
    axes.add_patch(
        Rectangle(
            (left, top),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=color,
            linewidth=1.6,
            linestyle=style,
            path_effects=[light],
        )
    )
    lowest, highest = axes.get_ylim()
    above = top - highest > _SMALL / 2 * (lowest - highest)
    if number and bottom - top >= _SMALL * (lowest - highest):
        axes.text(
            max(left, axes.get_xlim()[0]),
            max(top, highest),
            number,
            fontsize=TICK_SIZE - 1.5,
            color="white",
            va="bottom" if above else "top",
            clip_on=True,
            bbox={"facecolor": color, "edgecolor": "none", "pad": 1.0},
        )


def _draw_heading(axes: Axes, name: str, seen: int, lost: int, wrong: int) -> None:
    """Two lines above a picture: the condition, bold, and what came of it."""
    text = f"{seen} found, {lost} missed" + (f", {wrong} false" if wrong else "")
    axes.set_title(text, loc="left", fontsize=LABEL_SIZE - 0.5, color=INK)
    axes.annotate(
        name,
        (0, 1),
        xytext=(0, 18),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=LABEL_SIZE,
        fontweight="bold",
        color=INK,
        parse_math=False,
    )


def _panels(title: str, views: Sequence[_View], across: int) -> tuple[Figure, np.ndarray]:
    """A figure with panels (scenes, conditions), each row as high as its scene in the width of a column."""
    wide = WIDTH / max(ACROSS, across)
    heights = [
        wide * min(_TALLEST, abs(np.diff(down)[0]) / abs(np.diff(along)[0])) + 0.4 for along, down in views
    ]
    figure = new_figure(max(across * wide, 5.0), sum(heights) + 0.9, title)
    figure.set_layout_engine(
        "compressed"
    )  # pictures keep their shape; without it, gaps are left between them
    return figure, figure.subplots(len(views), across, squeeze=False, height_ratios=heights)


def _view(image: np.ndarray) -> _View:
    """Limits in x and y of an image without bars of one colour at its borders, which only make it square."""
    limits = []
    for axis in (0, 1):  # over rows for what the columns hold, and the other way round
        varied = np.flatnonzero(np.ptp(image, axis=axis).any(-1))
        first, last = (varied[0], varied[-1]) if len(varied) else (0, image.shape[1 - axis] - 1)
        limits.append((first - 0.5, last + 0.5))
    across, down = limits
    return across, down[::-1]
