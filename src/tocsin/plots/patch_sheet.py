"""A sheet of paper with a patch in its physical size, to be printed, cut out and worn in a test of one's own cameras.

The page has the size of A4 and no layout of its own: what is 10 cm here is 10 cm on paper, if the printer is told not
to scale ("actual size"). A ruler shows whether it did. Save it as PDF; a PNG carries its resolution too.
"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tocsin.errors import ConfigError
from tocsin.plots.style import INK, MUTED, TICK_SIZE

WIDTH, HEIGHT = 21.0, 29.7  # centimetres of A4
MARGIN = 1.0  # that printers leave white
FOOT = 1.4  # for the ruler and the text
GAP = 1.2  # between copies: room for the marks of both
MARK = 0.4  # length of a cut mark
_AWAY = 0.1  # of a mark from the corner, so that none is left on the patch
_RULER = 5
_INCH = 2.54


def patch_sheet(
    patch: np.ndarray, *, size_cm: float, copies: int | None = None, name: str = "adversarial test patch"
) -> Figure:
    """An A4 page with as many copies as wanted, or as fit, each with marks where to cut.

    Args:
        patch: (P, P, 3) in [0, 1]; each of its pixels is printed as a square.
        size_cm: Side of a printed copy in centimetres.
        copies: None fills the page.
        name: Written at the foot, beside the size.

    Raises:
        ConfigError: The patch is larger than the page, or more copies are wanted than fit.
        ValueError: The patch is no picture.
    """
    shape = np.shape(patch)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"patch has shape {shape}: give (P, P, 3)")
    columns, rows = copies_that_fit(size_cm)
    if copies is not None and not 1 <= copies <= columns * rows:
        raise ConfigError(
            f"{copies} copies of {size_cm:g} cm do not fit on A4: choose 1 to {columns * rows}, or a smaller size"
        )
    count = columns * rows if copies is None else copies
    figure = Figure(figsize=(WIDTH / _INCH, HEIGHT / _INCH), facecolor="white")
    used = min(columns, count), -(-count // columns)
    wide, high = (n * size_cm + (n - 1) * GAP for n in used)
    room = HEIGHT - 2 * MARGIN - FOOT
    left, top = (WIDTH - wide) / 2, HEIGHT - MARGIN - (room - high) / 2
    for place in range(count):
        row, column = divmod(place, columns)
        x = left + column * (size_cm + GAP)
        y = top - size_cm - row * (size_cm + GAP)
        axes = figure.add_axes((x / WIDTH, y / HEIGHT, size_cm / WIDTH, size_cm / HEIGHT))
        axes.imshow(np.clip(patch, 0, 1), interpolation="none", aspect="auto")
        axes.set_axis_off()
        _draw_marks(figure, x, y, size_cm)
    _draw_foot(
        figure, f"{name}, {size_cm:g} cm; print at actual size (100 %): the ruler must measure {_RULER} cm"
    )
    return figure


def copies_that_fit(size_cm: float) -> tuple[int, int]:
    """Copies beside and below each other on a page.

    Raises:
        ConfigError: Not even one fits.
    """
    across, down = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN - FOOT
    largest = min(across, down) - 2 * (MARK + _AWAY)
    if not 0 < size_cm <= largest:
        raise ConfigError(
            f"a patch of {size_cm:g} cm does not fit on A4: the size must be above 0 and at most {largest:g} cm"
        )
    marks = 2 * (MARK + _AWAY)
    # rounding must not lose a copy that fits exactly
    columns, rows = (int((side - marks + GAP) / (size_cm + GAP) + 1e-9) for side in (across, down))
    return columns, rows


def _draw_marks(figure: Figure, x: float, y: float, size: float) -> None:
    """Two short lines at each corner of a copy, outside of it."""
    for corner_x, out_x in ((x, -1), (x + size, 1)):
        for corner_y, out_y in ((y, -1), (y + size, 1)):
            near_x, near_y = corner_x + out_x * _AWAY, corner_y + out_y * _AWAY
            _draw_line(figure, (near_x, near_x + out_x * MARK), (corner_y, corner_y))
            _draw_line(figure, (corner_x, corner_x), (near_y, near_y + out_y * MARK))


def _draw_foot(figure: Figure, text: str) -> None:
    """The ruler with a tick per centimetre, and what the sheet is."""
    left, bottom = MARGIN + 0.2, MARGIN + 0.2
    _draw_line(figure, (left, left + _RULER), (bottom, bottom))
    for tick in range(_RULER + 1):
        _draw_line(figure, (left + tick,) * 2, (bottom, bottom + (0.35 if tick in (0, _RULER) else 0.2)))
    figure.text(
        (left + _RULER + 0.4) / WIDTH,
        bottom / HEIGHT,
        text,
        fontsize=TICK_SIZE,
        color=MUTED,
        va="bottom",
        parse_math=False,
    )


def _draw_line(figure: Figure, x: tuple[float, float], y: tuple[float, float]) -> None:
    """A thin line between two points in centimetres from the lower left corner of the page."""
    figure.add_artist(
        Line2D(np.array(x) / WIDTH, np.array(y) / HEIGHT, color=INK, linewidth=0.6, solid_capstyle="butt")
    )
