"""What a network is made of: its parts with their shapes and their share of the parameters."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tocsin.plots.style import CATEGORICAL, GRID, INK, LABEL_SIZE, MUTED, TICK_SIZE, new_figure

ROW = 0.245  # inches


class Part(NamedTuple):
    """A part of a network.

    Attributes:
        name: Its own name, without that of what it is in.
        kind: Class.
        depth: 0 for a part of the network itself, 1 for a part of that, and so on.
        parameters: Its own and those of its parts.
        shape: Of its output, such as `32 × 20 × 64`; empty where it was not seen.
    """

    name: str
    kind: str
    depth: int
    parameters: int
    shape: str


def layer_table(parts: Sequence[Part], total: int, title: str = "Architecture") -> Figure:
    """One row per part: name, class, shape of the output, parameters as a number and as a bar.

    Args:
        parts: In the order of the network.
        total: Parameters of the whole network.
        title: First line.

    Raises:
        ValueError: There is no part.
    """
    if not parts:
        raise ValueError("the network has no parts to draw")
    n_rows = len(parts) + 1
    figure = new_figure(10.5, 0.75 + ROW * n_rows, title)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(n_rows, 0)
    for x, head, side in (
        (0.0, "part", "left"),
        (0.33, "class", "left"),
        (0.62, "output", "left"),
        (0.87, "parameters", "right"),
    ):
        axes.text(x, 0.5, head, ha=side, va="center", fontsize=LABEL_SIZE, fontweight="bold", color=INK)
    axes.text(0.89, 0.5, f"of {total:,}", va="center", fontsize=TICK_SIZE, color=MUTED)
    for row, part in enumerate(parts, start=1):
        strong = part.depth == 0
        if strong:
            axes.axhline(row, color=GRID, linewidth=0.8)
        weight, color = ("bold", INK) if strong else ("normal", MUTED)
        where = {"va": "center", "fontsize": LABEL_SIZE, "color": color, "parse_math": False}
        axes.text(0.022 * part.depth, row + 0.5, part.name, fontweight=weight, ha="left", **where)  # type: ignore[arg-type]
        axes.text(0.33, row + 0.5, part.kind, ha="left", **where)  # type: ignore[arg-type]
        axes.text(0.62, row + 0.5, part.shape, ha="left", **where)  # type: ignore[arg-type]
        axes.text(0.87, row + 0.5, f"{part.parameters:,}", ha="right", **where)  # type: ignore[arg-type]
        share = part.parameters / total if total else 0.0
        bar = CATEGORICAL[0] if strong else CATEGORICAL[4]
        axes.add_patch(
            Rectangle((0.89, row + 0.22), 0.11 * share, 0.56, color=bar, alpha=1.0 if strong else 0.6)
        )
    return figure
