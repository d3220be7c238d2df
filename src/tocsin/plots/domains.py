"""How a detector does on data of another domain than the one it was trained on."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tocsin.plots.style import INK, LABEL_SIZE, MUTED, THRESHOLD, new_figure, style_axes

DARK = 0.6  # of the range of colours; from there on numbers are white


def domain_matrix(
    values: np.ndarray,
    sources: Sequence[str],
    targets: Sequence[str],
    title: str = "Image AUROC from domain to domain",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """A quality for each pair of domains; a frame marks where both are the same.

    Args:
        values: (S, T) numbers, higher = better; NaN where a pair was not measured.
        sources: S names of the domains trained on.
        targets: T names of the domains tested on.
        title: First line; it says what is measured.
        limits: Values of the lightest and the darkest colour; None takes those there are.

    Raises:
        ValueError: Shapes differ, or no value is finite.
    """
    values = np.asarray(values, dtype=np.float64)
    S, T = len(sources), len(targets)
    if values.shape != (S, T) or not values.size:
        raise ValueError(f"values has shape {values.shape} for {S} sources and {T} targets: give {(S, T)}")
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("none of the values is finite: there is nothing to draw")
    low, high = (values[finite].min(), values[finite].max()) if limits is None else limits
    level = (values - low) / ((high - low) or 1.0)
    longest = max(map(len, sources))
    figure = new_figure(max(3.6, 1.5 + 0.07 * longest + 0.95 * T), 1.7 + 0.6 * S, title)
    axes = figure.subplots()
    axes.imshow(np.ma.masked_invalid(level), cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for row, column in np.ndindex(S, T):
        known = bool(finite[row, column])
        axes.text(
            column,
            row,
            f"{values[row, column]:.3f}" if known else "n/a",
            ha="center",
            va="center",
            fontsize=LABEL_SIZE,
            color="white" if known and level[row, column] > DARK else INK if known else MUTED,
        )
        if sources[row] == targets[column]:
            frame = Rectangle(
                (column - 0.47, row - 0.46), 0.94, 0.92, fill=False, edgecolor=THRESHOLD, lw=1.6
            )
            axes.add_patch(frame)
    style_axes(axes, "tested on", "trained on")
    axes.grid(visible=False)
    axes.set_xticks(range(T), list(targets), parse_math=False)
    axes.set_yticks(range(S), list(sources), parse_math=False)
    if T > 2 and max(map(len, targets)) > 10:
        axes.tick_params(axis="x", labelrotation=35)
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure
