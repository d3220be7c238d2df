"""A patch while it is trained: how it looked after some epochs, and how good it was."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tocsin.plots.cells import grid, smoothing
from tocsin.plots.style import INK, LABEL_SIZE, MUTED, PREDICTED, TICK_SIZE

MOST = 12  # thumbnails
ACROSS = 6


def patch_growth(
    patches: np.ndarray,
    epochs: Sequence[int],
    losses: Sequence[float] | None = None,
    title: str = "The patch while it was trained",
) -> Figure:
    """Thumbnails of a patch in the order of training; the one with the lowest loss has a frame.

    Args:
        patches: (K, P, P, 3) in [0, 1], drawn as they are. Of more than 12 the first, the last, the best and others
            evenly between them are shown.
        epochs: K numbers, rising.
        losses: K validation losses, lower = finds fewer persons; None writes none.
        title: First line.

    Raises:
        ValueError: There is no patch, or not one epoch and loss of each.
    """
    shape = np.shape(patches)
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise ValueError(f"patches has shape {shape}: give (K, P, P, 3) with at least one patch")
    for name, values in (("epochs", epochs), ("losses", losses)):
        if values is not None and len(values) != shape[0]:
            raise ValueError(f"{len(values)} {name} for {shape[0]} patches")
    best = None if losses is None or np.isnan(losses).all() else int(np.nanargmin(losses))
    chosen = _chosen(shape[0], best)
    figure, cells = grid(title, len(chosen), *shape[1:3], header=1 + (losses is not None), across=ACROSS)
    figure.set_figheight(figure.get_figheight() - 0.5)  # there is no legend
    for axes, index in zip(cells, chosen, strict=True):
        axes.imshow(np.clip(patches[index], 0, 1), interpolation=smoothing(*shape[1:3]))
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(PREDICTED if index == best else MUTED)
        axes.spines[:].set_linewidth(3.0 if index == best else 0.6)
        bold = "bold" if index == best else "normal"
        text = f"epoch {epochs[index]}" + (", best" if index == best else "")
        height = 0.0 if losses is None else 12.0
        for line, size, color, offset in (
            (text, LABEL_SIZE, INK, height),
            (_loss(losses, index), TICK_SIZE, MUTED, 0),
        ):
            axes.annotate(
                line,
                (0, 1),
                xytext=(0, 4 + offset),
                xycoords="axes fraction",
                textcoords="offset points",
                fontsize=size,
                fontweight=bold if color == INK else "normal",
                color=color,
            )
    return figure


def _loss(losses: Sequence[float] | None, index: int) -> str:
    return "" if losses is None else f"val_loss {losses[index]:.3f}"


def _chosen(count: int, best: int | None) -> list[int]:
    """At most twelve places, in order: the first, the last, the best, and others evenly between them."""
    places = np.linspace(0, count - 1, min(count, MOST)).round().astype(int)
    if best is not None and best not in places:
        inner = places[1:-1]  # the first and the last stay
        inner[np.abs(inner - best).argmin()] = best
    return [int(place) for place in np.unique(places)]
