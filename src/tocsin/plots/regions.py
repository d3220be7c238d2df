"""Runs of true in a mask, and how they are drawn: two or more points as an area, a single point as a line."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection

from tocsin.plots.style import AREA_ALPHA

MANY_REGIONS = 50  # above this one collection is drawn instead of one artist each: 100 times faster
LINE_ALPHA = 0.8


def regions(mask: np.ndarray) -> np.ndarray:
    """Runs of true in a mask.

    Args:
        mask: (N,) bool, or numbers of which nonzero is true.

    Returns:
        (R, 2) int64: first step and the step after the last, in order.
    """
    padded = np.concatenate([[False], np.asarray(mask).astype(bool), [False]])
    return np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2).astype(np.int64)


def draw_regions(
    axes: Axes, mask: np.ndarray, x: np.ndarray, color: str, alpha: float = AREA_ALPHA
) -> tuple[int, int]:
    """Mark the runs of a mask over the full height of the axes.

    An area reaches half a step beyond its first and last point and has a hairline edge, so that a short event
    stays visible in a long series.

    Args:
        axes: Where to draw.
        mask: (N,) bool.
        x: (N,) float64 positions on the x axis, not decreasing.
        color: Of areas and lines.
        alpha: Of areas, in [0, 1].

    Returns:
        Number of areas and number of lines drawn.
    """
    found = regions(mask)
    single = found[:, 1] - found[:, 0] == 1
    half = 0.5 * float(np.median(np.diff(x))) if len(x) > 1 else 0.5
    areas = np.stack([x[found[~single, 0]] - half, x[found[~single, 1] - 1] + half], axis=1)
    points = x[found[single, 0]]
    if len(found) > MANY_REGIONS:
        _draw_together(axes, areas, points, color, alpha)
    else:
        for left, right in areas:
            axes.axvspan(
                left, right, facecolor=color, edgecolor=color, alpha=alpha, linewidth=0.6, zorder=0.5
            )
        for point in points:
            axes.axvline(point, color=color, alpha=LINE_ALPHA, linewidth=1.2, zorder=0.6)
    return len(areas), len(points)


def _draw_together(axes: Axes, areas: np.ndarray, points: np.ndarray, color: str, alpha: float) -> None:
    """Draw areas (A, 2) and lines at points (P,) as one collection each."""
    transform = axes.get_xaxis_transform()  # x in data, y from 0 to 1
    if len(areas):
        left, right = areas.T
        x = np.stack([left, left, right, right], axis=1)
        y = np.broadcast_to([0.0, 1.0, 1.0, 0.0], x.shape)
        boxes = np.stack([x, y], axis=-1)  # (A, 4, 2)
        axes.add_collection(
            PolyCollection(
                list(boxes),
                facecolor=color,
                edgecolor=color,
                alpha=alpha,
                linewidth=0.6,
                transform=transform,
                zorder=0.5,
            ),
            autolim=False,
        )
    if len(points):
        lines: Sequence[np.ndarray] = [np.array([(p, 0.0), (p, 1.0)]) for p in points]
        axes.add_collection(
            LineCollection(
                list(lines), color=color, alpha=LINE_ALPHA, linewidth=1.2, transform=transform, zorder=0.6
            ),
            autolim=False,
        )
