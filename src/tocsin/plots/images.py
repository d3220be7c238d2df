"""Figures of images: pictures with their anomaly maps, and sheets of examples."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tocsin.plots.cells import HEAT, WIDE, WIDTH, draw_pair, grid, pair_size, short, smoothing
from tocsin.plots.heat import CONTOUR, displayable, heat_limits
from tocsin.plots.style import (
    INK,
    LABEL_SIZE,
    MUTED,
    THRESHOLD,
    TICK_SIZE,
    line_handle,
    outside_legend,
)
from tocsin.plots.telling import FALSE_ALARM, MISSED, verdict

ACROSS = 3  # pairs in a full row
_CYAN = "#{:02X}{:02X}{:02X}".format(*CONTOUR)


def overlays(
    images: np.ndarray,
    maps: np.ndarray,
    masks: Sequence[np.ndarray | None],
    scores: np.ndarray,
    labels: np.ndarray | None,
    threshold: float,
    titles: Sequence[str] | None = None,
    title: str = "Anomaly maps",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Each picture, and again with its anomaly map and the outline of the true defect; one scale for all maps.

    Args:
        images: (N, H, W, 3) numbers in any range; drawn with full contrast, all in the same way.
        maps: (N, H, W) scores, higher = more anomalous.
        masks: N of (H, W) bool, true = anomalous, or None where it is unknown.
        scores: (N,) one score per image.
        labels: (N,) bool, true = anomalous; None if unknown.
        threshold: In units of `scores`; an alarm is `score >= threshold`.
        titles: N names; None counts images.
        title: First line.
        limits: Scores of the first and the last colour, such as those of all test images; None takes the maps given.

    Raises:
        ValueError: Arrays do not fit each other.
    """
    N, H, W = _check_images(images, masks=masks, scores=scores, labels=labels, titles=titles)
    if np.shape(maps) != (N, H, W):
        raise ValueError(f"maps has shape {np.shape(maps)}, but images {np.shape(images)}: give {(N, H, W)}")
    low, high = heat_limits(maps) if limits is None else limits
    scale = Normalize(low, high if high > low else low + 1.0)
    figure, cells = grid(title, N, *pair_size(H, W), header=2, across=ACROSS)
    pictures = displayable(images)
    for index, axes in enumerate(cells):
        left, top = draw_pair(axes, pictures[index], maps[index], scale)
        _draw_outline(axes, masks[index], left + 0.5, top + 0.5)
        name = f"image {index}" if titles is None else titles[index]
        label = None if labels is None else bool(labels[index])
        _draw_verdict(axes, name, float(scores[index]), label, threshold)
    _draw_scale(figure, scale, above=bool(np.nanmax(maps) > high))
    if any(mask is not None and np.any(mask) for mask in masks):
        outside_legend(figure, [line_handle("true defect", _CYAN)])
    return figure


def contact_sheet(
    images: np.ndarray,
    titles: Sequence[str] | None = None,
    masks: Sequence[np.ndarray | None] | None = None,
    title: str = "Examples",
) -> Figure:
    """Pictures side by side, such as normal training images and synthetic anomalies made of them.

    Args:
        images: (N, H, W, 3) numbers in any range; drawn with full contrast, all in the same way.
        titles: N short texts; None writes nothing.
        masks: N of (H, W) bool, true = anomalous, whose outlines are drawn; or None.
        title: First line.

    Raises:
        ValueError: Arrays do not fit each other.
    """
    N, H, W = _check_images(images, titles=titles, masks=masks)
    across = ACROSS if W > WIDE * H else 2 * ACROSS
    figure, cells = grid(title, N, H, W, header=0 if titles is None else 1, across=across)
    pictures = displayable(images)
    for index, axes in enumerate(cells):
        axes.imshow(pictures[index], interpolation=smoothing(H, W))
        if titles is not None:
            name = short(titles[index], WIDTH / across)
            axes.set_title(name, loc="left", fontsize=TICK_SIZE, color=INK, parse_math=False)
        if masks is not None:
            _draw_outline(axes, masks[index])
    if masks is not None and any(mask is not None and np.any(mask) for mask in masks):
        outside_legend(figure, [line_handle("anomalous", _CYAN)])
    return figure


def _check_images(
    images: np.ndarray, **others: Sequence[np.ndarray | None] | Sequence[str] | np.ndarray | None
) -> tuple[int, int, int]:
    """N, H and W of the images; everything else must have one entry per image, and masks their size."""
    shape = np.shape(images)
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise ValueError(f"images has shape {shape}: give (N, H, W, 3) with at least one image")
    N, H, W, _ = shape
    for name, other in others.items():
        if other is not None and len(other) != N:
            raise ValueError(f"{len(other)} {name} for {N} images")
    for index, mask in enumerate(others.get("masks") or ()):
        if mask is not None and np.shape(mask) != (H, W):
            raise ValueError(f"mask {index} has shape {np.shape(mask)}, but images are {(H, W)}")
    return N, H, W


def _draw_outline(axes: Axes, mask: np.ndarray | None, x: float = 0.0, y: float = 0.0) -> None:
    """The border of a mask whose first pixel has its centre at (x, y); a dark one below keeps it visible on white."""
    if mask is None or not np.any(mask):
        return
    H, W = mask.shape
    limits = axes.get_xlim(), axes.get_ylim()
    inside = np.pad(np.asarray(mask, dtype=np.float64), 1)  # so that the line is closed at the border too
    for color, width in ((INK, 1.8), (_CYAN, 0.9)):
        axes.contour(
            np.arange(-1, W + 1) + x, np.arange(-1, H + 1) + y, inside, [0.5], colors=color, linewidths=width
        )
    axes.set(xlim=limits[0], ylim=limits[1])


def _draw_verdict(axes: Axes, name: str, score: float, label: bool | None, threshold: float) -> None:
    """Two lines above a picture: its name; what was decided, in red where that was wrong."""
    decided = verdict(score, label, threshold)
    wrong = decided in (MISSED, FALSE_ALARM)
    axes.set_title(
        f"{decided}: {score:.3g} {'≥' if score >= threshold else '<'} {threshold:.3g}",
        loc="left",
        fontsize=LABEL_SIZE,
        fontweight="bold",
        color=THRESHOLD if wrong else INK,
        parse_math=False,
    )
    axes.annotate(
        short(name, WIDTH / ACROSS),
        (0, 1),
        xytext=(0, 17),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=TICK_SIZE,
        color=MUTED,
        parse_math=False,
    )


def _draw_scale(figure: Figure, scale: Normalize, *, above: bool) -> None:
    """The colour bar of all maps."""
    height = float(figure.get_size_inches()[1])
    bar = figure.colorbar(
        ScalarMappable(scale, HEAT),
        ax=figure.axes,
        extend="max" if above else "neither",
        extendfrac=0.1 / height,
        fraction=0.025,
        pad=0.01,
        aspect=7 * height,  # about as wide whatever the height
    )
    bar.set_label("anomaly score of a pixel", fontsize=LABEL_SIZE, color=INK)
    bar.ax.tick_params(labelsize=TICK_SIZE, colors=MUTED, labelcolor=INK, length=3)
