"""Pictures that a classifier got wrong, or is least sure of, with what it looked at."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tocsin.plots.cells import WIDE, WIDTH, draw_pair, grid, pair_size, short, smoothing
from tocsin.plots.heat import displayable
from tocsin.plots.style import INK, LABEL_SIZE, MUTED, THRESHOLD, TICK_SIZE

_CAPTION = "warm colours: what spoke most for the predicted class, each picture on a scale of its own"


def mistakes(
    images: np.ndarray,
    maps: np.ndarray | None,
    true_names: Sequence[str],
    predicted_names: Sequence[str],
    probabilities: np.ndarray,
    titles: Sequence[str] | None = None,
    title: str = "Mistakes, the most confident first",
) -> Figure:
    """Each picture with what it is and what it was taken for; with maps, beside it again below its activation map.

    Args:
        images: (n, H, W, 3) numbers in any range; drawn with full contrast, all in the same way.
        maps: (n, h, w) finite, such as those of Grad-CAM, higher = speaks more for the predicted class; may be
            coarser than the images. None draws the pictures alone.
        true_names: n classes.
        predicted_names: n classes; in red where they differ.
        probabilities: (n,) in [0, 1], of the predicted class.
        titles: n short texts, such as file names; None writes none.
        title: First line.

    Raises:
        ValueError: Arrays do not fit each other.
    """
    shape = np.shape(images)
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise ValueError(f"images has shape {shape}: give (n, H, W, 3) with at least one image")
    n, H, W, _ = shape
    lists = {
        "maps": maps,
        "true_names": true_names,
        "predicted_names": predicted_names,
        "probabilities": probabilities,
        "titles": titles,
    }
    for name, values in lists.items():
        if values is not None and len(values) != n:
            raise ValueError(f"{len(values)} {name} for {n} images")
    height, width = (H, W) if maps is None else pair_size(H, W)
    across = 3 if width > WIDE * height else 4 if maps is None else 3
    figure, cells = grid(title, n, height, width, header=2 if titles is None else 3, across=across)
    pictures = displayable(images)
    for index, axes in enumerate(cells):
        if maps is None:
            axes.imshow(pictures[index], interpolation=smoothing(H, W))
        else:
            activation = np.asarray(maps[index], dtype=np.float64)
            low, high = float(activation.min()), float(activation.max())
            draw_pair(axes, pictures[index], activation, Normalize(low, high if high > low else low + 1.0))
        head = None if titles is None else titles[index]
        _head(
            axes, true_names[index], predicted_names[index], float(probabilities[index]), head, WIDTH / across
        )
    if maps is not None:
        figure.supxlabel(_CAPTION, x=0.01, ha="left", fontsize=TICK_SIZE, color=MUTED)
    return figure


def _head(axes: Axes, true: str, predicted: str, probability: float, title: str | None, wide: float) -> None:
    """Lines above a picture: its name, what it is, and what it was taken for, in red where that was wrong."""
    wrong = true != predicted
    lines = [
        (
            f"{'taken for' if wrong else 'found'} {predicted}, {probability:.1%}",
            LABEL_SIZE,
            THRESHOLD if wrong else INK,
        ),
        (f"is {true}", LABEL_SIZE, INK),
    ]
    if title is not None:
        lines.append((short(title, wide), TICK_SIZE, MUTED))
    for row, (text, size, color) in enumerate(lines):
        axes.annotate(
            text,
            (0, 1),
            xytext=(0, 3 + 12 * row),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=size,
            fontweight="bold" if row == 0 else "normal",
            color=color,
            parse_math=False,
        )
