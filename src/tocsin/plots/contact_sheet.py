"""What training sees: pictures beside the augmented views made of them."""

import numpy as np
from matplotlib.figure import Figure

from tocsin.plots.cells import grid, smoothing
from tocsin.plots.heat import displayable
from tocsin.plots.style import INK, LABEL_SIZE, PREDICTED


def contact_sheet(
    originals: np.ndarray, views: np.ndarray, title: str = "Originals and augmented views"
) -> Figure:
    """One row per picture: the original in a frame, then its views; all with the same contrast.

    Args:
        originals: (n, H, W, 3) numbers in any range.
        views: (n, m, H, W, 3) in the same range.
        title: First line.

    Raises:
        ValueError: Arrays do not fit each other.
    """
    shape, expected = np.shape(views), np.shape(originals)
    if (
        len(shape) != 5
        or len(expected) != 4
        or (shape[0], *shape[2:]) != expected
        or shape[4] != 3
        or 0 in shape
    ):
        raise ValueError(
            f"originals has shape {expected} and views {shape}: give (n, H, W, 3) and (n, m, H, W, 3)"
        )
    n, m, H, W, _ = shape
    both = np.concatenate([np.asarray(originals)[:, None], np.asarray(views)], axis=1)
    pictures = displayable(both)  # (n, 1 + m, H, W, 3)
    across = max(m + 1, 5)
    figure, cells = grid(title, n * (m + 1), H, W, header=0, across=across, columns=m + 1)
    for index, axes in enumerate(cells):
        row, column = divmod(index, m + 1)
        axes.imshow(pictures[row, column], interpolation=smoothing(H, W))
        if row == 0 and column < 2:
            head = "original" if column == 0 else f"{m} view{'s' if m > 1 else ''} of it"
            axes.set_title(head, loc="left", fontsize=LABEL_SIZE, color=INK)
        if column == 0:
            axes.set_axis_on()
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=PREDICTED, linewidth=1.6)
    return figure
