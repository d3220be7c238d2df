"""Cells of a sheet of pictures: one shape for all, and a picture with its map beside or below it."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from tocsin.plots.heat import heat_palette
from tocsin.plots.style import new_figure

WIDTH = 10.5  # inches of a full row
GAP = 0.04  # between a picture and its map, as a share of the longer side
SMALL = 160  # pixels across up to which each is drawn as a square, not smoothed
WIDE = 1.6  # width over height from which a map stands below its picture, not beside it
CHARACTERS = 13  # of small text in an inch
HEAT = ListedColormap([tuple(colour) for colour in heat_palette()], name="heat")


def grid(
    title: str,
    count: int,
    height: float,
    width: float,
    *,
    header: int,
    across: int,
    columns: int | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` cells of one shape, and room for lines of text above each.

    Args:
        title: First line.
        count: Cells.
        height: Of a cell, in any unit.
        width: Of a cell, in the same.
        header: Lines above each.
        across: Cells that fit beside each other; it gives their size.
        columns: Cells in a row, where there are fewer; None fills the rows.
    """
    columns = min(count, across) if columns is None else columns
    rows = -(-count // columns)
    wide = WIDTH / across  # of a cell, in inches
    figure = new_figure(
        max(columns * wide, 4.0) + 0.8, rows * (wide * height / width + 0.2 * header + 0.1) + 0.8, title
    )
    figure.set_layout_engine(
        "compressed"
    )  # pictures keep their shape; without it, gaps are left between them
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    return figure, list(panels[:count])


def pair_size(height: int, width: int) -> tuple[float, float]:
    """Height and width of a picture and its map: one above the other if they are wide, else side by side."""
    gap = GAP * max(height, width)
    return (2 * height + gap, width) if width > WIDE * height else (height, 2 * width + gap)


def smoothing(height: int, width: int) -> str:
    """How a picture is drawn: small ones with their pixels as squares."""
    return "nearest" if max(height, width) <= SMALL else "antialiased"


def draw_pair(
    axes: Axes, picture: np.ndarray, score_map: np.ndarray, scale: Normalize
) -> tuple[float, float]:
    """A picture, and beside or below it once more with its map, which may be coarser.

    Returns:
        The left and the upper border of the second picture.
    """
    H, W = picture.shape[:2]
    height, width = pair_size(H, W)
    left, top = width - W, height - H
    style = smoothing(H, W)
    axes.imshow(picture, extent=(0, W, H, 0), interpolation=style)
    place = (left, left + W, top + H, top)
    axes.imshow(picture, extent=place, interpolation=style)
    coarse = score_map.shape != (H, W)
    axes.imshow(score_map, extent=place, cmap=HEAT, norm=scale, interpolation="bilinear" if coarse else style)
    axes.set(xlim=(0, width), ylim=(height, 0))
    return left, top


def short(text: str, wide: float) -> str:
    """The end of a text that is too long for a panel so many inches wide: of a path that is the part that tells."""
    longest = int(CHARACTERS * wide)
    return text if len(text) <= longest else "…" + text[-(longest - 1) :]
